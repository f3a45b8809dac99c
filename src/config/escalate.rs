//! `[escalate]` and `[escalate.llm]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::llm::{
    Api, BreakerSettings, BudgetSettings, Calibration, Isotonic, LlmSettings, OutputLimit, RateSettings, ReplyFormat,
    RetrySettings,
};

use super::reader::Section;
use super::settings::{EscalateSettings, Precision};
use super::volumes::read_secret;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn read_escalate(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> EscalateSettings {
    EscalateSettings {
        batch_records: section.count("batch_records", 1..=100_000),
        batch_age: section.duration("batch_age", MILLISECOND..=60 * SECOND),
        workers: section.count("workers", 1..=64),
        encoder: section.parsed("encoder", None, optional_path),
        precision: section
            .choice("precision", &[("auto", Precision::Auto), ("f32", Precision::F32), ("int8", Precision::Int8)]),
        ticket: section.parsed("ticket", None, optional_path),
        log: section.parsed("log", None, optional_path),
        llm: section.table("llm", |section| read_llm(section, environment)),
    }
}

fn read_llm(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> LlmSettings {
    let defaults = LlmSettings::default();
    let azure_deployment = section.parsed("azure_deployment", String::new(), any_text);
    let azure_api_version = section.parsed("azure_api_version", String::new(), any_text);
    LlmSettings {
        enabled: section.flag("enabled"),
        api: match azure_deployment.is_empty() {
            true => Api::OpenAi,
            false => Api::Azure { deployment: azure_deployment, api_version: azure_api_version },
        },
        base_url: section.parsed("base_url", String::new(), any_text),
        api_key: read_secret(section, "api_key", environment),
        proxy: read_secret(section, "proxy", environment),
        model: section.parsed("model", String::new(), any_text),
        reply_format: section.choice(
            "reply_format",
            &[
                ("json_schema", ReplyFormat::JsonSchema),
                ("json_object", ReplyFormat::JsonObject),
                ("plain", ReplyFormat::Plain),
            ],
        ),
        output_limit: section.choice(
            "output_limit",
            &[("max_tokens", OutputLimit::MaxTokens), ("max_completion_tokens", OutputLimit::MaxCompletionTokens)],
        ),
        guidance: section.parsed("guidance", String::new(), any_text),
        max_text_chars: section.count("max_text_chars", 100..=200_000),
        connect_timeout: section.duration("connect_timeout", 10 * MILLISECOND..=60 * SECOND),
        request_timeout: section.duration("request_timeout", 10 * MILLISECOND..=600 * SECOND),
        record_deadline: section.duration("record_deadline", 10 * MILLISECOND..=600 * SECOND),
        min_request_time: section.duration("min_request_time", Duration::ZERO..=60 * SECOND),
        rates: RateSettings {
            concurrency: section.count("concurrency", 1..=1024),
            requests_per_minute: section.count("requests_per_minute", 0..=10_000_000) as u32,
            tokens_per_minute: section.count("tokens_per_minute", 0..=1_000_000_000) as u32,
        },
        budget: BudgetSettings {
            tokens_per_day: section.count("tokens_per_day", 0..=1_000_000_000_000) as u64,
            cost_per_day: amount(section, "cost_per_day"),
            price_per_1k_input: amount(section, "price_per_1k_input"),
            price_per_1k_output: amount(section, "price_per_1k_output"),
        },
        retry: RetrySettings {
            attempts: section.count("attempts", 1..=10) as u32,
            backoff: section.duration("retry_backoff", MILLISECOND..=60 * SECOND),
            backoff_max: section.duration("retry_backoff_max", MILLISECOND..=600 * SECOND),
        },
        breaker: BreakerSettings {
            failures: section.count("breaker_failures", 1..=10_000) as u32,
            pause: section.duration("breaker_pause", MILLISECOND..=HOUR),
            long_pause: section.duration("breaker_long_pause", MILLISECOND..=24 * HOUR),
        },
        cache_capacity: section.count("cache_capacity", 0..=10_000_000),
        cache_ttl: section.duration("cache_ttl", SECOND..=24 * 365 * HOUR),
        calibration: read_calibration(section),
        ..defaults
    }
}

/// Points `said=right`; without any, no answer of the LLM is sure enough to be routed.
fn read_calibration(section: &mut Section<'_>) -> Calibration {
    let mut points = Vec::new();
    for (_, text) in section.list("calibration") {
        let point = text
            .split_once('=')
            .and_then(|(said, right)| Some((said.trim().parse().ok()?, right.trim().parse().ok()?)));
        match point {
            Some(point) => points.push(point),
            None => section.fault("calibration", format!("{text:?}: expected `said=right` such as \"0.9=0.8\"")),
        }
    }
    if points.is_empty() { Calibration::default() } else { Calibration::Isotonic(Isotonic::new(points)) }
}

fn amount(section: &mut Section<'_>, key: &'static str) -> f64 {
    section.read(key, 0.0, |node| match node.as_number()? {
        amount if amount.is_finite() && amount >= 0.0 => Ok(amount),
        _ => Err("must not be negative".to_owned()),
    })
}

fn any_text(text: &str) -> Result<String, String> {
    Ok(text.trim().to_owned())
}

fn optional_path(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned))
}
