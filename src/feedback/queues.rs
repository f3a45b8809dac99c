//! The queues that a correction may name: those of the configuration, the rules and the models, and all that events were
//! ever routed to.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::model::{Manifest, PackageError};
use crate::reload::Live;
use crate::rules::RuleSet;
use crate::volumes::{StoreError, VolumeStore};

/// How long an answer of the store is believed, so that slips of the pen do not become queries.
const FRESH: Duration = Duration::from_secs(10);

/// Why the queues cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum QueuesError {
    #[error("the rules have faults; `triaged check` lists them")]
    Rules,
    #[error("the model {spec} cannot be loaded")]
    Model { spec: String, source: PackageError },
}

/// Names of queues.
#[derive(Debug)]
pub struct KnownQueues {
    configured: Live<BTreeSet<String>>,
    seen: Mutex<(Option<Instant>, BTreeSet<String>)>,
}

impl KnownQueues {
    /// Reads the rules and the labels of the models that the configuration names.
    pub fn load(config: &Config) -> Result<Self, QueuesError> {
        let rules = RuleSet::load(&config.rules.files).map_err(|_| QueuesError::Rules)?;
        let mut labels = Vec::new();
        for spec in [&config.model.ticket, &config.model.log].into_iter().flatten() {
            let manifest = Manifest::load_configured(spec, &config.model)
                .map_err(|source| QueuesError::Model { spec: spec.clone(), source })?;
            labels.extend(manifest.labels);
        }
        Ok(KnownQueues::new(config, &rules, labels.iter().map(String::as_str)))
    }

    /// Those of the configuration, of rules, and of the models with these labels.
    pub fn new<'l>(config: &Config, rules: &RuleSet, labels: impl Iterator<Item = &'l str>) -> Self {
        KnownQueues { configured: Live::new(configured(config, rules, labels)), seen: Mutex::default() }
    }

    /// The same for another configuration.
    pub fn renew<'l>(&self, config: &Config, rules: &RuleSet, labels: impl Iterator<Item = &'l str>) {
        self.configured.set(configured(config, rules, labels));
    }

    /// All of them, sorted.
    pub async fn list(&self, store: &VolumeStore) -> Result<Vec<String>, StoreError> {
        let seen = self.seen(store).await?;
        Ok(self.configured.get().union(&seen).cloned().collect())
    }

    pub async fn contains(&self, queue: &str, store: &VolumeStore) -> Result<bool, StoreError> {
        Ok(self.configured.get().contains(queue) || self.seen(store).await?.contains(queue))
    }

    async fn seen(&self, store: &VolumeStore) -> Result<BTreeSet<String>, StoreError> {
        {
            let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let (asked, seen) = &*known;
            if asked.is_some_and(|asked| asked.elapsed() < FRESH) {
                return Ok(seen.clone());
            }
        }
        let seen: BTreeSet<String> = store.queues().await?.into_iter().collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (Some(Instant::now()), seen.clone());
        Ok(seen)
    }
}

fn configured<'l>(config: &Config, rules: &RuleSet, labels: impl Iterator<Item = &'l str>) -> BTreeSet<String> {
    let decide = &config.decide;
    let queue_of = |category: &str| decide.queues.get(category).map_or(category, |queue| queue).to_owned();
    let mut configured = BTreeSet::from([decide.fallback_queue.to_string()]);
    configured.extend(decide.queues.values().map(|queue| queue.to_string()));
    configured.extend(config.output.topics.keys().cloned());
    for outcome in rules.rules().iter().map(|rule| &rule.outcome) {
        configured.extend(outcome.queue.clone().or_else(|| outcome.category.as_deref().map(queue_of)));
    }
    configured.extend(labels.map(queue_of));
    configured
}
