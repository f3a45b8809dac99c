//! The tier: a question in, an answer or the reason why there is none out, before the deadline.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::Xxh3;

use super::budget::{Spent, Tokens};
use super::cache::AnswerCache;
use super::clean::clean;
use super::client::{BuildError, ClientError, LlmClient, Remedy};
use super::injection::{self, Suspicion, suspicion};
use super::limits::{Ending, Limits};
use super::mask::mask;
use super::outcome::{Answer, LlmOutcome, NoAnswer, Question, Usage};
use super::prompt::{Prompter, cut};
use super::reply::{self, Reply};
use super::retry::backoff;
use crate::config::llm::Calibration;
use crate::config::llm::LlmSettings;

/// A text is masked up to so many times the length that is sent: masking makes texts shorter, but not without end.
const MASKED_TIMES: usize = 4;

/// How the tier is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Status {
    /// `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// How long nobody may ask, because of failures or because the server said so.
    pub pause: Duration,
    /// Since midnight UTC, requests under way included.
    pub spent: Spent,
    /// The part of the day's budget that is spent, of tokens or of costs, whichever is nearer to its end; 0 without one.
    pub budget_used: f64,
    pub cache_hits: u64,
    pub cache_misses: u64,
}

/// The tier. Shared by all who ask; nothing in it belongs to one record.
pub struct LlmTier {
    /// `None`: switched off.
    asker: Option<Asker>,
}

impl fmt::Debug for LlmTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmTier").field("status", &self.status()).finish_non_exhaustive()
    }
}

struct Asker {
    settings: LlmSettings,
    prompter: Prompter,
    client: LlmClient,
    limits: Limits,
    cache: AnswerCache,
    calibration: Calibration,
    /// Differs where answers of one server cannot stand for those of another.
    fingerprint: u64,
}

impl LlmTier {
    /// Connects to nothing yet. Settings with faults (`LlmSettings::faults`) make a tier that works as far as it can.
    pub fn try_new(settings: LlmSettings) -> Result<Self, BuildError> {
        if !settings.enabled {
            return Ok(LlmTier { asker: None });
        }
        // Not within the first question, which has a deadline.
        injection::compile();
        mask("");
        let mut hash = Xxh3::new();
        for part in [&settings.base_url, &settings.model, &settings.guidance] {
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        let asker = Asker {
            prompter: Prompter::new(&settings),
            client: LlmClient::try_new(&settings)?,
            limits: Limits::new(&settings, Utc::now()),
            cache: AnswerCache::new(settings.cache_capacity, settings.cache_ttl),
            calibration: settings.calibration.clone(),
            fingerprint: hash.digest(),
            settings,
        };
        Ok(LlmTier { asker: Some(asker) })
    }

    /// Answers before the deadline, in one way or the other. May be dropped at any time.
    pub async fn ask(&self, question: Question<'_>) -> LlmOutcome {
        let Some(asker) = &self.asker else { return LlmOutcome::NoAnswer(NoAnswer::Off) };
        match asker.answer(question).await {
            Ok(answer) => LlmOutcome::Answer(answer),
            Err(why) => {
                tracing::trace!(why = why.as_str(), "no answer of the LLM");
                LlmOutcome::NoAnswer(why)
            }
        }
    }

    /// `None` when the tier is off.
    pub fn status(&self) -> Option<Status> {
        let asker = self.asker.as_ref()?;
        let cache = asker.cache.counts();
        let (spent, budget) = (asker.limits.spent(), &asker.settings.budget);
        let part = |spent: f64, most: f64| if most > 0.0 { spent / most } else { 0.0 };
        Some(Status {
            breaker: asker.limits.breaker(),
            pause: asker.limits.pause(),
            spent,
            budget_used: part(spent.tokens as f64, budget.tokens_per_day as f64)
                .max(part(spent.cost, budget.cost_per_day)),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
        })
    }
}

/// A text as it is sent.
struct Prepared {
    text: String,
    suspicion: Option<Suspicion>,
}

impl Asker {
    async fn answer(&self, question: Question<'_>) -> Result<Answer, NoAnswer> {
        let deadline = question.deadline.min(Instant::now() + self.settings.record_deadline);
        let prepared = self.prepare(question)?;
        let mut usage = Usage::default();
        let ask = self.request(&prepared.text, question, deadline, &mut usage);
        let (reply, cached) = match prepared.suspicion {
            None => {
                let key = self.key(&prepared.text, question);
                self.cache.get_or_ask(key, deadline, ask).await.ok_or(NoAnswer::Deadline)??
            }
            // What was said to a suspected text must not be said to others, nor the other way round.
            Some(_) => (Arc::new(ask.await?), false),
        };
        let calibrated = self.calibration.apply(reply.stated);
        let cap = if prepared.suspicion.is_some() { self.settings.suspicious_cap } else { 1.0 };
        Ok(Answer {
            label: Arc::clone(&reply.label),
            confidence: calibrated.min(cap),
            stated: reply.stated,
            reason: reply.reason.clone(),
            usage,
            cached,
            suspicion: prepared.suspicion,
        })
    }

    /// Cleaned, masked and cut, in this order: what hides would evade masks, and half an address is no address to one.
    fn prepare(&self, question: Question<'_>) -> Result<Prepared, NoAnswer> {
        let max_chars = self.settings.max_text_chars;
        let cleaned = clean(head(question.text, max_chars.saturating_mul(MASKED_TIMES)));
        let masked = mask(&cleaned.text);
        let text = cut(&masked.text, max_chars).trim();
        if text.is_empty() {
            return Err(NoAnswer::NoText);
        }
        let hidden = cleaned.hidden.then_some(Suspicion::Hidden);
        // What the model will read, not what was cut off.
        let suspicion = hidden.or_else(|| suspicion(text, question.labels));
        Ok(Prepared { text: text.to_owned(), suspicion })
    }

    /// Asks until there is an answer, or there can be none in time.
    async fn request(
        &self,
        text: &str,
        question: Question<'_>,
        deadline: Instant,
        usage: &mut Usage,
    ) -> Result<Reply, NoAnswer> {
        let prompt = self.prompter.write(text, question.kind, question.labels);
        let needed = Tokens { input: prompt.input_tokens.into(), output: prompt.output_tokens.into() };
        let start_by = deadline.checked_sub(self.settings.min_request_time).ok_or(NoAnswer::Deadline)?;
        let mut attempt = 1;
        loop {
            let permit = self.limits.admit(needed, start_by).await?;
            let request_deadline = deadline.min(Instant::now() + self.settings.request_timeout);
            let completed = match timeout_at(request_deadline, self.client.complete(&prompt)).await {
                Ok(completed) => completed,
                Err(_) => Err(ClientError::TimedOut),
            };
            let error = match completed {
                Ok(completion) => {
                    let used = completion.usage.unwrap_or(needed);
                    *usage = Usage { input: usage.input + used.input, output: usage.output + used.output };
                    permit.end(Ending::Answered(completion.usage));
                    let content = completion.content.ok_or(NoAnswer::Malformed)?;
                    return Ok(reply::read(&content, question.labels)?);
                }
                Err(error) => error,
            };
            permit.end(error.ending());
            let after = match error.remedy() {
                Remedy::Retry { after } => after,
                Remedy::GiveUp => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the LLM's server does not take this request"
                    );
                    return Err(NoAnswer::Rejected);
                }
                Remedy::Off => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the LLM's server refuses all requests");
                    return Err(NoAnswer::Refused);
                }
            };
            let limited = matches!(error, ClientError::RateLimited { .. });
            let again = Instant::now() + after.unwrap_or_else(|| backoff(&self.settings.retry, attempt));
            if attempt >= self.settings.retry.attempts || again > start_by {
                tracing::debug!(error = &error as &dyn std::error::Error, attempt, "the LLM is given up for a record");
                return Err(if limited { NoAnswer::RateLimited } else { NoAnswer::Unavailable });
            }
            tokio::time::sleep_until(again).await;
            attempt += 1;
        }
    }

    fn key(&self, text: &str, question: Question<'_>) -> u64 {
        let mut hash = Xxh3::with_seed(self.fingerprint);
        hash.update(&question.labels.fingerprint().to_le_bytes());
        hash.update(question.kind.as_str().as_bytes());
        match question.template_key {
            Some(template) => hash.update(&template.to_le_bytes()),
            None => hash.update(text.as_bytes()),
        }
        hash.digest()
    }
}

/// The beginning of a text up to a blank, so that nothing that is masked is cut in two.
fn head(text: &str, max_chars: usize) -> &str {
    let head = cut(text, max_chars);
    if head.len() == text.len() { head } else { head.rfind(char::is_whitespace).map_or(head, |blank| &head[..blank]) }
}

#[cfg(test)]
mod tests {
    use super::super::labels::{Label, LabelSet};
    use super::*;
    use crate::record::Kind;

    #[tokio::test]
    async fn it_is_off_by_default() {
        let tier = LlmTier::try_new(LlmSettings::default()).expect("there is nothing to set up");
        let labels = LabelSet::try_new(vec![Label::new("a", ""), Label::new("b", "")]).expect("they are sound");
        let question = Question {
            text: "secret",
            kind: Kind::Ticket,
            labels: &labels,
            template_key: None,
            deadline: Instant::now(),
        };
        assert_eq!(tier.ask(question).await, LlmOutcome::NoAnswer(NoAnswer::Off));
        assert_eq!(tier.status(), None);
        assert!(!format!("{question:?}").contains("secret"));
    }

    #[test]
    fn a_text_is_shortened_at_a_blank() {
        assert_eq!(head("to jane@example.org", 10), "to");
        assert_eq!(head("to jane", 10), "to jane");
        assert_eq!(head("jane@example.org", 10), "jane@examp");
    }
}
