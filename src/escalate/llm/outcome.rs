//! What the tier is asked, and what comes of it: plain data. Texts and what was made of them hide from `Debug`.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::injection::Suspicion;
use super::labels::LabelSet;
use super::limits::Refusal;
use super::reply::NotAnAnswer;
use crate::record::Kind;

/// What is asked about a record.
#[derive(Clone, Copy)]
pub struct Question<'q> {
    /// As it came: masking is the tier's.
    pub text: &'q str,
    pub kind: Kind,
    pub labels: &'q LabelSet,
    /// Equal for texts that shall share an answer; `None` where only equal texts shall.
    pub template_key: Option<u64>,
    /// The record goes on to a person then. The tier's own deadline holds too.
    pub deadline: Instant,
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { text, kind, template_key, .. } = self;
        f.debug_struct("Question")
            .field("bytes", &text.len())
            .field("kind", kind)
            .field("template_key", template_key)
            .finish_non_exhaustive()
    }
}

/// Tokens that an answer took; 0 for a kept one. Estimated where the server does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
}

/// What the model says, checked and calibrated.
#[derive(Clone, PartialEq)]
pub struct Answer {
    /// One of the question's labels.
    pub label: Arc<str>,
    /// Calibrated, and capped where the text is suspected.
    pub confidence: f32,
    /// As the model said: what a calibration is fitted to.
    pub stated: f32,
    /// At most 200 characters, with placeholders for what was masked. As confidential as the text.
    pub reason: String,
    pub usage: Usage,
    /// Given to an earlier text of the same template.
    pub cached: bool,
    /// The text seems to speak to the model. A person must look, whatever the confidence.
    pub suspicion: Option<Suspicion>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { label, confidence, stated, reason: _, usage, cached, suspicion } = self;
        f.debug_struct("Answer")
            .field("label", label)
            .field("confidence", confidence)
            .field("stated", stated)
            .field("usage", usage)
            .field("cached", cached)
            .field("suspicion", suspicion)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer. In each case the record goes on to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoAnswer {
    #[error("the tier is switched off")]
    Off,
    #[error("nothing is left of the text to ask about")]
    NoText,
    #[error("the day's budget is used up")]
    OverBudget,
    #[error("the server failed too often and is left alone for a while")]
    BreakerOpen,
    #[error("the rate limit leaves no room before the deadline")]
    RateLimited,
    #[error("too many requests are under way")]
    Busy,
    #[error("the deadline has come")]
    Deadline,
    #[error("the server does not answer")]
    Unavailable,
    #[error("the account's quota is used up, or key, model or address are wrong")]
    Refused,
    #[error("the server refuses this request")]
    Rejected,
    #[error("what the model wrote is not an answer")]
    Malformed,
    #[error("the model's label is not one of the known ones")]
    UnknownLabel,
    #[error("the model does not know")]
    Abstained,
}

impl NoAnswer {
    /// A bounded set, fit for a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            NoAnswer::Off => "off",
            NoAnswer::NoText => "no_text",
            NoAnswer::OverBudget => "over_budget",
            NoAnswer::BreakerOpen => "breaker_open",
            NoAnswer::RateLimited => "rate_limited",
            NoAnswer::Busy => "busy",
            NoAnswer::Deadline => "deadline",
            NoAnswer::Unavailable => "unavailable",
            NoAnswer::Refused => "refused",
            NoAnswer::Rejected => "rejected",
            NoAnswer::Malformed => "malformed",
            NoAnswer::UnknownLabel => "unknown_label",
            NoAnswer::Abstained => "abstained",
        }
    }
}

impl From<Refusal> for NoAnswer {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OverBudget => NoAnswer::OverBudget,
            Refusal::BreakerOpen => NoAnswer::BreakerOpen,
            Refusal::RateLimited => NoAnswer::RateLimited,
            Refusal::Busy => NoAnswer::Busy,
            Refusal::Deadline => NoAnswer::Deadline,
        }
    }
}

impl From<NotAnAnswer> for NoAnswer {
    fn from(not: NotAnAnswer) -> Self {
        match not {
            NotAnAnswer::NoObject | NotAnAnswer::Ambiguous | NotAnAnswer::Confidence => NoAnswer::Malformed,
            NotAnAnswer::UnknownLabel => NoAnswer::UnknownLabel,
            NotAnAnswer::Abstained => NoAnswer::Abstained,
        }
    }
}

/// What comes of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum LlmOutcome {
    Answer(Answer),
    NoAnswer(NoAnswer),
}
