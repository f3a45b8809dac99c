//! Feedback as it is stored, and what is asked about it: reviews, claims, judgements.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::{Feedback, FeedbackFault, Kind, Routing, SourcePosition, feedback_id_of};

use super::row::LAST_MILLISECOND;
use super::stored::{StoredEvent, kind_of};

/// Why a message of the feedback topic is none.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFeedback {
    #[error("not the JSON of feedback")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Fault(#[from] FeedbackFault),
    #[error("given_at is no RFC 3339 time")]
    Time(#[source] chrono::ParseError),
}

/// A row of `feedback`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct FeedbackRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    pub feedback_id: Uuid,
    pub source_topic: String,
    pub source_partition: i32,
    pub source_offset: u64,
    /// 0 unknown, 1 ticket, 2 log.
    pub kind: i8,
    /// Milliseconds since 1970-01-01 UTC.
    pub given_at: i64,
    pub given_by: String,
    pub predicted_queue: String,
    pub corrected_queue: String,
    pub category: String,
    /// 0 unknown, 1 no, 2 yes.
    pub correct: i8,
    pub notes: String,
    pub keywords: Vec<String>,
    /// 0: not said.
    pub difficulty: u8,
    pub text: String,
}

impl FeedbackRow {
    /// The row of a message that lies at `place` and was written at `written_at` (milliseconds since 1970-01-01 UTC).
    pub fn of(
        feedback: &Feedback<'_>,
        place: &SourcePosition<'_>,
        written_at: i64,
    ) -> Result<FeedbackRow, InvalidFeedback> {
        feedback.check()?;
        let given_at = match &feedback.given_at {
            // A clock that runs ahead must not make a feedback the newest for ever.
            Some(text) => DateTime::parse_from_rfc3339(text)
                .map_err(InvalidFeedback::Time)?
                .timestamp_millis()
                .min(if written_at > 0 { written_at } else { i64::MAX }),
            None => written_at,
        };
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
        let source = feedback.source.as_ref();
        Ok(FeedbackRow {
            event_id: feedback.event_id,
            feedback_id: feedback.feedback_id.unwrap_or_else(|| feedback_id_of(place)),
            source_topic: source.map_or_else(String::new, |source| source.topic.clone().into_owned()),
            source_partition: source.map_or(0, |source| source.partition),
            source_offset: source.and_then(|source| u64::try_from(source.offset).ok()).unwrap_or(0),
            kind: feedback.kind.map_or(0, |kind| kind as i8 + 1),
            given_at: given_at.clamp(0, LAST_MILLISECOND),
            given_by: text(&feedback.given_by),
            predicted_queue: text(&feedback.predicted_queue),
            corrected_queue: text(&feedback.corrected_queue),
            category: text(&feedback.category),
            correct: feedback.is_correct().map_or(0, |correct| i8::from(correct) + 1),
            notes: text(&feedback.notes),
            keywords: feedback.keywords.iter().map(|word| word.clone().into_owned()).collect(),
            difficulty: feedback.difficulty.unwrap_or(0),
            text: text(&feedback.text),
        })
    }
}

/// Which events are to be reviewed. Those with feedback never are, nor those that somebody else has claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct ReviewFilter {
    pub queue: Option<String>,
    pub kind: Option<Kind>,
    /// One of these.
    pub routings: Vec<Routing>,
    /// Event time in milliseconds since 1970-01-01 UTC: first that counts, first that no longer does.
    pub from: i64,
    pub to: i64,
    /// With a text, without one, or both.
    pub has_text: Option<bool>,
    /// Claims of this reviewer hide nothing from them.
    pub reviewer: String,
}

/// Where a page of reviews ends: the least confident come first, and equals by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReviewCursor {
    /// Bits of the confidence, which rise with it: it is never negative.
    pub(super) confidence: u32,
    pub(super) event_id: Uuid,
}

impl ReviewCursor {
    pub(super) fn of(event: &StoredEvent) -> Self {
        ReviewCursor { confidence: event.confidence.max(0.0).to_bits(), event_id: event.event_id }
    }
}

impl fmt::Display for ReviewCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{}", self.confidence, self.event_id.simple())
    }
}

impl FromStr for ReviewCursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (confidence, id) = text.split_at_checked(8).ok_or("not a cursor of this list")?;
        let confidence = u32::from_str_radix(confidence, 16).map_err(|_| "not a cursor of this list")?;
        let event_id = Uuid::try_parse(id).map_err(|_| "not a cursor of this list")?;
        Ok(ReviewCursor { confidence, event_id })
    }
}

/// What became of an attempt to claim a review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the asker's until then, in milliseconds since 1970-01-01 UTC.
    Won { until: i64 },
    /// Somebody else has it.
    Taken { by: String, until: i64 },
}

/// Which feedback is asked for: of each event the newest, if it was given in this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgementQuery {
    /// Milliseconds since 1970-01-01 UTC: first that counts, first that no longer does.
    pub from: i64,
    pub to: i64,
    /// Texts are most of the bytes; only training needs them.
    pub with_text: bool,
    /// The newest so many.
    pub limit: usize,
}

/// The newest feedback of an event, and the event as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub feedback: FeedbackRow,
    pub event: Option<StoredEvent>,
}

impl Judgement {
    pub fn kind(&self) -> Option<Kind> {
        kind_of(self.feedback.kind).or_else(|| self.event.as_ref().map(StoredEvent::kind))
    }

    /// The queue that was judged.
    pub fn predicted(&self) -> Option<&str> {
        let of_event = || self.event.as_ref().map(|event| event.queue.as_str());
        Some(self.feedback.predicted_queue.as_str()).filter(|queue| !queue.is_empty()).or_else(of_event)
    }

    /// Whether it was right; `None` where that cannot be known without the event.
    pub fn is_correct(&self) -> Option<bool> {
        match self.feedback.correct {
            1 => Some(false),
            2 => Some(true),
            _ => Some(self.predicted()? == self.feedback.corrected_queue),
        }
    }

    /// The queue in which it belongs, where that is known.
    pub fn right_queue(&self) -> Option<&str> {
        match (self.feedback.corrected_queue.as_str(), self.is_correct()) {
            ("", Some(true)) => self.predicted(),
            ("", _) => None,
            (queue, _) => Some(queue),
        }
    }

    pub fn text(&self) -> Option<&str> {
        let of_event = self.event.as_ref().map(|event| event.text.as_str());
        [Some(self.feedback.text.as_str()), of_event].into_iter().flatten().find(|text| !text.is_empty())
    }
}

/// Parts of the range of confidences that are counted apart.
pub const CONFIDENCE_BINS: u8 = 20;

/// Events of one queue, tier and routing whose confidence lies in one twentieth.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct ConfidenceCount {
    pub queue: String,
    /// `rule`, `cache`, `fast`, `encoder`, `llm` or `none`.
    pub tier: String,
    /// 1 auto_route, 2 human_verify, 3 manual_triage.
    pub routing: i8,
    pub bin: u8,
    pub events: u64,
    /// Of their confidences.
    pub sum: f64,
}

/// The twentieth in which a confidence lies.
pub(super) fn confidence_bin(confidence: f32) -> u8 {
    (f64::from(confidence) * f64::from(CONFIDENCE_BINS)).floor().clamp(0.0, f64::from(CONFIDENCE_BINS - 1)) as u8
}

/// A claim that is not settled after this long belongs to somebody who died while choosing.
pub(super) const CHOOSING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(text: &str, written_at: i64) -> FeedbackRow {
        let feedback: Feedback<'_> = serde_json::from_str(text).expect("feedback");
        let place = SourcePosition { topic: "feedback".into(), partition: 0, offset: 3 };
        FeedbackRow::of(&feedback, &place, written_at).expect("a row")
    }

    #[test]
    fn what_is_missing_follows_from_the_message() {
        let id = "00000000-0000-5000-8000-000000000000";
        let least = row(&format!("{{\"event_id\":\"{id}\",\"corrected_queue\":\"soc\"}}"), 5_000);
        assert_eq!((least.given_at, least.correct, least.feedback_id.get_version_num()), (5_000, 0, 5));
        let early = format!("{{\"event_id\":\"{id}\",\"correct\":true,\"given_at\":\"1970-01-01T00:00:01Z\"}}");
        assert_eq!((row(&early, 5_000).given_at, row(&early, 5_000).correct), (1_000, 2));
        let ahead = early.replace("1970", "2999");
        assert_eq!(row(&ahead, 5_000).given_at, 5_000, "a clock that runs ahead");
    }

    #[test]
    fn a_judgement_without_its_event_says_what_it_can() {
        let id = "00000000-0000-5000-8000-000000000000";
        let feedback = row(&format!("{{\"event_id\":\"{id}\",\"corrected_queue\":\"soc\"}}"), 0);
        let alone = Judgement { feedback, event: None };
        assert_eq!((alone.is_correct(), alone.right_queue(), alone.predicted()), (None, Some("soc"), None));
        let feedback = row(&format!("{{\"event_id\":\"{id}\",\"correct\":false}}"), 0);
        assert_eq!(Judgement { feedback, event: None }.right_queue(), None);
    }

    proptest! {
        #[test]
        fn cursors_rise_with_the_confidence_and_are_read_back(a in 0f32..=1.0, b in 0f32..=1.0, id: u128) {
            let cursor = |confidence: f32| ReviewCursor { confidence: confidence.to_bits(), event_id: Uuid::from_u128(id) };
            prop_assert_eq!(cursor(a).cmp(&cursor(b)), a.total_cmp(&b));
            prop_assert_eq!(cursor(a).to_string().parse(), Ok(cursor(a)));
        }

        #[test]
        fn no_text_breaks_the_reader_of_cursors(text in "\\PC{0,50}") {
            prop_assert!(text.parse::<ReviewCursor>().is_err() || text.len() >= 40);
        }
    }
}
