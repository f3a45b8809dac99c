//! `POST /v1/reload`: read the configuration, rules and models again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::json;

use crate::reload::{ReloadError, Reloaded, Scope};

use super::ApiState;
use super::access::Caller;
use super::audit::note;
use super::problem::Problem;

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Refused(faults) => {
                let detail = "the new configuration is refused, and what ran goes on; `faults` lists all that is wrong";
                Problem::faulty("faulty_configuration", detail, faults)
            }
            ReloadError::Stopping => {
                Problem::new(StatusCode::CONFLICT, "not_reloading", "the daemon takes up no changes: it is stopping")
            }
        }
    }
}

/// Take up the configuration of now
///
/// Reads the configuration, rule files and models again and exchanges them as a whole, or refuses them with all faults. What
/// cannot change while the daemon runs is listed. Needs the role admin.
#[utoipa::path(
    post, path = "/v1/reload", tag = "configuration", security(("key" = ["admin"])),
    responses((status = 200, description = "What runs now.", body = Reloaded)),
)]
pub(super) async fn reload(State(state): State<ApiState>, caller: Caller) -> Result<Json<Reloaded>, Problem> {
    let result = state.reload.reload(Scope::Everything).await;
    match &result {
        Ok(reloaded) => {
            let detail = json!({"previous_version": reloaded.previous_version, "rules": reloaded.rules,
                "models": reloaded.models, "restart_required": reloaded.restart_required});
            note(&state, &caller.change("configuration.reloaded", &reloaded.version, &detail)).await;
        }
        Err(ReloadError::Refused(faults)) => {
            let running = state.workers.serving();
            let detail = json!({ "faults": faults.len() });
            note(&state, &caller.change("configuration.refused", running.desk().version(), &detail)).await;
        }
        Err(ReloadError::Stopping) => {}
    }
    Ok(Json(result?))
}
