//! The watch: one instance at a time places events, applies updates, looks at the clock, writes what has changed and has it
//! told.
//!
//! A look writes in this order: the incidents to Kafka (in a transaction, which the broker refuses to all but the newest
//! leader), the incidents to the store, the places of their events, what became of the updates. Whatever breaks it off, the
//! next look, of this instance or another, reads from the store what is not done and does it again with the same ids.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::runtime::Handle;
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::readiness::RoleReadiness;
use crate::record::{IncidentAction, IncidentChange, IncidentStatus, Priority, QueueEvent, incident_id_of};
use crate::stream::{Leadership, LeadershipError};
use crate::supervisor::Shutdown;
use crate::volumes::{IncidentNotificationRow, IncidentUpdateRow, StoreError, VolumeStore};

use super::event::announce;
use super::live::{LiveSet, Placed};
use super::notify::{Notifier, SetupError};
use super::sighting::Sightings;

/// How often the group's membership is served and messages are sent.
const TICK: Duration = Duration::from_millis(200);
/// How often the store and the clock are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Events and updates of one look; more are for the next.
const MOST_EVENTS: usize = 5_000;
const MOST_UPDATES: usize = 500;
/// Incidents that are watched; the newest.
const MOST_LIVE: usize = 20_000;
/// Ids of one question.
const PART: usize = 500;
/// How long a resolved incident is kept in mind, in milliseconds: long enough for what came late, and for its channels.
const KEEP: i64 = 2 * 3_600_000;
/// How long events may wait for a leader, in milliseconds: older ones without a place are not looked for.
const LONGEST_WAIT: i64 = 2 * 86_400_000;
/// Between attempts to note what was told, and how much may wait for that.
const NOTE_PAUSE: Duration = Duration::from_secs(5);
const MOST_UNNOTED: usize = 10_000;
/// How long messages that are on their way may take when the process ends.
const FINISH: Duration = Duration::from_secs(5);

/// Why a look was broken off; it is done again.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    #[error("the incidents could not be published")]
    Publish(#[from] LeadershipError),
}

/// One instance's part in watching over incidents.
#[derive(Debug)]
pub struct IncidentWatch {
    config: Config,
    store: VolumeStore,
    sightings: Sightings,
    notifier: Notifier,
    /// What was told and is not noted in the store.
    unnoted: Vec<IncidentNotificationRow>,
    note_not_before: Instant,
    /// Where the store's connections live.
    runtime: Handle,
    metrics: Metrics,
}

impl IncidentWatch {
    /// Makes the clients of the channels; nothing is connected yet.
    pub fn new(config: Config, store: VolumeStore, runtime: Handle, metrics: &Metrics) -> Result<Self, SetupError> {
        let notifier = Notifier::new(&config, runtime.clone(), metrics)?;
        let sightings = Sightings::new(&config.incidents);
        metrics.prepare_incidents();
        Ok(IncidentWatch {
            config,
            store,
            sightings,
            notifier,
            unnoted: Vec::new(),
            note_not_before: Instant::now(),
            runtime,
            metrics: metrics.clone(),
        })
    }

    /// Runs on a thread of its own until shutdown is requested.
    pub fn run(mut self, readiness: &RoleReadiness, shutdown: &Shutdown) -> Result<(), WatchError> {
        let stream = self.config.stream.clone();
        let mut leadership =
            Leadership::join(&self.config.kafka, &stream, "incident-watch", &self.config.incidents.topic)?;
        let mut live: Option<LiveSet> = None;
        let mut pause = stream.retry_backoff;
        let mut not_before = Instant::now();
        while !shutdown.is_requested() {
            let leads = leadership.poll(TICK);
            let told = self.notifier.collect(Utc::now().timestamp_millis());
            self.note(told);
            self.metrics.incident_leader().set(i64::from(leads));
            if !leads {
                if live.take().is_some() {
                    self.metrics.clear_open_incidents();
                }
                // Standing by is what an instance that does not lead is there for.
                readiness.set_ready();
                continue;
            }
            if Instant::now() >= not_before {
                match self.look(&mut leadership, &mut live) {
                    Ok(()) => {
                        readiness.set_ready();
                        pause = stream.retry_backoff;
                        not_before = Instant::now() + LOOK;
                    }
                    Err(error) => {
                        // What was done in memory may be more than what is written.
                        live = None;
                        let error = format!("{:#}", anyhow::Error::from(error));
                        warn!(error, ?pause, "incidents are looked at again");
                        readiness.set_not_ready(error);
                        self.metrics.role("incident-watch").retries.inc();
                        not_before = Instant::now() + pause;
                        pause = (pause * 2).min(stream.retry_backoff_max);
                    }
                }
            }
            if let Some(live) = &live {
                self.notifier.send(live.iter(), Utc::now().timestamp_millis());
            }
        }
        let told = self.notifier.finish(Instant::now() + FINISH, Utc::now().timestamp_millis());
        self.note(told);
        self.metrics.incident_leader().set(0);
        readiness.set_not_ready("stopped");
        Ok(())
    }

    /// Notes what was told, now or later: nobody is kept waiting for that. What is never noted is told again after a
    /// restart.
    fn note(&mut self, told: Vec<IncidentNotificationRow>) {
        self.unnoted.extend(told);
        if self.unnoted.is_empty() || Instant::now() < self.note_not_before {
            return;
        }
        match self.runtime.block_on(self.store.insert_incident_notifications(&self.unnoted)) {
            Ok(()) => self.unnoted.clear(),
            Err(error) => {
                warn!(%error, waiting = self.unnoted.len(), "it is noted later who was told of an incident");
                self.note_not_before = Instant::now() + NOTE_PAUSE;
                let surplus = self.unnoted.len().saturating_sub(MOST_UNNOTED);
                self.unnoted.drain(..surplus);
            }
        }
    }

    fn look(&mut self, leadership: &mut Leadership, kept: &mut Option<LiveSet>) -> Result<(), WatchError> {
        let runtime = self.runtime.clone();
        let mut live = match kept.take() {
            Some(live) => live,
            None => runtime.block_on(self.load())?,
        };
        let now = Utc::now().timestamp_millis();
        let (placed, updates) = runtime.block_on(self.gather(&mut live, now))?;
        live.pass_time(now);
        let changes = live.changes(now);
        if !changes.is_empty() {
            let topic = &self.config.incidents.topic;
            leadership.publish(changes.iter().map(|change| announce(topic, &change.row, change.news)).collect())?;
            let rows: Vec<_> = changes.iter().map(|change| change.row.clone()).collect();
            runtime.block_on(self.store.insert_incidents(&rows))?;
            for change in &changes {
                for (_, what, by, ..) in &change.row.history[change.row.history.len() - change.news..] {
                    self.count(what, change.row.severity(), change.row.incident_id, by);
                }
            }
            live.written(&changes);
        }
        runtime.block_on(async {
            self.store.insert_incident_events(&placed.rows).await?;
            self.store.insert_incident_updates(&updates).await?;
            let touched: Vec<Uuid> = placed.touched.iter().copied().collect();
            for part in touched.chunks(PART) {
                for members in self.store.incident_members(part).await? {
                    live.take(&members, now);
                }
            }
            Ok::<_, StoreError>(())
        })?;
        self.notifier.forget(&live.forget(now - KEEP));
        self.show(&live);
        *kept = Some(live);
        Ok(())
    }

    /// What the store knows, for an instance that has just begun to lead.
    async fn load(&mut self) -> Result<LiveSet, StoreError> {
        let now = Utc::now().timestamp_millis();
        let mut live = LiveSet::new(&self.config.incidents);
        let rows = self.store.live_incidents(now - KEEP, MOST_LIVE).await?;
        if rows.len() == MOST_LIVE {
            warn!(incidents = rows.len(), "there are more open incidents than can be watched: resolve some");
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.incident_id).collect();
        for row in rows {
            live.know(row);
        }
        let mut notified = Vec::new();
        for part in ids.chunks(PART) {
            for members in self.store.incident_members(part).await? {
                live.take(&members, now);
            }
            notified.extend(self.store.incident_notifications(part).await?);
        }
        self.notifier.load(notified);
        info!(incidents = ids.len(), "watching over incidents");
        Ok(live)
    }

    /// Reads events and updates that wait, and does what they ask for.
    async fn gather(&self, live: &mut LiveSet, now: i64) -> Result<(Placed, Vec<IncidentUpdateRow>), StoreError> {
        let oldest = now - self.config.incidents.max_event_age.as_millis() as i64 - LONGEST_WAIT;
        let events = self.store.events_to_place(oldest, MOST_EVENTS).await?;
        let mut placed = live.place(events, now);
        let mut updates = self.store.pending_incident_updates(MOST_UPDATES).await?;
        for update in &mut updates {
            update.outcome = self.apply(update, live, &mut placed, now).await?;
            update.version = 1;
            let (id, outcome) = (update.update_id, &update.outcome);
            info!(action = update.action().as_str(), update = %id, outcome, "an update of an incident");
        }
        Ok((placed, updates))
    }

    async fn apply(
        &self,
        update: &IncidentUpdateRow,
        live: &mut LiveSet,
        placed: &mut Placed,
        now: i64,
    ) -> Result<String, StoreError> {
        let unknown = Ok("unknown".to_owned());
        let id = match update.incident_id.is_nil() {
            false => update.incident_id,
            true => match self.of_event(update.event_id, live, placed, now).await? {
                Some(id) => id,
                None => return unknown,
            },
        };
        if !live.contains(id) {
            let Some(row) = self.store.incident(id).await? else { return unknown };
            live.know(row);
        }
        let Some(incident) = live.get_mut(id) else { return unknown };
        Ok(incident.apply(update, &self.config.incidents, now).as_str().to_owned())
    }

    /// The incident of an event, which is opened when there is none.
    async fn of_event(
        &self,
        event_id: Uuid,
        live: &mut LiveSet,
        placed: &mut Placed,
        now: i64,
    ) -> Result<Option<Uuid>, StoreError> {
        if let Some(row) = placed.rows.iter().find(|row| row.event_id == event_id) {
            return Ok(Some(row.incident_id));
        }
        if let Some(id) = self.store.incident_of_event(event_id).await? {
            return Ok(Some(id));
        }
        let Some(event) = self.store.event(event_id).await? else { return Ok(None) };
        let id = incident_id_of(event_id);
        let Some(row) = self.sightings.by_hand(&QueueEvent::from(event), id, now) else { return Ok(None) };
        // It may have been opened by a look that was broken off.
        if !live.contains(id)
            && let Some(known) = self.store.incident(id).await?
        {
            live.know(known);
        }
        live.open_by_hand(row, now, placed);
        Ok(Some(id))
    }

    fn count(&self, change: &str, severity: Priority, id: Uuid, by: &str) {
        let severity = severity.as_str();
        match change.parse() {
            Ok(IncidentChange::Opened) => self.metrics.incidents_opened(severity).inc(),
            Ok(IncidentChange::AcknowledgeBreached) => {
                self.metrics.incident_breaches(severity, IncidentAction::Acknowledge.as_str()).inc();
            }
            Ok(IncidentChange::ResolveBreached) => {
                self.metrics.incident_breaches(severity, IncidentAction::Resolve.as_str()).inc();
            }
            _ => {}
        }
        info!(incident = %id, change, severity, by, "incident");
    }

    fn show(&self, live: &LiveSet) {
        let mut counts = [[0_i64; 2]; Priority::ALL.len()];
        for row in live.iter().filter(|row| row.status() != IncidentStatus::Resolved) {
            counts[row.severity() as usize][usize::from(row.status() == IncidentStatus::Acknowledged)] += 1;
        }
        for (severity, counts) in Priority::ALL.into_iter().zip(counts) {
            for (status, count) in ["open", "acknowledged"].into_iter().zip(counts) {
                self.metrics.open_incidents(severity.as_str(), status).set(count);
            }
        }
    }
}
