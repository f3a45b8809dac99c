//! What each path answers.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::supervisor::Shutdown;

use super::headers;

const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
pub(super) struct OpsState {
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    /// Requested when the roles drain: from then on the process is not ready.
    pub(super) draining: Shutdown,
}

pub(super) fn router(state: OpsState) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .layer(middleware::from_fn(headers::add))
        .with_state(state)
}

#[derive(Serialize)]
struct Liveness {
    status: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct ReadinessAnswer {
    /// ready, not_ready or draining.
    status: &'static str,
    roles: Vec<RoleAnswer>,
}

#[derive(Serialize)]
struct RoleAnswer {
    role: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Refusal {
    error: &'static str,
}

/// The process answers, so it lives; whether it can work is readiness.
async fn live() -> Response {
    json(StatusCode::OK, &Liveness { status: "live", version: env!("CARGO_PKG_VERSION") })
}

async fn ready(State(state): State<OpsState>) -> Response {
    let roles = state
        .readiness
        .snapshot()
        .into_iter()
        .map(|(role, reason)| RoleAnswer { role, ready: reason.is_none(), reason })
        .collect();
    let (code, status) = match (state.draining.is_requested(), state.readiness.all_ready()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    json(code, &ReadinessAnswer { status, roles })
}

async fn metrics(State(state): State<OpsState>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], state.metrics.encode()).into_response()
}

async fn not_found() -> Response {
    json(StatusCode::NOT_FOUND, &Refusal { error: "no such path; try /health/live, /health/ready or /metrics" })
}

fn json(code: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("plain data becomes JSON");
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
