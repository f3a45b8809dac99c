//! What people do about unsure events: `/v1/reviews`, `/v1/feedback`, and the page that they do it on.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::json;
use uuid::Uuid;

use crate::feedback::{
    BulkAnswer, ClaimAnswer, DeskError, FeedbackBulk, FeedbackReceipt, FeedbackSubmission, QueueNames, ReviewPage,
    ReviewQuery,
};
use crate::ops::review::{ASSETS, CONTENT_SECURITY_POLICY};

use super::access::Caller;
use super::problem::Problem;
use super::request::{Path, Query, whole_body};
use super::{ApiState, audit};

/// What the desk refuses is the caller's to know; what failed behind it goes to the log.
impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "the review desk failed");
            return Problem::busy(
                "desk_unavailable",
                "the store or Kafka does not answer; the log of the daemon says why",
            );
        }
        Problem::new(status, error.code(), error.to_string())
    }
}

/// List what to review
///
/// Events that nobody has judged and nobody else has claimed, the least confident first.
#[utoipa::path(
    get, path = "/v1/reviews", tag = "reviews", security(("key" = ["write"])), params(ReviewQuery),
    responses((status = 200, description = "A page of events.", body = ReviewPage)),
)]
pub(super) async fn reviews(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ReviewQuery>,
) -> Result<Json<ReviewPage>, Problem> {
    Ok(Json(state.desk.reviews(&query, caller.actor()).await?))
}

/// List the queues that a correction may name
#[utoipa::path(
    get, path = "/v1/reviews/queues", tag = "reviews", security(("key" = ["write"])),
    responses((status = 200, description = "The queues.", body = QueueNames)),
)]
pub(super) async fn queues(State(state): State<ApiState>) -> Result<Json<QueueNames>, Problem> {
    Ok(Json(state.desk.queues().await?))
}

/// Claim an event
///
/// Nobody else is shown it until the lease is over or it is released. Of several who ask at once, one gets it.
#[utoipa::path(
    post, path = "/v1/reviews/{id}/claim", tag = "reviews", security(("key" = ["write"])),
    params(("id" = String, Path, format = "uuid", description = "The event's id.")),
    responses((status = 200, description = "It is yours.", body = ClaimAnswer)),
)]
pub(super) async fn claim(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<ClaimAnswer>, Problem> {
    Ok(Json(state.desk.claim(id, caller.actor()).await?))
}

/// Release an event
///
/// One that is not claimed, or by somebody else, stays as it is.
#[utoipa::path(
    post, path = "/v1/reviews/{id}/release", tag = "reviews", security(("key" = ["write"])),
    params(("id" = String, Path, format = "uuid", description = "The event's id.")),
    responses((status = 204, description = "It is not yours any more.")),
)]
pub(super) async fn release(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    state.desk.release(id, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give feedback
///
/// It is in Kafka when the answer comes, and in the store soon after.
#[utoipa::path(
    post, path = "/v1/feedback", tag = "reviews", security(("key" = ["write"])),
    request_body(content = FeedbackSubmission),
    responses((status = 200, description = "It is written.", body = FeedbackReceipt)),
)]
pub(super) async fn feedback(
    State(state): State<ApiState>,
    caller: Caller,
    body: Body,
) -> Result<Json<FeedbackReceipt>, Problem> {
    let submission: FeedbackSubmission = read(&state, body).await?;
    let receipt = state.desk.submit(&submission, caller.actor()).await?;
    note(&state, &caller, &[receipt.event_id]).await;
    Ok(Json(receipt))
}

/// Give feedback on several events
///
/// Worked through in order, each with its own result.
#[utoipa::path(
    post, path = "/v1/feedback/bulk", tag = "reviews", security(("key" = ["write"])),
    request_body(content = FeedbackBulk),
    responses((status = 200, description = "What became of each.", body = BulkAnswer)),
)]
pub(super) async fn bulk(
    State(state): State<ApiState>,
    caller: Caller,
    body: Body,
) -> Result<Json<BulkAnswer>, Problem> {
    let submissions: FeedbackBulk = read(&state, body).await?;
    let answer = state.desk.submit_all(&submissions.feedback, caller.actor()).await?;
    let accepted: Vec<Uuid> =
        answer.results.iter().filter(|item| item.receipt.is_some()).map(|item| item.event_id).collect();
    note(&state, &caller, &accepted).await;
    Ok(Json(answer))
}

async fn read<T: serde::de::DeserializeOwned>(state: &ApiState, body: Body) -> Result<T, Problem> {
    let bytes = whole_body(body, state.settings.max_body, state.settings.request_timeout).await?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::invalid("invalid_feedback", error.to_string()))
}

/// Notes who judged which events. The feedback names who gave it, so it stands also where this cannot be written.
async fn note(state: &ApiState, caller: &Caller, events: &[Uuid]) {
    if events.is_empty() {
        return;
    }
    let subject = format!("{} events", events.len());
    let entry = caller.change("feedback.given", &subject, &json!({ "events": events }));
    audit::note(state, &entry).await;
}

/// The page; it asks for a key itself.
pub(super) fn page() -> Router<ApiState> {
    ASSETS.into_iter().fold(Router::new(), |router, asset| {
        router.route(
            asset.path,
            get(async move || -> Response {
                let mut response = ([(header::CONTENT_TYPE, asset.content_type)], asset.body).into_response();
                response
                    .headers_mut()
                    .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
                response
            }),
        )
    })
}
