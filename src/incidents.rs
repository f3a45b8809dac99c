//! The incidents role: urgent events become incidents, which somebody must acknowledge and resolve in time, and is told so.
//!
//! ```text
//! queue-events ────► stage ──► store: events without a place ┐
//! incident-updates ─► stage ──► store: updates ──────────────┤   every instance
//!                                                            ▼
//!        watch: place (correlate), apply updates, deadlines, escalation ──► Kafka: incidents, store
//!               └─► notifier ──► webhooks, Slack, e-mail          the one instance that leads
//!
//! desk: what people ask for over HTTP ──► outbox ──► incident-updates
//! ```
//!
//! **What is guaranteed.** The stage adds events as a set, by their place in Kafka, so that repeats, rebalances and kills
//! change nothing: an incident's count is that of distinct records. One instance leads (Kafka's own membership decides) and
//! it alone places events, so that a burst over many partitions and instances is one incident. All it knows is in the
//! store: whoever leads next goes on there. An incident is written to Kafka in a fenced transaction before it is written to
//! the store, so a leader that was cut off opens none any more. What was told is noted in the store after it was told: a
//! crash between the two tells it twice, with the same delivery id, and nothing is left untold.

mod correlate;
mod desk;
mod event;
mod live;
mod notify;
mod sighting;
mod stage;
mod state;
mod watch;

pub use desk::{IncidentDesk, IncidentDeskError, UpdateReceipt};
pub use stage::IncidentStage;
pub use watch::IncidentWatch;
