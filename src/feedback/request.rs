//! Requests and answers, as they stand in JSON and in a query string, and what is wrong with them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::record::{Kind, QueueEvent, Routing};
use crate::volumes::{ReviewCursor, ReviewFilter};

/// Reviews of a page when nothing else is said, and at most.
const USUAL_PAGE: usize = 20;
const LARGEST_PAGE: usize = 200;
/// How far back reviews are looked for when nothing else is said.
const USUAL_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;
/// Longer texts are no remarks.
const LONGEST_NOTES: usize = 4_000;
const LONGEST_NAME: usize = 200;
const MOST_KEYWORDS: usize = 20;
/// Submissions of one request. More would keep the connection busy for too long.
pub(super) const MOST_SUBMISSIONS: usize = 500;

/// Which events to review. Without `routing`: all that were not routed by themselves.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReviewQuery {
    pub queue: Option<String>,
    /// `ticket` or `log`.
    #[param(value_type = Option<String>)]
    pub kind: Option<Kind>,
    /// `auto_route`, `human_verify` or `manual_triage`.
    #[param(value_type = Option<String>)]
    pub routing: Option<Routing>,
    /// Event time, RFC 3339; by default 30 days before `to`.
    pub from: Option<String>,
    /// Event time, RFC 3339, no longer included; by default now.
    pub to: Option<String>,
    /// Only events with a text, or only those without.
    pub has_text: Option<bool>,
    /// At most 200; by default 20.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl ReviewQuery {
    /// The filter, the page's length, and where it begins. The error names the parameter.
    pub(super) fn resolve(&self, reviewer: &str) -> Result<(ReviewFilter, usize, Option<ReviewCursor>), String> {
        let time = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => DateTime::parse_from_rfc3339(text)
                .map(|time| Some(time.timestamp_millis()))
                .map_err(|_| format!("{name} is no RFC 3339 time")),
        };
        let to = time("to", &self.to)?.unwrap_or_else(|| Utc::now().timestamp_millis() + 1);
        let from = time("from", &self.from)?.unwrap_or(to - USUAL_DAYS * DAY_MS);
        let limit = self.limit.unwrap_or(USUAL_PAGE);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            return Err(format!("limit must be from 1 to {LARGEST_PAGE}"));
        }
        let after = match &self.cursor {
            None => None,
            Some(text) => Some(text.parse().map_err(|rule| format!("cursor is {rule}"))?),
        };
        let filter = ReviewFilter {
            queue: self.queue.clone(),
            kind: self.kind,
            routings: self
                .routing
                .map_or_else(|| vec![Routing::HumanVerify, Routing::ManualTriage], |routing| vec![routing]),
            from,
            to,
            has_text: self.has_text,
            reviewer: reviewer.to_owned(),
        };
        Ok((filter, limit, after))
    }
}

/// The queues that a correction may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueNames {
    /// Sorted.
    pub queues: Vec<String>,
}

/// Events to review, the least confident first.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ReviewPage {
    /// Queue events; see schemas/queue-event.json.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<QueueEvent<'static>>,
    /// For the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The review is the asker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClaimAnswer {
    #[schema(value_type = String, format = "uuid")]
    pub event_id: Uuid,
    /// RFC 3339.
    pub until: String,
}

/// What somebody found out about an event. `correct` or `corrected_queue` must be there.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedbackSubmission {
    /// Who sends a submission again sends the same id again; it then counts once.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub feedback_id: Option<Uuid>,
    #[schema(value_type = String, format = "uuid")]
    pub event_id: Uuid,
    /// Whether the event's queue is right.
    #[serde(default)]
    pub correct: Option<bool>,
    /// Where it belongs.
    #[serde(default)]
    pub corrected_queue: Option<String>,
    /// The right label, where it differs from the queue.
    #[serde(default)]
    pub category: Option<String>,
    #[serde(default)]
    pub notes: Option<String>,
    /// Words that gave it away.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// 1, at a glance, to 5, after asking others.
    #[serde(default)]
    pub difficulty: Option<u8>,
}

impl FeedbackSubmission {
    /// What is wrong whatever the event is.
    pub(super) fn check(&self) -> Result<(), String> {
        let names = [("corrected_queue", &self.corrected_queue), ("category", &self.category)];
        for (name, text) in names {
            if text.as_ref().is_some_and(|text| text.len() > LONGEST_NAME || text.chars().any(char::is_control)) {
                return Err(format!("{name} must have at most {LONGEST_NAME} bytes and no control characters"));
            }
        }
        if self.notes.as_ref().is_some_and(|notes| notes.len() > LONGEST_NOTES) {
            return Err(format!("notes must have at most {LONGEST_NOTES} bytes"));
        }
        if self.keywords.len() > MOST_KEYWORDS || self.keywords.iter().any(|word| word.len() > LONGEST_NAME) {
            return Err(format!("at most {MOST_KEYWORDS} keywords of at most {LONGEST_NAME} bytes"));
        }
        Ok(())
    }
}

/// Several submissions, at most 500.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedbackBulk {
    pub feedback: Vec<FeedbackSubmission>,
}

/// The feedback is in Kafka, on all in-sync replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FeedbackReceipt {
    #[schema(value_type = String, format = "uuid")]
    pub feedback_id: Uuid,
    #[schema(value_type = String, format = "uuid")]
    pub event_id: Uuid,
    pub correct: bool,
    /// The queue in which it belongs, where that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
}

/// What became of each submission, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkAnswer {
    pub accepted: usize,
    pub results: Vec<BulkItem>,
}

/// One of several submissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkItem {
    #[schema(value_type = String, format = "uuid")]
    pub event_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<FeedbackReceipt>,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_without_anything_asks_for_what_is_unsure() {
        let (filter, limit, after) = ReviewQuery::default().resolve("ada").expect("a filter");
        assert_eq!(filter.routings, [Routing::HumanVerify, Routing::ManualTriage]);
        assert_eq!((limit, after, filter.to - filter.from), (20, None, 30 * DAY_MS));
    }

    #[test]
    fn faults_name_the_parameter() {
        let fault = |query: ReviewQuery| query.resolve("ada").expect_err("a fault");
        assert_eq!(fault(ReviewQuery { limit: Some(0), ..Default::default() }), "limit must be from 1 to 200");
        let cursor = Some("x".to_owned());
        assert!(fault(ReviewQuery { cursor, ..Default::default() }).starts_with("cursor is"));
        let from = Some("yesterday".to_owned());
        assert_eq!(fault(ReviewQuery { from, ..Default::default() }), "from is no RFC 3339 time");
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let submission = FeedbackSubmission::default();
        assert_eq!(submission.check(), Ok(()));
        assert!(FeedbackSubmission { notes: Some("x".repeat(5_000)), ..submission.clone() }.check().is_err());
        assert!(FeedbackSubmission { corrected_queue: Some("a\nb".into()), ..submission.clone() }.check().is_err());
        assert!(FeedbackSubmission { keywords: vec!["x".into(); 21], ..submission }.check().is_err());
    }
}
