//! What decides: `GET /v1/models`; and which version does: `POST /v1/models/{name}/promote` and `/rollback`.
//!
//! A version is put into use in three steps: it is loaded to see whether it is whole, the registry is told, and the models
//! are reloaded. When the last one fails the registry is told back, so that what it says and what runs are the same.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::arms::{self, ArmReport};
use crate::config::DeviceKind;
use crate::model::{FastModel, PackageError, Registry, RegistryError, Version};
use crate::record::{Arm, Kind};
use crate::reload::Scope;

use super::ApiState;
use super::access::Caller;
use super::audit::note;
use super::problem::Problem;
use super::request::{Path, whole_body};

/// How far back events and feedback are compared.
const COMPARED: Duration = Duration::from_secs(30 * 86_400);
/// A version's number needs few.
const MOST_BODY: usize = 4096;

/// The models that run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Models {
    models: Vec<Model>,
    /// Champion and challenger of each kind on the stream, in the last 30 days; absent while the store does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    comparisons: Option<Vec<ArmReport>>,
    /// Trained versions; absent without a registry, or while it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<Vec<Version>>,
}

/// A model, with what its package says about itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Model {
    /// Name and version.
    id: String,
    /// The records that it decides on.
    kind: Kind,
    arm: Arm,
    labels: Vec<String>,
    /// Labels with so few rows that nothing reliable can be said about them.
    small_labels: Vec<String>,
    data: Data,
    held_out: HeldOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    thresholds: Option<Thresholds>,
}

/// What it learned from.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Data {
    name: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    licence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    rows: usize,
    /// Without duplicates.
    rows_used: usize,
}

/// Figures on rows that it did not see.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HeldOut {
    /// How the rows were kept unseen.
    method: String,
    rows: usize,
    accuracy: f64,
    macro_f1: f64,
    /// Expected calibration error.
    ece: f64,
}

/// Confidence that reached a precision on rows that it did not see.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Thresholds {
    target_precision: f32,
    auto_route: f32,
}

/// The models that run
///
/// Champion and challenger of each kind of record, where there is one, with the figures that training measured on rows it
/// had held back; how the two compare on the stream; and the versions that were trained.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "The models.", body = Models)),
)]
pub(super) async fn models(State(state): State<ApiState>) -> Result<Json<Models>, Problem> {
    let serving = state.workers.serving();
    let to = Utc::now().timestamp_millis() + 1;
    let compared = arms::compare(&state.store, to - COMPARED.as_millis() as i64, to, serving.pairs()).await;
    let comparisons = compared.inspect_err(|error| tracing::warn!(%error, "the arms cannot be compared")).ok();
    let registry = match serving.registry().cloned() {
        None => None,
        Some(folder) => {
            let read = blocking(move || versions(&Registry::new(&folder))).await?;
            read.inspect_err(|error| tracing::warn!(error = crate::finding::chain(error), "the registry is not shown"))
                .ok()
        }
    };
    let running = serving.desk().classifier().models().all();
    let models = running.map(|(_, arm, model)| describe(arm, model)).collect();
    Ok(Json(Models { models, comparisons, registry }))
}

fn versions(registry: &Registry) -> Result<Vec<Version>, RegistryError> {
    let mut versions = Vec::new();
    for name in registry.names()? {
        versions.extend(registry.versions(&name)?);
    }
    Ok(versions)
}

/// Which version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Promotion {
    /// Such as `0003`.
    version: String,
}

/// What the registry says now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Promoted {
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_version: Option<String>,
    /// The kinds of records that it decides on here from now on; none when this configuration does not follow the name.
    decides: Vec<Kind>,
    /// Version of the configuration that runs now.
    config: String,
}

/// Put a version into use
///
/// The next record is decided by it. Other instances take it up when they see that the registry has changed
/// (`reload.watch`). Needs the role admin.
#[utoipa::path(
    post, path = "/v1/models/{name}/promote", tag = "models", security(("key" = ["admin"])),
    params(("name" = String, Path, description = "The model's name in the registry.")),
    request_body(content = Promotion),
    responses((status = 200, description = "It is in use.", body = Promoted)),
)]
pub(super) async fn promote(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Promoted>, Problem> {
    let bytes = whole_body(body, MOST_BODY, state.settings.request_timeout).await?;
    let Promotion { version } = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::invalid("invalid_json", format!("the body is no promotion: {error}")))?;
    change(&state, &caller, name, Some(version)).await
}

/// Go back to the version that was in use before
///
/// As with a promotion. Needs the role admin.
#[utoipa::path(
    post, path = "/v1/models/{name}/rollback", tag = "models", security(("key" = ["admin"])),
    params(("name" = String, Path, description = "The model's name in the registry.")),
    responses((status = 200, description = "It is in use again.", body = Promoted)),
)]
pub(super) async fn rollback(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Promoted>, Problem> {
    change(&state, &caller, name, None).await
}

/// Puts a version, or the one before, into use: the registry and what runs, or neither.
async fn change(
    state: &ApiState,
    caller: &Caller,
    name: String,
    version: Option<String>,
) -> Result<Json<Promoted>, Problem> {
    let _one_at_a_time = state.promoting.lock().await;
    let serving = state.workers.serving();
    let folder = serving.registry().ok_or_else(|| {
        Problem::invalid("no_registry", "model.registry is empty: there are no versions to choose from")
    })?;
    let registry = Registry::new(folder);
    let action = if version.is_some() { "model.promoted" } else { "model.rolled_back" };
    let champion_of = serving.uses_of(&name).filter(|(_, arm)| *arm == Arm::Champion).map(|(kind, _)| kind);
    let decides: Vec<Kind> = champion_of.collect();
    let (changing, of, kinds) = (registry.clone(), name.clone(), decides.clone());
    let (before, version) = blocking(move || {
        let before = changing.history(&of)?;
        let target = match &version {
            Some(version) => version.clone(),
            None => before.get(1).cloned().ok_or_else(|| RegistryError::NothingBefore(of.clone()))?,
        };
        whole(&changing.whole_folder(&of, &target)?, &kinds)?;
        match version {
            Some(version) => changing.promote(&of, &version)?,
            None => drop(changing.rollback(&of)?),
        }
        Ok::<_, Problem>((before, target))
    })
    .await??;
    let reloaded = match state.reload.reload(Scope::Models).await {
        Ok(reloaded) => reloaded,
        Err(error) => {
            let of = name.clone();
            blocking(move || registry.restore(&of, &before)).await??;
            return Err(error.into());
        }
    };
    let previous_version = before.first().cloned();
    let detail = json!({"version": version, "previous_version": previous_version, "config": reloaded.version});
    note(state, &caller.change(action, &name, &detail)).await;
    tracing::info!(name, version, config = reloaded.version, "{action}");
    Ok(Json(Promoted { name, version, previous_version, decides, config: reloaded.version }))
}

/// A version that cannot be loaded, or is for other records, is not put into use, whoever follows the name.
fn whole(folder: &std::path::Path, kinds: &[Kind]) -> Result<(), Problem> {
    let unusable = |detail: String| Problem::invalid("unusable_model", detail);
    let model = FastModel::load(&folder.to_string_lossy(), DeviceKind::Flex)
        .map_err(|error: PackageError| unusable(crate::finding::chain(&error)))?;
    match kinds.iter().find(|kind| **kind != model.kind()) {
        Some(kind) => {
            Err(unusable(format!("it is for {} records, and its name decides on {kind} records", model.kind())))
        }
        None => Ok(()),
    }
}

/// What is missing is the caller's to know; what cannot be read goes to the log.
impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Name(_) => Problem::invalid("invalid_parameter", error.to_string()),
            RegistryError::UnknownVersion { .. } | RegistryError::NothingPromoted(_) => {
                Problem::not_found(error.to_string())
            }
            RegistryError::NothingBefore(_) => Problem::new(StatusCode::CONFLICT, "nothing_before", error.to_string()),
            RegistryError::NoRegistry(_) | RegistryError::Full(_) => Problem::invalid("no_registry", error.to_string()),
            RegistryError::Read { .. } | RegistryError::Write { .. } => {
                tracing::error!(error = crate::finding::chain(&error), "the registry of models failed");
                Problem::busy("registry_unavailable", "the registry cannot be read or written; the log says why")
            }
        }
    }
}

/// Files are read and models loaded where nobody waits for them.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a change of the models could not be worked through");
        Problem::internal()
    })
}

fn describe(arm: Arm, model: &FastModel) -> Model {
    let manifest = model.manifest();
    let (data, metrics) = (manifest.data.clone(), manifest.metrics.clone());
    Model {
        id: model.id().to_owned(),
        kind: model.kind(),
        arm,
        labels: manifest.labels.clone(),
        small_labels: manifest.small_labels.clone(),
        data: Data {
            name: data.name,
            sha256: data.sha256,
            licence: data.licence,
            origin: data.origin,
            rows: data.rows,
            rows_used: data.rows_used,
        },
        held_out: HeldOut {
            method: metrics.method,
            rows: metrics.rows,
            accuracy: metrics.accuracy,
            macro_f1: metrics.macro_f1,
            ece: metrics.ece,
        },
        thresholds: manifest.thresholds.map(|thresholds| Thresholds {
            target_precision: thresholds.target_precision,
            auto_route: thresholds.auto_route,
        }),
    }
}
