//! What somebody must see to: `/v1/incidents`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::incidents::{IncidentDeskError, UpdateReceipt};
use crate::record::{Incident, IncidentAction, IncidentStatus, LONGEST_NOTE, Priority};
use crate::volumes::IncidentQuery;

use super::access::Caller;
use super::problem::Problem;
use super::request::{Path, Query, Span, page_cursor, page_limit, whole_body};
use super::{ApiState, audit};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// What the desk refuses is the caller's to know; what failed behind it goes to the log.
impl From<IncidentDeskError> for Problem {
    fn from(error: IncidentDeskError) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "an incident cannot be served");
            return Problem::busy(
                "desk_unavailable",
                "the store or Kafka does not answer; the log of the daemon says why",
            );
        }
        Problem::new(status, error.code(), error.to_string())
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Those that stand so alone.
    status: Option<IncidentStatus>,
    /// Of this severity alone.
    severity: Option<Priority>,
    /// Of this queue alone.
    queue: Option<String>,
    /// Opened from here on, RFC 3339; 30 days before the end if absent.
    #[param(format = "date-time")]
    from: Option<String>,
    /// Opened before; now if absent. Give it when you turn pages.
    #[param(format = "date-time")]
    to: Option<String>,
    /// Incidents of one page; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of incidents, those opened last first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IncidentPage {
    incidents: Vec<Incident>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What may be said with a change.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IncidentNote {
    /// For people: why, or what was done. At most 4000 bytes.
    #[serde(default)]
    note: Option<String>,
}

/// List incidents
///
/// By the time at which they were opened, the newest first.
#[utoipa::path(
    get, path = "/v1/incidents", tag = "incidents", params(Parameters),
    responses((status = 200, description = "A page of incidents.", body = IncidentPage)),
)]
pub(super) async fn incidents(
    State(state): State<ApiState>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<IncidentPage>, Problem> {
    let span = Span::read(parameters.from.as_deref(), parameters.to.as_deref(), MONTH)?;
    let limit = page_limit(parameters.limit)?;
    let after = page_cursor(parameters.cursor.as_deref())?;
    let Parameters { status, severity, queue, .. } = parameters;
    let query = IncidentQuery { status, severity, queue, from: span.from, to: span.to, after, limit };
    let (incidents, next) = state.incidents.incidents(query).await?;
    Ok(Json(IncidentPage { incidents, next: next.map(|cursor| cursor.to_string()) }))
}

/// Show an incident
#[utoipa::path(
    get, path = "/v1/incidents/{id}", tag = "incidents",
    params(("id" = String, Path, format = "uuid", description = "The incident's id.")),
    responses((status = 200, description = "The incident.", body = Incident)),
)]
pub(super) async fn incident(State(state): State<ApiState>, Path(id): Path<Uuid>) -> Result<Json<Incident>, Problem> {
    Ok(Json(state.incidents.incident(id).await?))
}

/// Escalate an event by hand
///
/// The incident that it belongs to reaches its next step of escalation; an event that belongs to none opens one, of
/// severity high at least. The change is in Kafka when the answer comes, and applied soon after.
#[utoipa::path(
    post, path = "/v1/incidents/{id}", tag = "incidents", security(("key" = ["write"])),
    params(("id" = String, Path, format = "uuid", description = "The id of the event.")),
    request_body(content = Option<IncidentNote>),
    responses((status = 202, description = "It will be.", body = UpdateReceipt)),
)]
pub(super) async fn escalate(
    State(state): State<ApiState>,
    caller: Caller,
    Path(event_id): Path<Uuid>,
    body: Body,
) -> Result<(StatusCode, Json<UpdateReceipt>), Problem> {
    let note = read(&state, body).await?;
    let receipt = state.incidents.escalate(event_id, caller.actor(), note.as_deref()).await?;
    note_change(&state, &caller, "incident.escalated", &receipt, note.is_some()).await;
    Ok((StatusCode::ACCEPTED, Json(receipt)))
}

/// Acknowledge an incident
///
/// Somebody works on it: no further step of escalation follows by itself. The change is in Kafka when the answer comes, and
/// applied soon after.
#[utoipa::path(
    post, path = "/v1/incidents/{id}/acknowledge", tag = "incidents", security(("key" = ["write"])),
    params(("id" = String, Path, format = "uuid", description = "The incident's id.")),
    request_body(content = Option<IncidentNote>),
    responses((status = 202, description = "It will be.", body = UpdateReceipt)),
)]
pub(super) async fn acknowledge(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<Uuid>,
    body: Body,
) -> Result<(StatusCode, Json<UpdateReceipt>), Problem> {
    change(&state, &caller, id, IncidentAction::Acknowledge, body).await
}

/// Resolve an incident
///
/// What occurs later opens another one. The change is in Kafka when the answer comes, and applied soon after.
#[utoipa::path(
    post, path = "/v1/incidents/{id}/resolve", tag = "incidents", security(("key" = ["write"])),
    params(("id" = String, Path, format = "uuid", description = "The incident's id.")),
    request_body(content = Option<IncidentNote>),
    responses((status = 202, description = "It will be.", body = UpdateReceipt)),
)]
pub(super) async fn resolve(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<Uuid>,
    body: Body,
) -> Result<(StatusCode, Json<UpdateReceipt>), Problem> {
    change(&state, &caller, id, IncidentAction::Resolve, body).await
}

async fn change(
    state: &ApiState,
    caller: &Caller,
    id: Uuid,
    action: IncidentAction,
    body: Body,
) -> Result<(StatusCode, Json<UpdateReceipt>), Problem> {
    let note = read(state, body).await?;
    let receipt = state.incidents.update(id, action, caller.actor(), note.as_deref()).await?;
    let what = match action {
        IncidentAction::Acknowledge => "incident.acknowledged",
        IncidentAction::Resolve => "incident.resolved",
        IncidentAction::Escalate => "incident.escalated",
    };
    note_change(state, caller, what, &receipt, note.is_some()).await;
    Ok((StatusCode::ACCEPTED, Json(receipt)))
}

/// The note of a body, which may be empty.
async fn read(state: &ApiState, body: Body) -> Result<Option<String>, Problem> {
    let bytes = whole_body(body, state.settings.max_body, state.settings.request_timeout).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    // `null` is what an optional body may be as well.
    let said: Option<IncidentNote> =
        serde_json::from_slice(&bytes).map_err(|error| Problem::invalid("invalid_note", error.to_string()))?;
    let note = said.unwrap_or_default().note;
    match note.as_ref().is_some_and(|note| note.len() > LONGEST_NOTE) {
        true => Err(Problem::invalid("invalid_note", format!("`note` must have at most {LONGEST_NOTE} bytes"))),
        false => Ok(note),
    }
}

/// The update names who asked, so it stands also where this cannot be written.
async fn note_change(state: &ApiState, caller: &Caller, action: &str, receipt: &UpdateReceipt, has_note: bool) {
    let detail = json!({ "update_id": receipt.update_id, "note": has_note });
    let entry = caller.change(action, &receipt.incident_id.to_string(), &detail);
    audit::note(state, &entry).await;
}
