//! What is told of an incident: the same for all ways. No text of a ticket or line is in it.

use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::record::{Incident, IncidentChange, rfc3339};
use crate::volumes::IncidentRow;

const NOTIFICATION_TYPE: &str = "dev.triaged.incident-notification.v1";

/// One message, before it is given a form.
#[derive(Debug)]
pub(super) struct Message {
    /// The same when the message is sent again.
    pub(super) delivery_id: Uuid,
    pub(super) channel: String,
    pub(super) changes: Vec<IncidentChange>,
    pub(super) incident: Incident,
}

/// The body of a webhook without a template. See `schemas/incident-notification.json`.
#[derive(Debug, Serialize)]
pub(in crate::incidents) struct Notification<'a> {
    #[serde(rename = "type")]
    notification_type: &'static str,
    delivery_id: Uuid,
    sent_at: String,
    channel: &'a str,
    changes: &'a [IncidentChange],
    incident: Incident,
}

impl Message {
    /// `sequence`: entries of the history that are known when this is told.
    pub(super) fn new(row: &IncidentRow, changes: Vec<IncidentChange>, channel: &str, sequence: u32) -> Self {
        let mut hash = Sha256::new();
        for part in [row.incident_id.to_string().as_str(), channel, &sequence.to_string()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Message {
            delivery_id: uuid::Builder::from_custom_bytes(bytes).into_uuid(),
            channel: channel.to_owned(),
            changes,
            incident: Incident::from(row),
        }
    }

    /// Indicators are parts of texts, so they are left out, as notes of people are.
    pub(super) fn notification(&self, now: i64) -> Notification<'_> {
        let mut incident = self.incident.clone();
        incident.correlated_by.clear();
        incident.history.iter_mut().for_each(|entry| entry.note = None);
        Notification {
            notification_type: NOTIFICATION_TYPE,
            delivery_id: self.delivery_id,
            sent_at: rfc3339(now),
            channel: &self.channel,
            changes: &self.changes,
            incident,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::template::tests::message;

    /// The published schema is open; here what it does not list may not be there either.
    #[test]
    fn a_notification_conforms_to_its_schema() {
        let schema: Value =
            serde_json::from_str(include_str!("../../../schemas/incident-notification.json")).expect("JSON");
        let body = serde_json::to_value(message().notification(1_800_000_000_000)).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        assert!(validator.is_valid(&body), "{body}");
        let listed = |value: &Value, properties: &Value| {
            value.as_object().expect("an object").keys().all(|key| properties.get(key).is_some())
        };
        assert!(listed(&body, &schema["properties"]), "{body}");
        assert!(listed(&body["incident"], &schema["properties"]["incident"]["properties"]), "{body}");
    }

    #[test]
    fn a_message_that_is_sent_again_has_the_same_id() {
        assert_eq!(message().delivery_id, message().delivery_id);
    }
}
