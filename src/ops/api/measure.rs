//! Counts requests by the pattern of their path, and how long they took.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::ApiState;

/// Middleware. The time ends where the answer begins: an upload's answer may go on for long.
pub(super) async fn measure(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    // A path that anybody could think of would make a label that grows without bound.
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    state.metrics.http_request(route, method.as_str(), response.status().as_u16(), started.elapsed());
    response
}
