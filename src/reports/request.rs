//! A report as somebody asks for it over HTTP, and as they get it.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::volumes::{StoreError, VolumeStore};

use super::{DetailFilter, Part, csv, html, last_week, parse_time, report};

/// Rows of detail at most.
const MOST_DETAIL: usize = 10_000;
/// The page has its style inside, and nothing else may run or load.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// How a report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    #[default]
    Json,
    Csv,
    Html,
}

/// Which report.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReportQuery {
    /// A date or an RFC 3339 time, UTC; by default a week before `to`.
    pub from: Option<String>,
    /// A date or an RFC 3339 time, no longer included; by default now.
    pub to: Option<String>,
    /// `json`, `csv` or `html`.
    #[param(value_type = Option<String>)]
    pub format: Option<ReportFormat>,
    /// With `csv`: `queues`, `confidence`, `feedback` or `detail`.
    #[param(value_type = Option<String>)]
    pub part: Option<Part>,
    /// Only judgements of this queue in the detail.
    pub queue: Option<String>,
    /// Only judgements of this person or system in the detail.
    pub given_by: Option<String>,
    /// Only right or only wrong decisions in the detail.
    pub correct: Option<bool>,
    /// Rows of the detail, at most 10,000; by default 500.
    pub limit: Option<usize>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{0}")]
    BadRequest(String),
    #[error("the store did not answer")]
    Store(#[from] StoreError),
}

impl ReportError {
    /// The HTTP status that says the same.
    pub fn status(&self) -> u16 {
        match self {
            ReportError::BadRequest(_) => 400,
            ReportError::Store(_) => 503,
        }
    }
}

/// A report as the body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub content_type: &'static str,
    pub body: String,
}

impl ReportQuery {
    /// Makes the report and writes it.
    pub async fn answer(&self, store: &VolumeStore) -> Result<Rendered, ReportError> {
        let (from, to) = self.period().map_err(ReportError::BadRequest)?;
        let filter = DetailFilter {
            queue: self.queue.clone(),
            given_by: self.given_by.clone(),
            correct: self.correct,
            limit: self.limit.map(|limit| limit.min(MOST_DETAIL)),
        };
        let report = report(store, from, to, &filter).await?;
        Ok(match self.format.unwrap_or_default() {
            ReportFormat::Json => Rendered {
                content_type: "application/json",
                body: serde_json::to_string(&report).expect("plain data becomes JSON"),
            },
            ReportFormat::Csv => Rendered {
                content_type: "text/csv; charset=utf-8",
                body: csv(&report, self.part.unwrap_or(Part::Queues)),
            },
            ReportFormat::Html => Rendered { content_type: "text/html; charset=utf-8", body: html(&report) },
        })
    }

    fn period(&self) -> Result<(i64, i64), String> {
        let time = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => parse_time(text).map(Some).map_err(|rule| format!("{name}: {rule}")),
        };
        let (week_ago, now) = last_week();
        let to = time("to", &self.to)?.unwrap_or(now);
        let from = time("from", &self.from)?.unwrap_or(to - (now - week_ago));
        if from < to { Ok((from, to)) } else { Err("from must be before to".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::MemoryStore;

    #[tokio::test]
    async fn each_format_has_its_type_and_faults_name_the_parameter() {
        let store = VolumeStore::Memory(MemoryStore::new(1_000).into());
        for (format, begin) in
            [(ReportFormat::Json, "{\"from\":"), (ReportFormat::Csv, "queue,"), (ReportFormat::Html, "<!doctype")]
        {
            let query = ReportQuery { format: Some(format), ..ReportQuery::default() };
            let rendered = query.answer(&store).await.expect("a report");
            assert!(rendered.body.starts_with(begin), "{rendered:?}");
        }
        let fault = async |from: &str, to: &str| {
            let query = ReportQuery { from: Some(from.into()), to: Some(to.into()), ..ReportQuery::default() };
            query.answer(&store).await.expect_err("a fault").to_string()
        };
        assert!(fault("yesterday", "2026-01-01").await.starts_with("from: expected a date"));
        assert_eq!(fault("2026-01-02", "2026-01-01").await, "from must be before to");
    }
}
