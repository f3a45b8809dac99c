//! The message on the `incidents` topic: the incident with its whole state, keyed by its id, with what has changed in the
//! headers, so that a reader of breaches need not parse the others.

use crate::record::Incident;
use crate::stream::{Announcement, Headers};
use crate::volumes::IncidentRow;

const INCIDENT_TYPE: &str = "dev.triaged.incident.v1";
/// The header's value when only the count has changed.
const GROWN: &str = "grown";

/// `news`: the entries of the history that this message is the first to tell.
pub(super) fn announce(topic: &str, row: &IncidentRow, news: usize) -> Announcement {
    let incident = Incident::from(row);
    let first = incident.history.len().saturating_sub(news);
    let changes: Vec<&str> = incident.history[first..].iter().map(|entry| entry.change.as_str()).collect();
    let changes = if changes.is_empty() { GROWN.to_owned() } else { changes.join(",") };
    let id = incident.incident_id.to_string();
    let headers = Headers::with_capacity(10)
        .add("change", changes)
        .add("status", incident.status.as_str())
        .add("severity", incident.severity.as_str())
        .add("queue", &incident.queue)
        .add("content-type", "application/json")
        .add("ce_specversion", "1.0")
        .add("ce_type", INCIDENT_TYPE)
        .add("ce_source", "triaged/incidents")
        .add("ce_id", format!("{id}/{}", incident.version))
        .add("ce_time", &incident.updated_at);
    let value = serde_json::to_vec(&incident).expect("plain data and memory cannot fail");
    Announcement { topic: topic.to_owned(), key: id, value, headers }
}
