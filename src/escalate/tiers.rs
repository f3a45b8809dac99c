//! The tiers of the role, as the configuration has them, shared by all its workers.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, Precision};
use crate::metrics::{LlmState, Metrics};
use crate::model::{Cpu, DeepModel, DeepModelError, Encoder, EncoderError, EncoderPrecision};
use crate::record::Kind;

use super::llm::{BuildError, Label, LabelError, LabelSet, LlmTier};

/// Why the role cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TiersError {
    #[error("the encoder {folder} cannot be loaded (escalate.encoder)")]
    Encoder { folder: String, source: EncoderError },
    #[error("the {kind} package {folder} cannot be loaded (escalate.{kind})")]
    Model { kind: Kind, folder: String, source: DeepModelError },
    #[error("the LLM cannot be asked about the labels of {kind} records")]
    Labels { kind: Kind, source: LabelError },
    #[error("the client of the LLM cannot be built (escalate.llm)")]
    Llm(#[source] BuildError),
}

/// Encoder and LLM; cloning shares them.
#[derive(Debug, Clone)]
pub struct Tiers {
    ticket: Option<Arc<DeepModel>>,
    log: Option<Arc<DeepModel>>,
    pub(super) llm: Option<Arc<LlmTier>>,
    llm_model: String,
    ticket_labels: Option<LabelSet>,
    log_labels: Option<LabelSet>,
}

impl Tiers {
    /// Loads everything that the configuration names. `labels` are those of the fast models, which an LLM may answer.
    pub fn load(config: &Config, labels: impl Fn(Kind) -> Vec<Arc<str>>) -> Result<Self, TiersError> {
        let settings = &config.escalate;
        let encoder = match &settings.encoder {
            None => None,
            Some(folder) => Some(Arc::new(load_encoder(folder, settings.precision)?)),
        };
        let model = |kind, folder: &Option<String>| match (&encoder, folder) {
            (Some(encoder), Some(folder)) => {
                DeepModel::load(Path::new(folder), Arc::clone(encoder), config.model.device)
                    .map(|model| Some(Arc::new(model)))
                    .map_err(|source| TiersError::Model { kind, folder: folder.clone(), source })
            }
            _ => Ok(None),
        };
        let llm = match settings.llm.enabled {
            true => Some(Arc::new(LlmTier::try_new(settings.llm.clone()).map_err(TiersError::Llm)?)),
            false => None,
        };
        Tiers {
            ticket: model(Kind::Ticket, &settings.ticket)?,
            log: model(Kind::Log, &settings.log)?,
            ticket_labels: None,
            log_labels: None,
            llm_model: settings.llm.model.clone(),
            llm,
        }
        .with_labels(labels)
    }

    /// The same tiers, budgets and caches for other fast models.
    pub fn with_labels(&self, labels: impl Fn(Kind) -> Vec<Arc<str>>) -> Result<Self, TiersError> {
        let label_set = |kind| match labels(kind) {
            names if names.is_empty() || self.llm.is_none() => Ok(None),
            names => LabelSet::try_new(names.into_iter().map(|name| Label::new(name, "")).collect())
                .map(Some)
                .map_err(|source| TiersError::Labels { kind, source }),
        };
        Ok(Tiers { ticket_labels: label_set(Kind::Ticket)?, log_labels: label_set(Kind::Log)?, ..self.clone() })
    }

    pub fn model(&self, kind: Kind) -> Option<&DeepModel> {
        match kind {
            Kind::Ticket => self.ticket.as_deref(),
            Kind::Log => self.log.as_deref(),
        }
    }

    /// The LLM with the labels that it may give to records of this kind.
    pub(super) fn llm(&self, kind: Kind) -> Option<(&LlmTier, &LabelSet)> {
        let labels = match kind {
            Kind::Ticket => self.ticket_labels.as_ref(),
            Kind::Log => self.log_labels.as_ref(),
        };
        Some((self.llm.as_deref()?, labels?))
    }

    /// Shows how the LLM is doing, if there is one.
    pub fn show(&self, metrics: &Metrics) {
        let Some(llm) = self.llm.clone() else { return };
        metrics.watch_llm(move || {
            let Some(status) = llm.status() else { return LlmState::default() };
            LlmState {
                breaker_open: status.breaker != "closed",
                pause_seconds: status.pause.as_secs_f64(),
                tokens: status.spent.tokens,
                cost: status.spent.cost,
                budget_used: status.budget_used,
            }
        });
    }

    pub(super) fn llm_model(&self) -> &str {
        &self.llm_model
    }
}

fn load_encoder(folder: &str, precision: Precision) -> Result<Encoder, TiersError> {
    let precision = match precision {
        Precision::Auto if Cpu::best().has_byte_products() => EncoderPrecision::Int8,
        Precision::Auto => EncoderPrecision::F32,
        Precision::F32 => EncoderPrecision::F32,
        Precision::Int8 => EncoderPrecision::Int8,
    };
    Encoder::load(Path::new(folder), precision)
        .map_err(|source| TiersError::Encoder { folder: folder.to_owned(), source })
}
