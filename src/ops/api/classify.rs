//! `POST /v1/classify`: records in, decisions out, by the same code as the stream. Nothing is published or counted.

mod split;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::classify::Decision;
use crate::record::Kind;

use super::ApiState;
use super::problem::Problem;
use super::request::{Query, whole_body};
use super::workers::{Manner, Outcome};
use split::Layout;

/// Records of one JSON body. More belong into an upload, whose answer need not be held in memory.
const MOST_RECORDS: usize = 10_000;
const MOST_REASONS: usize = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// What the records are. They may have any format that is known.
    kind: Option<Kind>,
    /// Instead of `kind`: decode as this input topic of the configuration is decoded.
    topic: Option<String>,
    /// Reasons that each decision of the model lists; as many as `output.explain` says if absent.
    #[param(minimum = 0, maximum = 100)]
    explain: Option<usize>,
}

/// A record as a producer would write it: a JSON object, or the text of a log line.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what is read piece by piece")]
pub(super) enum RecordBody {
    Fields(BTreeMap<String, serde_json::Value>),
    Line(String),
}

/// One record, or at most 10,000 of them. What in a list is no record gets an error in its place.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what is read piece by piece")]
pub(super) enum Records {
    One(RecordBody),
    Many(Vec<serde_json::Value>),
}

/// As many answers as there were records, in their order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Answer {
    One(Box<Decision>),
    Many(Vec<Outcome>),
}

/// Classify records
///
/// Uses the same rules, template cache, models and thresholds as the stream; nothing is published or counted. JSON holds
/// one record or a list of them. With `application/x-ndjson` or `text/csv` the body is worked through line by line while
/// it comes, however long it is, and the answer has the same format, one line for each record, in order. Read that answer
/// while you send: who does not is cut off when the buffers are full.
#[utoipa::path(
    post,
    path = "/v1/classify",
    tag = "classify",
    params(Parameters),
    request_body(content(
        (Records = "application/json", example = json!([{"message": "Failed password for root from 203.0.113.7"}])),
        ("application/x-ndjson", example = json!("Failed password for root from 203.0.113.7\n")),
        ("text/csv", example = json!("title,content\nVPN,I cannot log in\n")),
    )),
    responses((status = 200, description = "The decisions.", content(
        (Answer = "application/json"),
        (String = "application/x-ndjson"),
        (String = "text/csv"),
    ))),
)]
pub(super) async fn classify(
    State(state): State<ApiState>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let manner = manner(&state, &parameters)?;
    match media_type(&headers).as_str() {
        "application/json" => answer_json(&state, manner, body).await,
        "application/x-ndjson" => upload::answer(state, manner, Layout::Lines, body).await,
        "text/csv" => upload::answer(state, manner, Layout::Csv, body).await,
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Content-Type must be application/json, application/x-ndjson or text/csv",
        )),
    }
}

fn manner(state: &ApiState, parameters: &Parameters) -> Result<Manner, Problem> {
    let serving = state.workers.serving();
    let desk = serving.desk();
    let decoder = match (parameters.kind, &parameters.topic) {
        (Some(kind), None) => desk.decoder_of_kind(kind).ok_or("no input of the configuration is of this `kind`"),
        (None, Some(topic)) => desk.decoder_of_topic(topic).ok_or("`topic` is no input topic of the configuration"),
        _ => Err("say what the records are: either `kind` (ticket or log) or `topic`"),
    };
    if parameters.explain.is_some_and(|explain| explain > MOST_REASONS) {
        return Err(Problem::invalid("invalid_parameter", "`explain` must not be more than 100"));
    }
    let decoder = decoder.map_err(|detail| Problem::invalid("invalid_parameter", detail))?;
    Ok(Manner { serving, decoder, explain: parameters.explain })
}

/// The type of the body without its parameters, in small letters.
fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

async fn answer_json(state: &ApiState, manner: Manner, body: Body) -> Result<Response, Problem> {
    let body = whole_body(body, state.settings.max_body, state.settings.request_timeout).await?;
    let workers = Arc::clone(&state.workers);
    let answer = workers.run(move |worker| {
        let invalid =
            |error: serde_json::Error| Problem::invalid("invalid_json", format!("the body is no JSON: {error}"));
        if body.trim_ascii_start().first() != Some(&b'[') {
            let record: &RawValue = serde_json::from_slice(&body).map_err(invalid)?;
            return match decide(worker, &manner, record) {
                Outcome::Decided(decision) => Ok(Answer::One(decision)),
                Outcome::Unreadable(unreadable) => {
                    Err(Problem::invalid(unreadable.error.reason, unreadable.error.detail))
                }
            };
        }
        let records: Vec<&RawValue> = serde_json::from_slice(&body).map_err(invalid)?;
        if records.len() > MOST_RECORDS {
            let detail = format!("more than {MOST_RECORDS} records; send them as application/x-ndjson");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_records", detail));
        }
        Ok(Answer::Many(records.into_iter().map(|record| decide(worker, &manner, record)).collect()))
    });
    Ok(Json(answer.await??).into_response())
}

/// An object is a value as it stands; a text is the line that it holds.
fn decide(worker: &mut super::workers::Worker, manner: &Manner, record: &RawValue) -> Outcome {
    match record.get().as_bytes().first() {
        Some(b'{') => worker.decide(manner, record.get().as_bytes()),
        Some(b'"') => match serde_json::from_str::<String>(record.get()) {
            Ok(line) => worker.decide(manner, line.as_bytes()),
            Err(error) => Outcome::unreadable("broken_json", error.to_string()),
        },
        _ => Outcome::unreadable("not_an_object", "a record is a JSON object or a text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_is_taken_without_parameters() {
        let of = |text: &str| media_type(&HeaderMap::from_iter([(header::CONTENT_TYPE, text.parse().unwrap())]));
        assert_eq!(
            (of("Text/CSV; charset=utf-8"), of("application/json")),
            ("text/csv".into(), "application/json".into())
        );
        assert_eq!(media_type(&HeaderMap::new()), "");
    }
}
