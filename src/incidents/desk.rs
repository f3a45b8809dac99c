//! What people ask for over HTTP: incidents as they stand, and updates, which take the way through Kafka, so that none is
//! lost while the store is away, and so that another system can take the same.

use std::sync::Arc;

use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::config::Config;
use crate::record::{Incident, IncidentAction, IncidentStatus, IncidentUpdate, incident_id_of, new_id, rfc3339};
use crate::stream::{Headers, Outbox, OutboxError};
use crate::volumes::{EventCursor, IncidentQuery, StoreError, VolumeStore};

const UPDATE_TYPE: &str = "dev.triaged.incident-update.v1";

/// Why somebody does not get what they ask for.
#[derive(Debug, thiserror::Error)]
pub enum IncidentDeskError {
    #[error("no incident has the id {0}")]
    UnknownIncident(Uuid),
    #[error("no event has the id {0}")]
    UnknownEvent(Uuid),
    #[error("it was resolved at {0}")]
    Resolved(String),
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    #[error("the update could not be written")]
    Write(#[from] OutboxError),
}

impl IncidentDeskError {
    /// The HTTP status that says the same.
    pub fn status(&self) -> u16 {
        match self {
            IncidentDeskError::UnknownIncident(_) | IncidentDeskError::UnknownEvent(_) => 404,
            IncidentDeskError::Resolved(_) => 409,
            IncidentDeskError::Write(error) if !error.is_retriable() => 500,
            IncidentDeskError::Store(_) | IncidentDeskError::Write(_) => 503,
        }
    }

    /// A name out of a small fixed set, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            IncidentDeskError::UnknownIncident(_) => "unknown_incident",
            IncidentDeskError::UnknownEvent(_) => "unknown_event",
            IncidentDeskError::Resolved(_) => "resolved",
            IncidentDeskError::Store(_) => "store_unavailable",
            IncidentDeskError::Write(_) => "kafka_unavailable",
        }
    }
}

/// The update is in Kafka, on all in-sync replicas, and is applied soon after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UpdateReceipt {
    #[schema(value_type = String, format = "uuid")]
    pub update_id: Uuid,
    #[schema(value_type = String, format = "uuid")]
    pub incident_id: Uuid,
}

/// Serves those who work on incidents. Cloning shares it.
#[derive(Debug, Clone)]
pub struct IncidentDesk {
    store: VolumeStore,
    outbox: Arc<Outbox>,
    topic: String,
}

impl IncidentDesk {
    /// Nothing is connected before the first update.
    pub fn open(config: &Config, store: VolumeStore) -> Result<Self, OutboxError> {
        let outbox = Outbox::new(&config.kafka, &config.stream, config.incidents.send_deadline)?;
        Ok(IncidentDesk { store, outbox: Arc::new(outbox), topic: config.incidents.updates.clone() })
    }

    /// A page of incidents, those opened last first, and where the next one begins.
    pub async fn incidents(&self, query: IncidentQuery) -> Result<(Vec<Incident>, Option<EventCursor>), StoreError> {
        let limit = query.limit;
        // One more tells whether there is a next page.
        let mut found = self.store.incidents(&IncidentQuery { limit: limit + 1, ..query }).await?;
        let next = (found.len() > limit).then(|| found[limit - 1].cursor());
        found.truncate(limit);
        Ok((found.iter().map(Incident::from).collect(), next))
    }

    pub async fn incident(&self, id: Uuid) -> Result<Incident, IncidentDeskError> {
        let found = self.store.incident(id).await?.ok_or(IncidentDeskError::UnknownIncident(id))?;
        Ok(Incident::from(&found))
    }

    /// Asks to acknowledge or resolve an incident.
    pub async fn update(
        &self,
        id: Uuid,
        action: IncidentAction,
        by: &str,
        note: Option<&str>,
    ) -> Result<UpdateReceipt, IncidentDeskError> {
        self.incident_to_change(id).await?;
        let update_id = self.write(action, Some(id), None, by, note).await?;
        Ok(UpdateReceipt { update_id, incident_id: id })
    }

    /// Asks to escalate an event: the incident that it belongs to, or one that is opened for it.
    pub async fn escalate(
        &self,
        event_id: Uuid,
        by: &str,
        note: Option<&str>,
    ) -> Result<UpdateReceipt, IncidentDeskError> {
        let incident_id = match self.store.incident_of_event(event_id).await? {
            Some(id) => {
                self.incident_to_change(id).await?;
                id
            }
            None if self.store.event(event_id).await?.is_some() => incident_id_of(event_id),
            None => return Err(IncidentDeskError::UnknownEvent(event_id)),
        };
        let update_id = self.write(IncidentAction::Escalate, None, Some(event_id), by, note).await?;
        Ok(UpdateReceipt { update_id, incident_id })
    }

    async fn incident_to_change(&self, id: Uuid) -> Result<(), IncidentDeskError> {
        let incident = self.incident(id).await?;
        match incident.status {
            IncidentStatus::Resolved => Err(IncidentDeskError::Resolved(incident.resolved_at.unwrap_or_default())),
            IncidentStatus::Open | IncidentStatus::Acknowledged => Ok(()),
        }
    }

    async fn write(
        &self,
        action: IncidentAction,
        incident_id: Option<Uuid>,
        event_id: Option<Uuid>,
        by: &str,
        note: Option<&str>,
    ) -> Result<Uuid, OutboxError> {
        let update_id = new_id();
        let update = IncidentUpdate {
            update_id: Some(update_id),
            action,
            incident_id,
            event_id,
            by: Some(by.into()),
            at: Some(rfc3339(Utc::now().timestamp_millis()).into()),
            note: note.map(Into::into),
        };
        let value = serde_json::to_vec(&update).expect("plain data and memory cannot fail");
        let headers = Headers::with_capacity(5)
            .add("content-type", "application/json")
            .add("ce_specversion", "1.0")
            .add("ce_type", UPDATE_TYPE)
            .add("ce_source", "triaged/incidents")
            .add("ce_id", update_id.to_string());
        let key = incident_id.or(event_id).unwrap_or(update_id).to_string();
        self.outbox.send(&self.topic, key.as_bytes(), headers, &value).await?;
        Ok(update_id)
    }
}
