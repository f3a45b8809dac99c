//! All that decides what becomes of a record, as one value: a worker takes it once for a batch, so each record is decided
//! by one configuration from the first byte to the event, and the event names it.

use std::sync::Arc;

use crate::config::Config;
use crate::decode::Decoder;

use super::classifier::Classifier;
use super::stage::Destinations;

/// One configuration of the role.
#[derive(Debug)]
pub struct Generation {
    /// What events name it by.
    pub(super) version: Arc<str>,
    pub(super) classifier: Arc<Classifier>,
    /// In the order of the engine's inputs.
    pub(super) decoders: Box<[Decoder]>,
    pub(super) destinations: Destinations,
}

impl Generation {
    pub fn new(config: &Config, version: Arc<str>, classifier: Arc<Classifier>, destinations: Destinations) -> Self {
        let decoders = config.inputs.iter().map(|input| Decoder::new(&input.decode)).collect();
        Generation { version, classifier, decoders, destinations }
    }

    pub fn version(&self) -> &str {
        &self.version
    }
}
