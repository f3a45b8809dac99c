//! The audit log: who changed what, and when. Whoever lets something be changed writes an entry through
//! `VolumeStore::audit`.

use chrono::Utc;
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// One change: a row of `audit_log`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Follows from the rest, so that an entry written twice is one entry.
    #[serde(with = "clickhouse::serde::uuid")]
    pub entry_id: Uuid,
    pub actor: String,
    /// Empty when no caller was involved.
    pub address: String,
    /// A dotted name in the past tense, such as `key.created`: a small fixed set.
    pub action: String,
    /// The id of what was changed.
    pub subject: String,
    /// JSON; no ticket text and no secret.
    pub detail: String,
}

impl AuditEntry {
    /// A change that is made now.
    pub fn now(actor: &str, address: &str, action: &str, subject: &str, detail: &serde_json::Value) -> Self {
        AuditEntry::at(Utc::now().timestamp_millis(), actor, address, action, subject, detail)
    }

    pub fn at(at: i64, actor: &str, address: &str, action: &str, subject: &str, detail: &serde_json::Value) -> Self {
        let detail = detail.to_string();
        let mut hash = Sha256::new();
        hash.update(at.to_be_bytes());
        for part in [actor, address, action, subject, &detail] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        AuditEntry {
            at,
            entry_id: uuid::Builder::from_custom_bytes(bytes).into_uuid(),
            actor: actor.to_owned(),
            address: address.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_change_is_the_same_entry() {
        let entry = |subject| AuditEntry::at(7, "ann", "", "key.created", subject, &json!({"role": "read"}));
        assert_eq!(entry("a"), entry("a"));
        assert_ne!(entry("a").entry_id, entry("b").entry_id);
        assert_eq!(entry("a").entry_id.get_version_num(), 8);
    }
}
