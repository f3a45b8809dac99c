//! The LLM tier: a text that no cheaper tier is sure of goes, masked, to an OpenAI-compatible server, and a label with
//! a confidence comes back, or the reason why not. It never decides: thresholds do that, and a person behind them.
//!
//! ```text
//! tier        question ─► cleaned ─► masked ─► cut ─► suspicion ─► cache ─► limits ─► client ─► reply ─► calibration
//! clean       invisible and look-alike characters
//! mask        personal data and secrets ─► placeholders, restored nowhere
//! prompt      text as data between markers that nobody can guess
//! injection   does the text speak to the model instead of to a person?
//! limits      concurrency, rates, daily budget, breaker, pauses that the server asks for
//! client      one request, one answer or one fault; nothing of it is logged
//! reply       what the model wrote ─► a known label, or not an answer
//! ```
//!
//! Whatever goes wrong, the record goes on to human review before its deadline.

mod agreement;
mod breaker;
mod budget;
mod cache;
mod calibration;
mod clean;
mod client;
mod endpoint;
mod injection;
mod labels;
mod limits;
mod mask;
mod outcome;
mod prompt;
mod rate;
mod reply;
mod retry;
mod tier;
mod transport;

pub use crate::config::llm::{
    Api, BreakerSettings, BudgetSettings, Calibration, Example, Isotonic, LlmSettings, OutputLimit, RateSettings,
    ReplyFormat, RetrySettings, SettingFault,
};
pub use agreement::{Agreement, Confusion, LabelAgreement, Mismatch, Pair};
pub use budget::Spent;
pub use client::BuildError;
pub use injection::Suspicion;
pub use labels::{Label, LabelError, LabelSet};
pub use mask::{Masked, mask};
pub use outcome::{Answer, LlmOutcome, NoAnswer, Question, Usage};
pub use tier::{LlmTier, Status};
