//! What somebody said about an event: the value of `feedback`. See `schemas/feedback.json`.
//!
//! The review page writes it, and so may a ticket system that knows no more than the event's id and the queue in which
//! the ticket was solved: everything else is optional.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Kind, SourcePosition};

/// Namespace of the ids of feedback that came without one: `uuid5(NAMESPACE_URL, "https://triaged.dev/feedback")`.
const FEEDBACK_NAMESPACE: Uuid = Uuid::from_u128(0x4615_2473_2edc_52c4_ac1d_a95a_b87f_8193);

/// Harder than this nothing is.
pub const HARDEST: u8 = 5;

/// One person's judgement of one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feedback<'a> {
    /// Feedback that is sent again has the same. Absent: it follows from the message's place in Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback_id: Option<Uuid>,
    pub event_id: Uuid,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourcePosition<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// RFC 3339. Absent: the message's time.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub given_at: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub given_by: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub predicted_queue: Option<Cow<'a, str>>,
    /// Where it belongs.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub corrected_queue: Option<Cow<'a, str>>,
    /// The label from which the queue follows, where they differ.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Cow<'a, str>>,
    /// Whether the predicted queue was right. Absent: it follows from the queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<bool>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<Cow<'a, str>>,
    /// Words that gave it away.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<Cow<'a, str>>,
    /// 1, at a glance, to 5, after asking others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<u8>,
    /// The text that was judged, so that a model can learn from it when the event is gone.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
}

/// Why a message is no feedback.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackFault {
    #[error("it says neither whether the queue was right nor which one is")]
    SaysNothing,
    #[error("it says that the queue was right and names another one")]
    Contradiction,
    #[error("the difficulty is {0}, and must be from 1 to {HARDEST}")]
    Difficulty(u8),
    #[error("{0} is empty")]
    Empty(&'static str),
}

impl Feedback<'_> {
    /// Whether it makes sense by itself; the event need not be known.
    pub fn check(&self) -> Result<(), FeedbackFault> {
        if let Some(difficulty) = self.difficulty.filter(|difficulty| !(1..=HARDEST).contains(difficulty)) {
            return Err(FeedbackFault::Difficulty(difficulty));
        }
        for (name, text) in [
            ("corrected_queue", &self.corrected_queue),
            ("predicted_queue", &self.predicted_queue),
            ("category", &self.category),
        ] {
            if text.as_deref().is_some_and(|text| text.trim().is_empty()) {
                return Err(FeedbackFault::Empty(name));
            }
        }
        match (self.correct, &self.predicted_queue, &self.corrected_queue) {
            (None, _, None) => Err(FeedbackFault::SaysNothing),
            (Some(true), Some(predicted), Some(corrected)) if predicted != corrected => {
                Err(FeedbackFault::Contradiction)
            }
            (Some(false), Some(predicted), Some(corrected)) if predicted == corrected => {
                Err(FeedbackFault::Contradiction)
            }
            _ => Ok(()),
        }
    }

    /// Whether the predicted queue was right, as far as the feedback itself tells.
    pub fn is_correct(&self) -> Option<bool> {
        self.correct.or_else(|| Some(self.predicted_queue.as_ref()? == self.corrected_queue.as_ref()?))
    }
}

/// The id of feedback that came without one: a replay of the message gives the same.
pub fn feedback_id_of(place: &SourcePosition<'_>) -> Uuid {
    super::uuid5(FEEDBACK_NAMESPACE, place)
}

/// A random UUID (version 4), from the keys that the system gives to every new hash map.
pub fn new_id() -> Uuid {
    let mut bytes = [0; 16];
    for half in bytes.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(std::time::SystemTime::now()).to_ne_bytes());
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ask` says of feedback with these members and an event's id.
    fn of<T>(members: &str, ask: impl Fn(&Feedback<'_>) -> T) -> T {
        let text = format!("{{\"event_id\":\"00000000-0000-5000-8000-000000000000\"{members}}}");
        ask(&serde_json::from_str(&text).expect("feedback"))
    }

    #[test]
    fn little_is_enough_and_contradictions_are_not() {
        let check = |members: &str| of(members, |feedback| feedback.check());
        assert_eq!(check(",\"corrected_queue\":\"soc\""), Ok(()));
        assert_eq!(check(",\"correct\":true"), Ok(()));
        assert_eq!(check(",\"correct\":false,\"from\":\"a newer version\""), Ok(()));
        assert_eq!(check(""), Err(FeedbackFault::SaysNothing));
        assert_eq!(check(",\"correct\":true,\"difficulty\":6"), Err(FeedbackFault::Difficulty(6)));
        assert_eq!(check(",\"corrected_queue\":\" \""), Err(FeedbackFault::Empty("corrected_queue")));
        let both = ",\"predicted_queue\":\"a\",\"corrected_queue\":\"b\",\"correct\":true";
        assert_eq!(check(both), Err(FeedbackFault::Contradiction));
        let same = ",\"predicted_queue\":\"a\",\"corrected_queue\":\"a\",\"correct\":false";
        assert_eq!(check(same), Err(FeedbackFault::Contradiction));
    }

    #[test]
    fn right_and_wrong_follow_from_the_queues() {
        let verdict = |members: &str| of(members, |feedback| feedback.is_correct());
        assert_eq!(verdict(",\"predicted_queue\":\"a\",\"corrected_queue\":\"b\""), Some(false));
        assert_eq!(verdict(",\"predicted_queue\":\"a\",\"corrected_queue\":\"a\""), Some(true));
        assert_eq!(verdict(",\"corrected_queue\":\"a\""), None);
    }

    #[test]
    fn an_id_follows_from_the_place_and_is_no_event_id() {
        let place = SourcePosition { topic: "feedback".into(), partition: 0, offset: 7 };
        assert_eq!(feedback_id_of(&place), feedback_id_of(&place));
        assert_ne!(feedback_id_of(&place), place.event_id());
    }
}
