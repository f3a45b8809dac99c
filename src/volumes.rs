//! Where events, volumes and forecasts are kept: one enum over ClickHouse and memory, for the roles that fill it (tally),
//! that learn from it (forecast), and for whoever shows it.
//!
//! A volume is no number but the set of the source offsets of its events, so an event that arrives twice, late or in
//! another order leaves it as it is: at-least-once delivery up to here is enough for exact counts.
//!
//! ```text
//! store        the one door: events in, volumes out, forecasts both ways
//! clickhouse   client, time-outs, statements, what errors mean      migrations   schemas/clickhouse/*.sql
//! memory       the same sets of offsets in this process
//! row, stored  the columns of the tables, as written and as read    audit        who changed what
//! feedback     reviews, claims and judgements                       question     what is asked of events
//! incidents    incidents, their events, updates and notifications
//! ```

mod audit;
mod clickhouse;
mod feedback;
mod incidents;
mod memory;
mod migrations;
mod question;
mod row;
mod store;
mod stored;

pub use audit::AuditEntry;
pub use clickhouse::{ClickHouseStore, Failure, StoreError};
pub use feedback::{
    CONFIDENCE_BINS, Claimed, ConfidenceCount, FeedbackRow, InvalidFeedback, Judgement, JudgementQuery, ReviewCursor,
    ReviewFilter,
};
pub use incidents::{
    HistoryRow, IncidentEventRow, IncidentMembers, IncidentNotificationRow, IncidentQuery, IncidentRow,
    IncidentUpdateRow, Notified,
};
pub use memory::MemoryStore;
pub use migrations::{Migration, Pending};
pub use question::{ArmCount, DecisionCount, EventCursor, EventQuery, QueueCount};
pub use row::{AccuracyRow, AnomalyRow, EventRow, ForecastRow, ForecastTotalRow, InvalidEvent};
pub use store::{TOTAL, Volume, VolumeQuery, VolumeStore};
pub use stored::StoredEvent;
