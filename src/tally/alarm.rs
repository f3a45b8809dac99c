//! Drift, told to whoever listens: each shift that is announced becomes one message of the topic `drift.topic`.
//!
//! It is written beside the events that tally stores, not with them: the numbers are about thousands of events, and that
//! Kafka is slow is no reason to keep those waiting. What cannot be written within the deadline is in the log.

use std::sync::Arc;

use serde::Serialize;

use crate::config::Config;
use crate::record::{Kind, new_id, rfc3339};
use crate::stream::{Headers, Outbox, OutboxError};

use super::drift::Shift;

const DRIFT_TYPE: &str = "dev.triaged.drift.v1";

/// Writes shifts; cloning shares it.
#[derive(Debug, Clone)]
pub struct DriftAlarm {
    /// `None`: no limit is set, so there is nothing to write.
    outbox: Option<Arc<Outbox>>,
    topic: String,
    instance: String,
}

/// The value of `drift`; schemas/drift.json.
#[derive(Debug, Serialize)]
struct DriftEvent<'a> {
    kind: Kind,
    /// `labels` or `confidence`.
    of: &'a str,
    value: f64,
    limit: f64,
    /// How many events it was found in.
    events: usize,
    /// The model whose training it is compared with.
    model: &'a str,
    detected_at: String,
    /// Each instance sees the partitions that are its own.
    instance: &'a str,
}

impl DriftAlarm {
    /// Nothing is connected before the first shift.
    pub fn open(config: &Config) -> Result<Self, OutboxError> {
        let drift = &config.drift;
        let outbox = match drift.label_shift > 0.0 || drift.confidence_drop > 0.0 {
            true => Some(Arc::new(Outbox::new(&config.kafka, &config.stream, config.feedback.send_deadline)?)),
            false => None,
        };
        Ok(DriftAlarm { outbox, topic: drift.topic.clone(), instance: config.kafka.instance.clone() })
    }

    /// Writes one shift that was found at `now`, in milliseconds since 1970-01-01 UTC.
    pub(super) async fn raise(&self, shift: &Shift, now: i64) {
        let Some(outbox) = &self.outbox else { return };
        let event = DriftEvent {
            kind: shift.kind,
            of: shift.of,
            value: shift.value,
            limit: shift.limit,
            events: shift.events,
            model: &shift.model,
            detected_at: rfc3339(now),
            instance: &self.instance,
        };
        let key = format!("{}/{}", shift.kind, shift.of);
        let value = serde_json::to_vec(&event).expect("plain data and memory cannot fail");
        let headers = Headers::with_capacity(5)
            .add("content-type", "application/json")
            .add("ce_specversion", "1.0")
            .add("ce_type", DRIFT_TYPE)
            .add("ce_source", "triaged/drift")
            .add("ce_id", new_id().to_string());
        if let Err(error) = outbox.send(&self.topic, key.as_bytes(), headers, &value).await {
            tracing::warn!(%error, "the shift was not published");
        }
    }
}
