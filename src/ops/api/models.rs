//! What decides: `GET /v1/models`.

use axum::extract::State;
use axum::response::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::FastModel;
use crate::record::Kind;

use super::ApiState;

/// The models that run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Models {
    models: Vec<Model>,
}

/// A model, with what its package says about itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Model {
    /// Name and version.
    id: String,
    /// The records that it decides on.
    kind: Kind,
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
/// One for each kind of record, where there is one, with the figures that training measured on rows it had held back.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "The models.", body = Models)),
)]
pub(super) async fn models(State(state): State<ApiState>) -> Json<Models> {
    let models = state.workers.desk().classifier().models();
    Json(Models { models: Kind::ALL.into_iter().filter_map(|kind| models.of(kind)).map(describe).collect() })
}

fn describe(model: &FastModel) -> Model {
    let manifest = model.manifest();
    let (data, metrics) = (manifest.data.clone(), manifest.metrics.clone());
    Model {
        id: model.id().to_owned(),
        kind: model.kind(),
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
