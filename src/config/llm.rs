//! `[escalate.llm]`: what the LLM tier may do and spend. Plain data with defaults; `faults` tells all that is wrong with it
//! at once.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Secret;

/// Below 0.85, from which on nobody looks.
const DEFAULT_CAP: f32 = 0.84;

/// How requests are addressed and authorised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// `{base_url}/chat/completions` with `Authorization: Bearer`. OpenAI, Groq, vLLM, Ollama, llama.cpp, LiteLLM; Azure
    /// too, when the base URL ends in `/openai/v1`.
    OpenAi,
    /// `{base_url}/openai/deployments/{deployment}/chat/completions?api-version=...` with an `api-key` header.
    Azure { deployment: String, api_version: String },
}

/// How the server is made to answer in JSON. Every answer is checked in the same way afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyFormat {
    /// The server constrains the answer to the schema, with the labels as an enum. OpenAI, Azure, vLLM, Ollama, and
    /// some models of Groq.
    JsonSchema,
    /// The server promises JSON, the prompt alone says which.
    JsonObject,
    /// The prompt alone asks for JSON.
    Plain,
}

/// The name of the field that bounds the answer's length. Servers refuse the one they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputLimit {
    /// Understood by nearly all servers.
    MaxTokens,
    /// What OpenAI's reasoning models insist on.
    MaxCompletionTokens,
}

/// A solved case for the prompt. It is masked like every text.
#[derive(Clone, PartialEq, Eq)]
pub struct Example {
    pub text: String,
    pub label: String,
}

impl fmt::Debug for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Example").field("label", &self.label).finish_non_exhaustive()
    }
}

/// How much is asked of the server at a time. 0 in a rate: no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct RateSettings {
    /// Requests under way. Too many: the server queues them and all become slow. Too few: records wait here.
    pub concurrency: usize,
    /// Above the server's own limit: answers of 429, and pauses for all.
    pub requests_per_minute: u32,
    /// Tokens sent and received, estimated before and corrected after.
    pub tokens_per_minute: u32,
}

/// What a day, from midnight to midnight UTC, may cost this process. 0: no limit.
///
/// The account is kept in memory: a restart begins a new one, and each replica has its own.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetSettings {
    pub tokens_per_day: u64,
    /// In the currency of the prices.
    pub cost_per_day: f64,
    /// Price of a thousand tokens sent.
    pub price_per_1k_input: f64,
    /// Price of a thousand tokens received.
    pub price_per_1k_output: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// Requests for one record, the first included.
    pub attempts: u32,
    /// First and longest pause between attempts, where the server names none; each is shortened at random by up to a
    /// half, so that those who failed together do not come back together.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// So many failures in a row, and nobody asks any more. Too low: a hiccup switches the tier off.
    pub failures: u32,
    /// How long nobody asks; then one request tries.
    pub pause: Duration,
    /// The same after what waiting does not cure: a used-up quota, a wrong key, an unknown model.
    pub long_pause: Duration,
}

/// From what a model says of itself to the share of such answers that is right.
#[derive(Debug, Clone, PartialEq)]
pub enum Calibration {
    /// Taken as it is, up to a cap. For a model whose answers nobody has compared yet.
    Capped { cap: f32 },
    /// Log-odds divided by a temperature; above 1 for the overconfident (Guo et al. 2017).
    Temperature { temperature: f32 },
    /// A rising line through points that were fitted to compared answers.
    Isotonic(Isotonic),
}

impl Default for Calibration {
    fn default() -> Self {
        Calibration::Capped { cap: DEFAULT_CAP }
    }
}

impl Calibration {
    /// The most that answers can reach without having been compared.
    pub(crate) fn uncalibrated_cap(&self) -> f32 {
        match self {
            Calibration::Capped { cap } => *cap,
            Calibration::Temperature { .. } | Calibration::Isotonic(_) => 0.0,
        }
    }

    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Calibration::Capped { cap } => (0.0..=1.0).contains(cap),
            Calibration::Temperature { temperature } => temperature.is_finite() && *temperature > 0.0,
            Calibration::Isotonic(isotonic) => isotonic.is_sound(),
        }
    }
}

/// Points (stated, right), both rising and within 0 to 1; straight lines between them, level outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Isotonic {
    points: Vec<(f32, f32)>,
}

impl Isotonic {
    /// Points from a configuration; `LlmSettings::faults` tells whether they are sound.
    pub fn new(points: Vec<(f32, f32)>) -> Self {
        Isotonic { points }
    }

    pub fn points(&self) -> &[(f32, f32)] {
        &self.points
    }

    pub(crate) fn is_sound(&self) -> bool {
        let within = self.points.iter().all(|&(x, y)| (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y));
        let rising = self.points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        !self.points.is_empty() && within && rising
    }
}

/// Settings of the tier.
#[derive(Debug, Clone)]
pub struct LlmSettings {
    /// Off by default: texts leave the machine when it is on.
    pub enabled: bool,
    pub api: Api,
    /// Where the server is, `https://api.openai.com/v1` for example. Plain `http://` carries texts and key unencrypted.
    pub base_url: String,
    /// Absent for servers that want none.
    pub api_key: Option<Secret>,
    /// A proxy's URL, which may hold a password. Absent: straight to the server; the environment is not read.
    pub proxy: Option<Secret>,
    pub model: String,
    pub reply_format: ReplyFormat,
    pub output_limit: OutputLimit,
    /// Absent for models that refuse it.
    pub temperature: Option<f32>,
    /// Further fields of the request, such as `seed` or `reasoning_effort`. Those that the tier sets itself win.
    pub extra: Map<String, Value>,
    /// Added to the system message: what the company is, how its queues differ.
    pub guidance: String,
    pub examples: Vec<Example>,

    /// Characters of a text that are sent, after masking. More: costs more and dilutes; fewer: the point may be missed.
    pub max_text_chars: usize,
    /// Tokens of an answer. Too few: it ends within the JSON and is no answer. Reasoning models think within it.
    pub max_answer_tokens: u32,
    /// Bytes of a response's body. A longer one is dropped while it arrives.
    pub max_response_bytes: usize,
    /// Time to reach the server.
    pub connect_timeout: Duration,
    /// Time of one request with its answer. Longer than the slowest good answer.
    pub request_timeout: Duration,
    /// Time of a record in this tier with all waiting and retries, where the caller's deadline is not sooner.
    pub record_deadline: Duration,
    /// With less time left than this no request begins: it would be paid for and come too late.
    pub min_request_time: Duration,

    pub rates: RateSettings,
    pub budget: BudgetSettings,
    pub retry: RetrySettings,
    pub breaker: BreakerSettings,

    /// Answers kept by template. 0 switches the cache off.
    pub cache_capacity: usize,
    /// How long an answer is kept. Longer: a wrong one, too, lives longer.
    pub cache_ttl: Duration,

    /// What a model's own confidence is worth.
    pub calibration: Calibration,
    /// Confidence is at most this where a text seems to give orders. Below every threshold, so that a person decides.
    pub suspicious_cap: f32,
}

impl Default for LlmSettings {
    fn default() -> Self {
        LlmSettings {
            enabled: false,
            api: Api::OpenAi,
            base_url: "https://api.openai.com/v1".to_owned(),
            api_key: None,
            proxy: None,
            model: String::new(),
            reply_format: ReplyFormat::JsonSchema,
            output_limit: OutputLimit::MaxTokens,
            temperature: Some(0.0),
            extra: Map::new(),
            guidance: String::new(),
            examples: Vec::new(),
            max_text_chars: 6_000,
            max_answer_tokens: 300,
            max_response_bytes: 256 * 1024,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(15),
            record_deadline: Duration::from_secs(30),
            min_request_time: Duration::from_secs(1),
            rates: RateSettings { concurrency: 4, requests_per_minute: 60, tokens_per_minute: 60_000 },
            budget: BudgetSettings {
                tokens_per_day: 2_000_000,
                cost_per_day: 0.0,
                price_per_1k_input: 0.0,
                price_per_1k_output: 0.0,
            },
            retry: RetrySettings {
                attempts: 3,
                backoff: Duration::from_millis(500),
                backoff_max: Duration::from_secs(8),
            },
            breaker: BreakerSettings {
                failures: 5,
                pause: Duration::from_secs(30),
                long_pause: Duration::from_secs(3600),
            },
            cache_capacity: 16_384,
            cache_ttl: Duration::from_secs(24 * 3600),
            calibration: Calibration::default(),
            suspicious_cap: 0.5,
        }
    }
}

/// A setting that cannot be, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct SettingFault {
    pub key: &'static str,
    pub rule: &'static str,
}

impl LlmSettings {
    /// All faults at once; none while the tier is off. `human_verify` is the threshold from which on a label is
    /// suggested to a person, `auto_route` the one from which on nobody looks.
    pub fn faults(&self, human_verify: f32, auto_route: f32) -> Vec<SettingFault> {
        if !self.enabled {
            return Vec::new();
        }
        let url = |scheme: &str| self.base_url.len() > scheme.len() && self.base_url.starts_with(scheme);
        let price = |price: f64| price.is_finite() && price >= 0.0;
        let budget = &self.budget;
        let costs = budget.price_per_1k_input > 0.0 || budget.price_per_1k_output > 0.0;
        let azure_named = match &self.api {
            Api::OpenAi => true,
            Api::Azure { deployment, api_version } => !deployment.is_empty() && !api_version.is_empty(),
        };
        // Azure names the model by its deployment.
        let model_named = !self.model.is_empty() || matches!(self.api, Api::Azure { .. });
        let durations = [self.connect_timeout, self.request_timeout, self.record_deadline, self.retry.backoff];
        let rules = [
            (url("https://") || url("http://"), "base_url", "an http:// or https:// URL"),
            (azure_named, "api", "azure needs a deployment and an api_version"),
            (model_named, "model", "must be named"),
            (self.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)), "temperature", "0 to 2"),
            ((100..=200_000).contains(&self.max_text_chars), "max_text_chars", "100 to 200000"),
            ((32..=32_768).contains(&self.max_answer_tokens), "max_answer_tokens", "32 to 32768"),
            ((4_096..=16 << 20).contains(&self.max_response_bytes), "max_response_bytes", "4KiB to 16MiB"),
            (durations.iter().all(|time| !time.is_zero()), "timeouts", "longer than zero"),
            (self.min_request_time < self.record_deadline, "min_request_time", "shorter than record_deadline"),
            ((1..=1_024).contains(&self.rates.concurrency), "concurrency", "1 to 1024"),
            (price(budget.cost_per_day), "cost_per_day", "a number from 0 on"),
            (price(budget.price_per_1k_input) && price(budget.price_per_1k_output), "prices", "numbers from 0 on"),
            (budget.cost_per_day == 0.0 || costs, "cost_per_day", "needs the prices of tokens"),
            ((1..=10).contains(&self.retry.attempts), "attempts", "1 to 10"),
            (self.retry.backoff <= self.retry.backoff_max, "backoff", "not longer than backoff_max"),
            (self.breaker.failures >= 1, "failures", "at least 1"),
            (!self.breaker.pause.is_zero(), "pause", "longer than zero"),
            (self.breaker.pause <= self.breaker.long_pause, "long_pause", "not shorter than pause"),
            (self.calibration.is_sound(), "calibration", "finite, rising, within 0 to 1"),
            // Nobody knows yet what its confidence means, so nothing may pass unseen because of it.
            (self.calibration.uncalibrated_cap() < auto_route, "calibration.cap", "below auto_route"),
            ((0.0..human_verify).contains(&self.suspicious_cap), "suspicious_cap", "below human_verify"),
        ];
        rules.into_iter().filter(|rule| !rule.0).map(|(_, key, rule)| SettingFault { key, rule }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_off() {
        let off = LlmSettings::default();
        assert!(!off.enabled && off.faults(0.65, 0.85).is_empty());
        let on = LlmSettings { enabled: true, model: "m".to_owned(), ..off };
        assert_eq!(on.faults(0.65, 0.85), []);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let settings = LlmSettings {
            enabled: true,
            base_url: "ftp://x".to_owned(),
            suspicious_cap: 0.9,
            temperature: Some(f32::NAN),
            ..LlmSettings::default()
        };
        let keys: Vec<_> = settings.faults(0.65, 0.8).into_iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["base_url", "model", "temperature", "calibration.cap", "suspicious_cap"]);
    }

    #[test]
    fn debug_shows_neither_key_nor_examples() {
        let settings = LlmSettings {
            api_key: Some(Secret::new("sk-very-secret")),
            proxy: Some(Secret::new("http://u:very-secret@proxy")),
            examples: vec![Example { text: "very-secret".to_owned(), label: "VPN".to_owned() }],
            ..LlmSettings::default()
        };
        assert!(!format!("{settings:?}").contains("very-secret"));
    }
}
