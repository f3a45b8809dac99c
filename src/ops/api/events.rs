//! What was decided: `GET /v1/events` and `/v1/events/{id}`.

use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::record::{QueueEvent, Routing};
use crate::volumes::EventQuery;

use super::ApiState;
use super::problem::Problem;
use super::request::{Path, Query, Span, page_cursor, page_limit};

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Of this queue alone.
    queue: Option<String>,
    /// Routed in this way alone.
    routing: Option<Routing>,
    /// Start of event time, RFC 3339; a day before the end if absent.
    #[param(format = "date-time")]
    from: Option<String>,
    /// End of event time, which no longer counts; now if absent. Give it when you turn pages, else newer events move the
    /// start of the span.
    #[param(format = "date-time")]
    to: Option<String>,
    /// Events of one page; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of events, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventPage {
    events: Vec<QueueEvent<'static>>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List events
///
/// By event time, the newest first, each as it was decided last. With `volumes.store = "memory"` only the newest events
/// are kept.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(Parameters),
    responses((status = 200, description = "A page of events.", body = EventPage)),
)]
pub(super) async fn events(
    State(state): State<ApiState>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<EventPage>, Problem> {
    let span = Span::read(parameters.from.as_deref(), parameters.to.as_deref(), DAY)?;
    let limit = page_limit(parameters.limit)?;
    let after = page_cursor(parameters.cursor.as_deref())?;
    let Parameters { queue, routing, .. } = parameters;
    // One more tells whether there is a next page.
    let query = EventQuery { from: span.from, to: span.to, queue, routing, after, limit: limit + 1 };
    let mut found = state.store.events(&query).await?;
    let next = (found.len() > limit).then(|| found[limit - 1].cursor().to_string());
    found.truncate(limit);
    Ok(Json(EventPage { events: found.into_iter().map(QueueEvent::from).collect(), next }))
}

/// Show an event
///
/// As it was decided last.
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "events",
    params(("id" = String, Path, format = "uuid", description = "The event's id.")),
    responses((status = 200, description = "The event.", body = QueueEvent<'static>)),
)]
pub(super) async fn event(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
) -> Result<Json<QueueEvent<'static>>, Problem> {
    match state.store.event(id).await? {
        Some(event) => Ok(Json(event.into())),
        None => Err(Problem::not_found("no event with this id is kept")),
    }
}
