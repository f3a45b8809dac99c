//! Reports for people who run the queues: how sure the decisions were, what people said about them, and what that says
//! about each queue.
//!
//! ```text
//! store ──► figures ──► JSON, csv, html (with svg charts) ──► the command line, the API
//!                                                        └──► mail, as scheduled, from the instance that leads
//! ```
//!
//! Figures about right and wrong come from the events that somebody judged, which are mostly those that were unsure: they
//! say how good the decisions on those are, not on all.

mod figures;
mod html;
mod mail;
mod proportion;
mod request;
mod schedule;
mod sender;
mod svg;
mod table;

use chrono::{DateTime, Utc};

use crate::volumes::{JudgementQuery, StoreError, VolumeStore};

pub use figures::{
    ConfidenceAnalysis, ConfidenceBin, Confusion, DayOfFeedback, Detail, FeedbackAnalysis, Judged, Named,
    QueueConfidence, QueuePerformance, Report,
};
pub use html::html;
pub use mail::Mailer;
pub use proportion::Proportion;
pub use request::{CONTENT_SECURITY_POLICY, Rendered, ReportError, ReportFormat, ReportQuery};
pub use schedule::{period_seconds, slot_before};
pub use sender::{ReportSender, SenderError};
pub use table::{Part, csv};

/// Judgements that a report looks at: the newest.
const MOST_JUDGEMENTS: usize = 200_000;
/// Rows of detail when nothing else is said.
pub const USUAL_DETAIL: usize = 500;

/// Which judgements the detail lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetailFilter {
    /// Predicted or right.
    pub queue: Option<String>,
    pub given_by: Option<String>,
    pub correct: Option<bool>,
    pub limit: Option<usize>,
}

/// Reads what a report needs and makes it. Milliseconds since 1970-01-01 UTC: events that occurred and feedback that was
/// given from the one and before the other.
pub async fn report(store: &VolumeStore, from: i64, to: i64, filter: &DetailFilter) -> Result<Report, StoreError> {
    let confidence = store.confidence(from, to).await?;
    let query = JudgementQuery { from, to, with_text: false, limit: MOST_JUDGEMENTS };
    let judgements = store.judgements(&query).await?;
    Ok(figures::figures((from, to), &confidence, &judgements, filter))
}

/// Reads `2026-01-31` (its start, UTC) or an RFC 3339 time as milliseconds since 1970-01-01 UTC.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    let date: chrono::NaiveDate =
        text.parse().map_err(|_| "expected a date such as 2026-01-31 or an RFC 3339 time".to_owned())?;
    Ok(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())
}

/// The week before now.
pub fn last_week() -> (i64, i64) {
    let to = Utc::now().timestamp_millis();
    (to - 7 * 86_400_000, to)
}
