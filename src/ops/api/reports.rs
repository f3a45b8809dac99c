//! `GET /v1/reports` and `POST /v1/reports/email`.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::reports::{self, CONTENT_SECURITY_POLICY, DetailFilter, ReportError, ReportQuery};

use super::access::Caller;
use super::problem::Problem;
use super::request::Query;
use super::{ApiState, audit};

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Store(error) => error.into(),
            other => Problem::invalid("invalid_parameter", other.to_string()),
        }
    }
}

/// Report on decisions and feedback
///
/// Confidence of all events in a time, and what the judged ones say about each queue, with 95 % intervals.
#[utoipa::path(
    get, path = "/v1/reports", tag = "reports", params(ReportQuery),
    responses((status = 200, description = "The report, in the format that was asked for.", content(
        (reports::Report = "application/json"),
        (String = "text/csv"),
        (String = "text/html"),
    ))),
)]
pub(super) async fn report(
    State(state): State<ApiState>,
    Query(query): Query<ReportQuery>,
) -> Result<Response, Problem> {
    let rendered = query.answer(&state.store).await?;
    let mut response = ([(header::CONTENT_TYPE, rendered.content_type)], rendered.body).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    Ok(response)
}

/// Send the report of the last week by e-mail
///
/// To `reports.email_to`, now.
#[utoipa::path(
    post, path = "/v1/reports/email", tag = "reports", security(("key" = ["admin"])),
    responses((status = 202, description = "The mail server has taken it.")),
)]
pub(super) async fn email(State(state): State<ApiState>, caller: Caller) -> Result<StatusCode, Problem> {
    let Some(mailer) = &state.mailer else {
        return Err(Problem::invalid("no_mail", "reports.email_to and smtp.server are not set"));
    };
    let (from, to) = reports::last_week();
    let report = reports::report(&state.store, from, to, &DetailFilter::default()).await?;
    mailer.send(&report).await.map_err(|error| {
        tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "the report was not sent");
        Problem::busy("mail_unavailable", "the mail server did not take it; the log of the daemon says why")
    })?;
    let entry = caller.change("report.sent", "last week", &json!({}));
    audit::note(&state, &entry).await;
    Ok(StatusCode::ACCEPTED)
}
