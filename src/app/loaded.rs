//! What is made of one configuration and can be exchanged while the daemon runs: rules and models, checked, and the version
//! that events name them by.

use std::path::PathBuf;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::classify::{Classifier, Models};
use crate::config::Config;
use crate::escalate::Tiers;
use crate::finding::{Finding, chain};
use crate::model::files_of;
use crate::record::Kind;
use crate::reload::Scope;
use crate::rules::RuleSet;

use super::Role;

/// A configuration with what it names, all of it loaded and right.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    /// Equal where settings that decide, rules and models are, on whatever instance.
    pub(super) version: Arc<str>,
    /// For the roles classify and escalate and the API, who share it.
    pub(super) classifier: Option<Arc<Classifier>>,
    /// For the role escalate.
    pub(super) tiers: Option<Tiers>,
}

impl Loaded {
    /// Loads what these roles need.
    ///
    /// # Errors
    /// Every fault.
    pub(super) fn new(config: Config, roles: &[Role]) -> Result<Self, Vec<Finding>> {
        // Without escalations there is nothing to do, and the role stays out.
        let escalates = roles.contains(&Role::Escalate) && config.output.escalate;
        if !roles.contains(&Role::Classify) && !escalates && config.api.listen.is_none() {
            return Ok(Loaded { config, version: Arc::from(""), classifier: None, tiers: None });
        }
        let classifier = Arc::new(classifier(&config, None)?);
        let tiers = match escalates {
            true => Some(Tiers::load(&config, labels(&classifier)).map_err(|error| vec![of_tiers(&error)])?),
            false => None,
        };
        Ok(Loaded { version: version(&config, &classifier), config, classifier: Some(classifier), tiers })
    }

    /// Loads the same for another configuration. Where nothing that decides has changed, everything stays, and so does
    /// what the cache remembers.
    ///
    /// # Errors
    /// Every fault.
    pub(super) fn again(&self, config: Config, scope: Scope) -> Result<Self, Vec<Finding>> {
        let Some(running) = &self.classifier else {
            return Ok(Loaded { config, version: Arc::clone(&self.version), classifier: None, tiers: None });
        };
        let rules = (scope == Scope::Models).then(|| running.rules().clone());
        let fresh = Arc::new(classifier(&config, rules)?);
        let fresh_version = version(&config, &fresh);
        if fresh_version == self.version {
            let classifier = Some(Arc::clone(running));
            return Ok(Loaded { config, version: fresh_version, classifier, tiers: self.tiers.clone() });
        }
        let tiers = match &self.tiers {
            Some(tiers) => Some(tiers.with_labels(labels(&fresh)).map_err(|error| vec![of_tiers(&error)])?),
            None => None,
        };
        Ok(Loaded { config, version: fresh_version, classifier: Some(fresh), tiers })
    }

    /// Version of the rules; empty where there are none.
    pub(super) fn rules_version(&self) -> &str {
        self.classifier.as_ref().map_or("", |classifier| classifier.rules().version())
    }

    /// Names and versions of the models.
    pub(super) fn model_ids(&self) -> Vec<String> {
        let models = self.classifier.iter().flat_map(|classifier| classifier.models().all());
        models.map(|(_, _, model)| model.id().to_owned()).collect()
    }
}

/// The files, beside the configuration's own, that a change of is a change of the configuration.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    let rules = config.rules.files.iter().filter(|name| !name.starts_with("builtin:")).map(PathBuf::from);
    let model = &config.model;
    let specs = [&model.ticket, &model.log, &model.challenger.ticket, &model.challenger.log];
    let models = specs.into_iter().flatten().flat_map(|spec| files_of(spec, model.registry.as_deref()));
    rules.chain(models).collect()
}

fn classifier(config: &Config, kept: Option<RuleSet>) -> Result<Classifier, Vec<Finding>> {
    let rules = match kept {
        Some(rules) => Ok(rules),
        None => RuleSet::load(&config.rules.files).and_then(|rules| match rules.check_examples() {
            faults if faults.is_empty() => Ok(rules),
            faults => Err(faults),
        }),
    };
    match (rules, Models::load(config)) {
        (Ok(rules), Ok(models)) => Ok(Classifier::new(config, rules, models)),
        (rules, models) => {
            let of_rules = rules.err().unwrap_or_default();
            let of_models = models.err().unwrap_or_default();
            Err(of_rules.iter().map(Finding::from).chain(of_models.iter().map(Finding::from)).collect())
        }
    }
}

/// An LLM may give the labels of the fast models.
fn labels(classifier: &Classifier) -> impl Fn(Kind) -> Vec<Arc<str>> {
    |kind| classifier.models().of(kind).map_or_else(Vec::new, |model| model.labels().to_vec())
}

fn of_tiers(error: &dyn std::error::Error) -> Finding {
    Finding { part: "models", ..Finding::of_config(chain(error)) }
}

fn version(config: &Config, classifier: &Classifier) -> Arc<str> {
    let mut hash = Xxh3::new();
    hash.update(&config.decisive_hash().to_le_bytes());
    hash.update(classifier.rules().version().as_bytes());
    for (kind, arm, model) in classifier.models().all() {
        hash.update(format!("{kind} {} {}\n", arm.as_str(), model.id()).as_bytes());
    }
    // As many digits as the versions of models have.
    format!("{:08x}", hash.digest() >> 32).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Loaded, Vec<Finding>> {
        Loaded::new(Config::from_toml(text).expect("a configuration"), &[Role::Classify])
    }

    #[test]
    fn the_version_follows_what_decides_and_nothing_else() {
        let version = |text: &str| load(text).expect("it loads").version.to_string();
        let usual = version("");
        assert_eq!(usual.len(), 8);
        assert_eq!(usual, version("[kafka]\ninstance = \"other\"\n[stream]\nworkers = 3"));
        for other in [
            "[decide]\nauto_route = 0.9",
            "[rules]\nfiles = [\"builtin:keywords\"]",
            "[model]\nlog = \"\"",
            "[model.challenger]\nlog = \"builtin:logs\"",
        ] {
            assert_ne!(usual, version(other), "{other}");
        }
    }

    #[test]
    fn what_has_not_changed_is_kept_with_its_cache() {
        let loaded = load("").expect("it loads");
        let again = |text: &str| {
            let config = Config::from_toml(text).expect("a configuration");
            loaded.again(config, Scope::Everything).expect("it loads")
        };
        let classifier = |loaded: &Loaded| Arc::as_ptr(loaded.classifier.as_ref().expect("there is one"));
        assert_eq!(classifier(&again("[drift]\nwindow = 300")), classifier(&loaded));
        assert_ne!(classifier(&again("[decide]\nauto_route = 0.9")), classifier(&loaded));
    }

    #[test]
    fn faults_of_rules_and_models_come_together() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rules = folder.path().join("rules.toml");
        let rule = "[[rule]]\nid = 'a'\ndescription = 'd'\nany = ['word']\nqueue = 'q'\nmatch = ['other']\n";
        std::fs::write(&rules, rule).expect("written");
        let text = format!(
            "[rules]\nfiles = [{rules:?}]\n[model]\nticket = \"builtin:logs\"\nlog = \"{}\"\n",
            folder.path().join("none").display()
        );
        let parts: Vec<&str> = load(&text).expect_err("three faults").iter().map(|fault| fault.part).collect();
        assert_eq!(parts, ["rules", "models", "models"]);
    }
}
