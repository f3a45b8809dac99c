//! The decision on one decoded record, the same for the stream, the command line and whoever else asks.
//!
//! Everything shared is immutable or a concurrent cache, so one `Classifier` serves all threads; each thread brings its
//! own `Scratch`.

use std::sync::Arc;

use crate::config::Config;
use crate::model::{FastModel, PackageError};
use crate::record::{DecidedBy, Kind, Reason, Record, Routing};
use crate::rules::{self, Prefilter, RuleFault, RuleSet};

use super::cache::TemplateCache;
use super::decide::{Answer, Decider, Opinion, Verdict};
use super::template::{Masker, template_id};

/// Why a classifier cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ClassifierError {
    #[error("the rules have faults:{}", list(.0))]
    Rules(Vec<RuleFault>),
    #[error("the {kind} model {spec} cannot be loaded")]
    Model { kind: Kind, spec: String, source: PackageError },
}

fn list(faults: &[RuleFault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// The fast model of each kind of record, where there is one.
#[derive(Debug, Clone, Default)]
pub struct Models {
    pub ticket: Option<Arc<FastModel>>,
    pub log: Option<Arc<FastModel>>,
}

impl Models {
    pub fn load(config: &Config) -> Result<Self, ClassifierError> {
        let load = |kind, spec: &Option<String>| match spec {
            None => Ok(None),
            Some(spec) => FastModel::load_configured(spec, &config.model)
                .map(|model| Some(Arc::new(model)))
                .map_err(|source| ClassifierError::Model { kind, spec: spec.clone(), source }),
        };
        Ok(Models { ticket: load(Kind::Ticket, &config.model.ticket)?, log: load(Kind::Log, &config.model.log)? })
    }

    pub fn of(&self, kind: Kind) -> Option<&FastModel> {
        match kind {
            Kind::Ticket => self.ticket.as_deref(),
            Kind::Log => self.log.as_deref(),
        }
    }
}

/// What the cache was asked, and what it answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    pub hits: u64,
    pub misses: u64,
    pub recheck_agree: u64,
    pub recheck_disagree: u64,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub struct Scratch {
    rules: rules::Scratch,
    model: crate::model::Scratch,
    masked: String,
    hits: u64,
    /// Since the last time somebody took them.
    pub cache_counts: CacheCounts,
}

/// Rules, cache, models and tables.
#[derive(Debug)]
pub struct Classifier {
    prefilter: Prefilter,
    masker: Masker,
    cache: Option<TemplateCache>,
    models: Models,
    decider: Decider,
}

impl Classifier {
    /// Loads everything that the configuration names.
    pub fn load(config: &Config) -> Result<Self, ClassifierError> {
        let rules = RuleSet::load(&config.rules.files).map_err(ClassifierError::Rules)?;
        Ok(Classifier::new(config, rules, Models::load(config)?))
    }

    pub fn new(config: &Config, rules: RuleSet, models: Models) -> Self {
        let cache = &config.cache;
        Classifier {
            prefilter: Prefilter::new(rules),
            masker: Masker::new(&cache.masks),
            cache: (cache.capacity > 0).then(|| TemplateCache::new(cache.capacity, cache.recheck_share)),
            models,
            decider: Decider::new(&config.decide, config.output.alternatives),
        }
    }

    pub fn rules(&self) -> &RuleSet {
        self.prefilter.rules()
    }

    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The first tier. A decisive rule ends the climb here.
    pub(super) fn apply_rules<'c>(&'c self, record: &Record<'_>, scratch: &mut Scratch) -> rules::RuleVerdict<'c> {
        self.prefilter.apply(record.kind(), record.source(), record.text(), &mut scratch.rules)
    }

    /// The other tiers, for what the rules have said.
    pub(super) fn decide<'c>(
        &'c self,
        record: &Record<'_>,
        rule: rules::RuleVerdict<'c>,
        scratch: &mut Scratch,
    ) -> Verdict<'c> {
        if let Some(id) = rule.decided_by.filter(|_| !rule.escalate) {
            return self.decider.by_rule(rule, id, record);
        }
        let Some(model) = self.models.of(record.kind()) else {
            return self.decider.by_model(rule, None, None, record);
        };
        let opinion = |answer, decided_by| Opinion {
            answer,
            labels: model.labels(),
            model: model.id(),
            auto_route: model.auto_route(),
            decided_by,
        };
        let (Record::Log(line), Some(cache)) = (record, &self.cache) else {
            let answer = self.ask(model, record, scratch);
            return self.decider.by_model(rule, Some(opinion(&answer, DecidedBy::Fast)), None, record);
        };
        self.masker.mask_into(&line.text, &mut scratch.masked);
        let template = template_id(&scratch.masked, line.source.as_deref());
        let (answer, decided_by) = match cache.get(template) {
            Some(cached) => (self.recheck(cache, template, cached, model, record, scratch), DecidedBy::Cache),
            None => {
                scratch.cache_counts.misses += 1;
                let answer = Arc::new(self.ask(model, record, scratch));
                // What the model is not sure of for one line, it may see otherwise in the next of its template.
                if self.is_sure(model, &answer) {
                    cache.insert(template, Arc::clone(&answer));
                }
                (answer, DecidedBy::Fast)
            }
        };
        self.decider.by_model(rule, Some(opinion(&answer, decided_by)), Some(template), record)
    }

    /// Rules and all other tiers.
    pub fn classify<'c>(&'c self, record: &Record<'_>, scratch: &mut Scratch) -> Verdict<'c> {
        let rule = self.apply_rules(record, scratch);
        self.decide(record, rule, scratch)
    }

    /// The `limit` features that moved the decided label's score most, when a model decided. Takes as long as many
    /// decisions.
    pub fn explain(&self, record: &Record<'_>, verdict: &Verdict<'_>, limit: usize) -> Vec<Reason<'static>> {
        let asked = limit > 0 && matches!(verdict.decided_by, DecidedBy::Fast | DecidedBy::Cache);
        let model = self.models.of(record.kind()).filter(|_| asked);
        let label = |model: &FastModel| model.labels().binary_search_by(|label| Some(&**label).cmp(&verdict.category));
        let Some((model, label)) = model.and_then(|model| Some((model, label(model).ok()?))) else {
            return Vec::new();
        };
        let mut reasons = model.explain(record, label, limit);
        reasons.iter_mut().for_each(|reason| reason.weight = rounded(reason.weight));
        reasons
    }

    /// A hit, and for some of them another look at what was cached.
    fn recheck(
        &self,
        cache: &TemplateCache,
        template: u64,
        cached: Arc<Answer>,
        model: &FastModel,
        record: &Record<'_>,
        scratch: &mut Scratch,
    ) -> Arc<Answer> {
        scratch.hits += 1;
        scratch.cache_counts.hits += 1;
        if !cache.is_due(scratch.hits) {
            return cached;
        }
        let fresh = Arc::new(self.ask(model, record, scratch));
        let routing = |answer: &Answer| self.decider.routing(answer.best().1, model.auto_route());
        if fresh.best().0 == cached.best().0 && routing(&fresh) == routing(&cached) {
            scratch.cache_counts.recheck_agree += 1;
            return cached;
        }
        scratch.cache_counts.recheck_disagree += 1;
        match self.is_sure(model, &fresh) {
            true => cache.insert(template, Arc::clone(&fresh)),
            false => cache.remove(template),
        }
        fresh
    }

    fn is_sure(&self, model: &FastModel, answer: &Answer) -> bool {
        self.decider.routing(answer.best().1, model.auto_route()) == Routing::AutoRoute
    }

    fn ask(&self, model: &FastModel, record: &Record<'_>, scratch: &mut Scratch) -> Answer {
        let prediction = model.classify(record, &mut scratch.model);
        let probabilities = prediction.probabilities.iter().enumerate();
        let mut ranked: Vec<(u32, f32)> = probabilities.map(|(label, &p)| (label as u32, rounded(p))).collect();
        // The decided label leads, also where calibration puts another label's probability above it.
        let decided = prediction.label as u32;
        let best_first = |a: &(u32, f32), b: &(u32, f32)| {
            (b.0 == decided).cmp(&(a.0 == decided)).then(b.1.total_cmp(&a.1)).then(a.0.cmp(&b.0))
        };
        let keep = self.decider.ranked_labels().min(ranked.len());
        ranked.select_nth_unstable_by(keep - 1, best_first);
        ranked.truncate(keep);
        ranked.sort_unstable_by(best_first);
        Answer { ranked: ranked.into() }
    }
}

/// Four decimals are more than calibration can vouch for, and what is compared with a threshold is what is shown.
fn rounded(probability: f32) -> f32 {
    (probability * 1e4).round() / 1e4
}
