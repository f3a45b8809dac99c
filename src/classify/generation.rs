//! All that decides what becomes of a record, as one value: a worker takes it once for a batch, so each record is decided
//! by one configuration from the first byte to the event, and the event names it.

use std::sync::Arc;

use crate::config::{Config, IncludeText};
use crate::decode::Decoder;
use crate::route::EventTopics;
use crate::stream::{TopicId, Topics};

use super::classifier::Classifier;

/// Where the role's outputs go.
#[derive(Debug, Clone)]
pub struct Destinations {
    pub(super) events: EventTopics,
    /// `None`: nobody is there to escalate to.
    pub(super) escalations: Option<TopicId>,
    pub(super) include_text: IncludeText,
    pub(super) indicators: bool,
    /// Reasons that an event lists.
    pub(super) explain: usize,
}

impl Destinations {
    /// Adds what is needed to the role's topics.
    pub fn new(config: &Config, topics: &Topics) -> Self {
        let output = &config.output;
        Destinations {
            events: EventTopics::new(output, topics),
            escalations: output.escalate.then(|| topics.add(&output.escalations)),
            include_text: output.include_text,
            indicators: output.indicators,
            explain: output.explain,
        }
    }
}

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
