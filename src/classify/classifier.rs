//! The decision on one decoded record, the same for the stream, the command line and whoever else asks.
//!
//! Everything shared is immutable or a concurrent cache, so one `Classifier` serves all threads; each thread brings its
//! own `Scratch`.

use std::sync::Arc;

use crate::config::{ChallengerMode, Config};
use crate::finding::{Finding, chain};
use crate::model::{FastModel, PackageError};
use crate::record::{Arm, DecidedBy, Kind, Reason, Record, Routing};
use crate::rules::{self, Prefilter, RuleFault, RuleSet};

use super::arms::{Contest, Tier};
use super::cache::TemplateCache;
use super::decide::{Action, Answer, Decider, Opinion, ShadowVerdict, Verdict};
use super::template::{Masker, template_id};

/// Why a classifier cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ClassifierError {
    #[error("the rules have faults:{}", list(.0))]
    Rules(Vec<RuleFault>),
    #[error("models cannot be loaded:{}", list(.0))]
    Models(Vec<ModelFault>),
}

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the {kind} model {spec} ({setting}.{kind}): {}", chain(.source))]
pub struct ModelFault {
    /// `model` or `model.challenger`.
    pub setting: &'static str,
    pub kind: Kind,
    pub spec: String,
    pub source: ModelError,
}

/// Why it cannot.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("it is for {0} records")]
    Kind(Kind),
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl From<&ModelFault> for Finding {
    fn from(fault: &ModelFault) -> Self {
        Finding::of_model(fault.setting, fault.kind, &fault.spec, &fault.source)
    }
}

fn list(faults: &[impl std::fmt::Display]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// The fast model of each kind of record, where there is one, and the challenger that is tried beside it.
#[derive(Debug, Clone, Default)]
pub struct Models {
    pub ticket: Option<Arc<FastModel>>,
    pub log: Option<Arc<FastModel>>,
    pub ticket_challenger: Option<Arc<FastModel>>,
    pub log_challenger: Option<Arc<FastModel>>,
}

impl Models {
    /// # Errors
    /// Every model that cannot be loaded, with the setting that names it.
    pub fn load(config: &Config) -> Result<Self, Vec<ModelFault>> {
        let settings = &config.model;
        let challenger = &settings.challenger;
        let mut faults = Vec::new();
        let mut load = |setting, kind, spec: &Option<String>| {
            let spec = spec.as_ref()?;
            let loaded = match FastModel::load_configured(spec, settings) {
                Ok(model) if model.kind() == kind => return Some(Arc::new(model)),
                Ok(model) => ModelError::Kind(model.kind()),
                Err(error) => ModelError::Package(error),
            };
            faults.push(ModelFault { setting, kind, spec: spec.clone(), source: loaded });
            None
        };
        let models = Models {
            ticket: load("model", Kind::Ticket, &settings.ticket),
            log: load("model", Kind::Log, &settings.log),
            ticket_challenger: load("model.challenger", Kind::Ticket, &challenger.ticket),
            log_challenger: load("model.challenger", Kind::Log, &challenger.log),
        };
        if faults.is_empty() { Ok(models) } else { Err(faults) }
    }

    pub fn of(&self, kind: Kind) -> Option<&FastModel> {
        match kind {
            Kind::Ticket => self.ticket.as_deref(),
            Kind::Log => self.log.as_deref(),
        }
    }

    pub fn challenger_of(&self, kind: Kind) -> Option<&FastModel> {
        match kind {
            Kind::Ticket => self.ticket_challenger.as_deref(),
            Kind::Log => self.log_challenger.as_deref(),
        }
    }

    /// All of them, with the arm that they are.
    pub fn all(&self) -> impl Iterator<Item = (Kind, Arm, &FastModel)> {
        let champion = |kind| self.of(kind).map(|model| (kind, Arm::Champion, model));
        let challenger = |kind| self.challenger_of(kind).map(|model| (kind, Arm::Challenger, model));
        Kind::ALL.into_iter().flat_map(move |kind| [champion(kind), challenger(kind)]).flatten()
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
    /// By kind and arm: each remembers the words of its model.
    models: [[crate::model::Scratch; Arm::ALL.len()]; Kind::ALL.len()],
    masked: String,
    /// By arm: what the shadow looks up must not change when the champion is looked at again.
    hits: [u64; Arm::ALL.len()],
    /// Since the last time somebody took them.
    pub cache_counts: CacheCounts,
}

/// Rules, cache, models and tables.
#[derive(Debug)]
pub struct Classifier {
    prefilter: Prefilter,
    masker: Masker,
    models: Models,
    /// By kind.
    tiers: [Option<Tier>; Kind::ALL.len()],
    contests: [Option<Contest>; Kind::ALL.len()],
    decider: Decider,
}

impl Classifier {
    /// Loads everything that the configuration names.
    pub fn load(config: &Config) -> Result<Self, ClassifierError> {
        let rules = RuleSet::load(&config.rules.files).map_err(ClassifierError::Rules)?;
        Ok(Classifier::new(config, rules, Models::load(config).map_err(ClassifierError::Models)?))
    }

    pub fn new(config: &Config, rules: RuleSet, models: Models) -> Self {
        let cache = &config.cache;
        let tier = |kind: Kind, model: &Arc<FastModel>| Tier {
            model: Arc::clone(model),
            // Tickets are too different from one another.
            cache: (kind == Kind::Log && cache.capacity > 0)
                .then(|| TemplateCache::new(cache.capacity, cache.recheck_share)),
        };
        let champions = [(Kind::Ticket, &models.ticket), (Kind::Log, &models.log)];
        let challengers = [(Kind::Ticket, &models.ticket_challenger), (Kind::Log, &models.log_challenger)];
        let contest = |(kind, model): (Kind, &Option<Arc<FastModel>>)| {
            model.as_ref().map(|model| Contest::new(tier(kind, model), &config.model.challenger))
        };
        Classifier {
            prefilter: Prefilter::new(rules),
            masker: Masker::new(&cache.masks),
            tiers: champions.map(|(kind, model)| model.as_ref().map(|model| tier(kind, model))),
            contests: challengers.map(contest),
            decider: Decider::new(&config.decide, config.output.alternatives),
            models,
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

    /// The other tiers, for what the rules have said. While a challenger is tried, `key` says whose record it is.
    pub(super) fn decide<'c>(
        &'c self,
        record: &Record<'_>,
        rule: rules::RuleVerdict<'c>,
        key: &[u8],
        scratch: &mut Scratch,
    ) -> Verdict<'c> {
        let kind = record.kind();
        let Some(contest) = &self.contests[kind as usize] else {
            return self.decide_by(self.tiers[kind as usize].as_ref(), Arm::Champion, record, rule, scratch);
        };
        let arm = contest.arm_of(key);
        let tier = match arm {
            Arm::Champion => self.tiers[kind as usize].as_ref(),
            Arm::Challenger => Some(&contest.challenger),
        };
        let mut verdict = self.decide_by(tier, arm, record, rule, scratch);
        verdict.arm = Some(arm);
        if contest.mode == ChallengerMode::Shadow && verdict.action != Action::Drop {
            verdict.shadow = Some(self.ask_shadow(&contest.challenger, &verdict, record, scratch));
        }
        verdict
    }

    fn decide_by<'c>(
        &'c self,
        tier: Option<&'c Tier>,
        arm: Arm,
        record: &Record<'_>,
        rule: rules::RuleVerdict<'c>,
        scratch: &mut Scratch,
    ) -> Verdict<'c> {
        if let Some(id) = rule.decided_by.filter(|_| !rule.escalate) {
            return self.decider.by_rule(rule, id, record);
        }
        let Some(tier) = tier else {
            return self.decider.by_model(rule, None, None, record);
        };
        let template = self.template(tier, record, scratch);
        let (answer, decided_by) = self.answer(tier, arm, template, record, scratch);
        let opinion = Opinion {
            answer: &answer,
            labels: tier.model.labels(),
            model: tier.model.id(),
            auto_route: tier.model.auto_route(),
            decided_by,
        };
        self.decider.by_model(rule, Some(opinion), template, record)
    }

    /// What the challenger says; nothing of the verdict follows from it.
    fn ask_shadow<'c>(
        &'c self,
        challenger: &'c Tier,
        verdict: &Verdict<'c>,
        record: &Record<'_>,
        scratch: &mut Scratch,
    ) -> ShadowVerdict<'c> {
        let template = verdict.template_id.or_else(|| self.template(challenger, record, scratch));
        let counts = scratch.cache_counts;
        let (answer, _) = self.answer(challenger, Arm::Challenger, template, record, scratch);
        // The metrics of the cache speak of decisions.
        scratch.cache_counts = counts;
        let (label, confidence) = answer.best();
        let queue = self.decider.queue_of(&challenger.model.labels()[label as usize]);
        let by_model = verdict.model.is_some();
        let agrees = verdict.category.filter(|_| by_model).map(|category| self.decider.queue_of(category) == queue);
        ShadowVerdict { model: challenger.model.id(), queue, confidence, agrees }
    }

    /// The template of a log line, where answers are remembered by it.
    fn template(&self, tier: &Tier, record: &Record<'_>, scratch: &mut Scratch) -> Option<u64> {
        let Record::Log(line) = record else { return None };
        tier.cache.as_ref()?;
        self.masker.mask_into(&line.text, &mut scratch.masked);
        Some(template_id(&scratch.masked, line.source.as_deref()))
    }

    /// What a model says, or said about an earlier line of the same template.
    fn answer(
        &self,
        tier: &Tier,
        arm: Arm,
        template: Option<u64>,
        record: &Record<'_>,
        scratch: &mut Scratch,
    ) -> (Arc<Answer>, DecidedBy<'static>) {
        let (Some(cache), Some(template)) = (&tier.cache, template) else {
            return (Arc::new(self.ask(&tier.model, arm, record, scratch)), DecidedBy::Fast);
        };
        if let Some(cached) = cache.get(template) {
            return (self.recheck(tier, cache, arm, template, cached, record, scratch), DecidedBy::Cache);
        }
        scratch.cache_counts.misses += 1;
        let answer = Arc::new(self.ask(&tier.model, arm, record, scratch));
        // What the model is not sure of for one line, it may see otherwise in the next of its template.
        if self.is_sure(&tier.model, &answer) {
            cache.insert(template, Arc::clone(&answer));
        }
        (answer, DecidedBy::Fast)
    }

    /// Rules and all other tiers.
    pub fn classify<'c>(&'c self, record: &Record<'_>, key: &[u8], scratch: &mut Scratch) -> Verdict<'c> {
        let rule = self.apply_rules(record, scratch);
        self.decide(record, rule, key, scratch)
    }

    /// The `limit` features that moved the decided label's score most, when a model decided. Takes as long as many
    /// decisions.
    pub fn explain(&self, record: &Record<'_>, verdict: &Verdict<'_>, limit: usize) -> Vec<Reason<'static>> {
        let asked = limit > 0 && matches!(verdict.decided_by, DecidedBy::Fast | DecidedBy::Cache);
        let model = match verdict.arm {
            Some(Arm::Challenger) => self.models.challenger_of(record.kind()),
            _ => self.models.of(record.kind()),
        };
        let label = |model: &FastModel| model.labels().binary_search_by(|label| Some(&**label).cmp(&verdict.category));
        let Some((model, label)) = model.filter(|_| asked).and_then(|model| Some((model, label(model).ok()?))) else {
            return Vec::new();
        };
        let mut reasons = model.explain(record, label, limit);
        reasons.iter_mut().for_each(|reason| reason.weight = rounded(reason.weight));
        reasons
    }

    /// A hit, and for some of them another look at what was cached.
    #[allow(clippy::too_many_arguments)]
    fn recheck(
        &self,
        tier: &Tier,
        cache: &TemplateCache,
        arm: Arm,
        template: u64,
        cached: Arc<Answer>,
        record: &Record<'_>,
        scratch: &mut Scratch,
    ) -> Arc<Answer> {
        let model = &*tier.model;
        scratch.hits[arm as usize] += 1;
        scratch.cache_counts.hits += 1;
        if !cache.is_due(scratch.hits[arm as usize]) {
            return cached;
        }
        let fresh = Arc::new(self.ask(model, arm, record, scratch));
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

    fn ask(&self, model: &FastModel, arm: Arm, record: &Record<'_>, scratch: &mut Scratch) -> Answer {
        let scratch = &mut scratch.models[record.kind() as usize][arm as usize];
        let prediction = model.classify(record, scratch);
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
