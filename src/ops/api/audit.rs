//! Who changed what: `GET /v1/audit`, and the entries for keys, which are changed in their file and not through the API.

use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::ops::{KeyRecord, Moment};
use crate::record::rfc3339;
use crate::volumes::AuditEntry;

use super::ApiState;
use super::problem::Problem;
use super::request::{Query, Span, page_limit};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Start, RFC 3339; 30 days before the end if absent.
    #[param(format = "date-time")]
    from: Option<String>,
    /// End, which no longer counts; now if absent.
    #[param(format = "date-time")]
    to: Option<String>,
    /// The newest so many; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Changes, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditLog {
    entries: Vec<Change>,
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Change {
    #[schema(format = "uuid")]
    id: String,
    #[schema(format = "date-time")]
    at: String,
    /// Name and id of the key, `local` without keys, or what else made the change.
    actor: String,
    /// From where; absent when it came from this machine's own files.
    #[serde(skip_serializing_if = "String::is_empty")]
    address: String,
    /// Such as `key.created`.
    action: String,
    /// The id of what was changed.
    subject: String,
    #[schema(value_type = Object)]
    detail: serde_json::Value,
}

/// Writes a change down. What was done is done, also where that fails.
pub(super) async fn note(state: &ApiState, entry: &AuditEntry) {
    if let Err(error) = state.store.audit(entry).await {
        tracing::warn!(%error, action = entry.action, "the audit log cannot be written");
    }
}

/// The audit log
///
/// Every change that was made through the API, and every key that was made or revoked. Needs the role admin.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", params(Parameters), security(("key" = ["admin"])),
    responses((status = 200, description = "The changes.", body = AuditLog)),
)]
pub(super) async fn audit(
    State(state): State<ApiState>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<AuditLog>, Problem> {
    let span = Span::read(parameters.from.as_deref(), parameters.to.as_deref(), MONTH)?;
    let limit = page_limit(parameters.limit)?;
    let entries = state.store.audit_log(span.from, span.to, limit).await?;
    let change = |entry: AuditEntry| Change {
        id: entry.entry_id.to_string(),
        at: rfc3339(entry.at),
        actor: entry.actor,
        address: entry.address,
        action: entry.action,
        subject: entry.subject,
        detail: serde_json::from_str(&entry.detail).unwrap_or_default(),
    };
    Ok(Json(AuditLog { entries: entries.into_iter().map(change).collect() }))
}

/// What the records of a keys file say has happened. The same record always gives the same entries, so they may be
/// written whenever the file is read, by every instance.
pub(super) fn of_keys(keys: &[KeyRecord]) -> Vec<AuditEntry> {
    let entry = |at: Moment, action, key: &KeyRecord| {
        let detail = json!({"name": key.name, "role": key.role, "expires_at": key.expires_at});
        AuditEntry::at(at.millis(), "triaged keys", "", action, &key.id, &detail)
    };
    let created = keys.iter().map(|key| entry(key.created_at, "key.created", key));
    let revoked = keys.iter().filter_map(|key| Some(entry(key.revoked_at?, "key.revoked", key)));
    created.chain(revoked).collect()
}
