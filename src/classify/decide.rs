//! From what rules and model say to a verdict. Pure: tables and thresholds.

use std::sync::Arc;

use crate::config::DecideSettings;
use crate::record::{Arm, DecidedBy, Priority, Record, Routing};
use crate::route::Policy;
use crate::rules::RuleVerdict;

/// What the model says, or said about an earlier line of the same template.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Label numbers with their probabilities, best first; never empty.
    pub ranked: Box<[(u32, f32)]>,
}

impl Answer {
    /// The best label and its probability.
    pub fn best(&self) -> (u32, f32) {
        self.ranked[0]
    }
}

/// Where a record goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'c> {
    /// The verdict is final.
    Publish,
    /// A rule discards the record.
    Drop,
    /// A slower tier is asked if there is one; the reason is `low_confidence` or `rule:<id>`.
    Escalate(EscalationReason<'c>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscalationReason<'c> {
    LowConfidence,
    Rule(&'c str),
}

impl std::fmt::Display for EscalationReason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EscalationReason::LowConfidence => f.write_str("low_confidence"),
            EscalationReason::Rule(id) => write!(f, "rule:{id}"),
        }
    }
}

/// The decision on one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict<'c> {
    pub action: Action<'c>,
    pub queue: &'c str,
    pub category: Option<&'c str>,
    pub priority: Priority,
    /// What a rule says about the priority: it stays, whatever a slower tier says about the category.
    pub rule_priority: Option<Priority>,
    /// Calibrated probability that the queue is right; 1.0 for a rule, 0.0 when nobody could say anything.
    pub confidence: f32,
    pub routing: Routing,
    pub decided_by: DecidedBy<'c>,
    /// The other labels, best first.
    pub alternatives: Vec<(&'c str, f32)>,
    pub tags: Vec<&'c str>,
    pub model: Option<&'c str>,
    /// While a challenger is tried.
    pub arm: Option<Arm>,
    /// What the challenger says that decides nothing.
    pub shadow: Option<ShadowVerdict<'c>>,
    pub template_id: Option<u64>,
}

/// What would have been decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShadowVerdict<'c> {
    pub model: &'c str,
    pub queue: &'c str,
    pub confidence: f32,
    /// Whether it is the queue that the champion says; `None` where only a rule decided.
    pub agrees: Option<bool>,
}

/// The policy, and how much of an answer a verdict shows.
#[derive(Debug, Clone)]
pub struct Decider {
    policy: Policy,
    /// How many of the other labels a verdict lists.
    alternatives: usize,
}

/// The model's part of a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opinion<'c, 'a> {
    pub(super) answer: &'a Answer,
    pub(super) labels: &'c [Arc<str>],
    pub(super) model: &'c str,
    /// The model's own threshold, if it was trained for a precision.
    pub(super) auto_route: Option<f32>,
    pub(super) decided_by: DecidedBy<'c>,
}

impl Decider {
    pub fn new(settings: &DecideSettings, alternatives: usize) -> Self {
        Decider { policy: Policy::new(settings), alternatives }
    }

    /// How many labels of an answer are of use.
    pub(super) fn ranked_labels(&self) -> usize {
        self.alternatives + 1
    }

    /// How a confidence is routed, with the threshold of the model that was asked if it has one.
    pub fn routing(&self, confidence: f32, auto_route: Option<f32>) -> Routing {
        self.policy.routing(confidence, auto_route)
    }

    /// The queue that a label leads to.
    pub(super) fn queue_of<'c>(&'c self, label: &'c str) -> &'c str {
        self.policy.queue_of(label)
    }

    fn priority(&self, rule: Option<Priority>, category: Option<&str>, record: &Record<'_>) -> Priority {
        self.policy.priority(rule, category, record.stated_priority())
    }

    /// A rule names the queue, or the category that leads to it.
    pub(super) fn by_rule<'c>(&'c self, rule: RuleVerdict<'c>, id: &'c str, record: &Record<'_>) -> Verdict<'c> {
        let queue = rule.queue.or_else(|| rule.category.map(|category| self.policy.queue_of(category)));
        Verdict {
            action: if rule.drop { Action::Drop } else { Action::Publish },
            queue: queue.unwrap_or(self.policy.fallback_queue()),
            category: rule.category,
            priority: self.priority(rule.priority, rule.category, record),
            rule_priority: rule.priority,
            confidence: 1.0,
            routing: Routing::AutoRoute,
            decided_by: DecidedBy::Rule(id),
            alternatives: Vec::new(),
            tags: rule.tags,
            model: None,
            arm: None,
            shadow: None,
            template_id: None,
        }
    }

    /// The model decides what the rules have left open. Without a model nobody does.
    pub(super) fn by_model<'c>(
        &'c self,
        rule: RuleVerdict<'c>,
        opinion: Option<Opinion<'c, '_>>,
        template_id: Option<u64>,
        record: &Record<'_>,
    ) -> Verdict<'c> {
        let (label, confidence) = opinion.map_or((None, 0.0), |opinion| {
            let (best, confidence) = opinion.answer.best();
            (Some(&*opinion.labels[best as usize]), confidence)
        });
        let escalating_rule = rule.decided_by.filter(|_| rule.escalate);
        let routing = match escalating_rule {
            Some(_) => Routing::ManualTriage,
            None => self.routing(confidence, opinion.and_then(|opinion| opinion.auto_route)),
        };
        let action = match (escalating_rule, routing) {
            (Some(id), _) => Action::Escalate(EscalationReason::Rule(id)),
            (None, Routing::AutoRoute) => Action::Publish,
            (None, _) => Action::Escalate(EscalationReason::LowConfidence),
        };
        let alternatives = opinion.map_or_else(Vec::new, |opinion| {
            let others = opinion.answer.ranked.iter().skip(1).take(self.alternatives);
            others.map(|&(label, probability)| (&*opinion.labels[label as usize], probability)).collect()
        });
        Verdict {
            action,
            queue: label.map_or(self.policy.fallback_queue(), |label| self.policy.queue_of(label)),
            category: label,
            priority: self.priority(rule.priority, label, record),
            rule_priority: rule.priority,
            confidence,
            routing,
            decided_by: match (escalating_rule, opinion) {
                (_, Some(opinion)) => opinion.decided_by,
                (Some(id), None) => DecidedBy::Rule(id),
                (None, None) => DecidedBy::Nobody,
            },
            alternatives,
            tags: rule.tags,
            model: opinion.map(|opinion| opinion.model),
            arm: None,
            shadow: None,
            template_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LogLine;

    fn decider() -> Decider {
        let settings = DecideSettings {
            auto_route: 0.85,
            human_verify: 0.65,
            fallback_queue: Arc::from("triage"),
            default_priority: Priority::Low,
            priorities: [("Error".to_owned(), Priority::Medium)].into(),
            queues: [("Error".to_owned(), Arc::from("platform"))].into(),
        };
        Decider::new(&settings, 1)
    }

    fn line() -> Record<'static> {
        Record::Log(LogLine { text: "x".into(), source: None, level: None, occurred_at: 0 })
    }

    fn opinion<'a>(answer: &'a Answer, labels: &'a [Arc<str>]) -> Opinion<'a, 'a> {
        Opinion { answer, labels, model: "logs@1", auto_route: None, decided_by: DecidedBy::Fast }
    }

    #[test]
    fn the_model_fills_in_what_a_partial_rule_leaves_open() {
        let (decider, labels) = (decider(), [Arc::from("Error"), Arc::from("Other")]);
        let answer = Answer { ranked: Box::new([(0, 0.9), (1, 0.1)]) };
        let rule = RuleVerdict { priority: Some(Priority::Critical), tags: vec!["t"], ..RuleVerdict::default() };
        let verdict = decider.by_model(rule, Some(opinion(&answer, &labels)), None, &line());
        assert_eq!((verdict.queue, verdict.category), ("platform", Some("Error")));
        assert_eq!((verdict.priority, verdict.routing), (Priority::Critical, Routing::AutoRoute));
        assert_eq!((verdict.alternatives, verdict.tags), (vec![("Other", 0.1)], vec!["t"]));
    }

    #[test]
    fn a_rule_can_escalate_what_the_model_is_sure_of() {
        let (decider, labels) = (decider(), [Arc::from("Error")]);
        let answer = Answer { ranked: Box::new([(0, 1.0)]) };
        let rule = RuleVerdict { decided_by: Some("legacy"), escalate: true, ..RuleVerdict::default() };
        let verdict = decider.by_model(rule, Some(opinion(&answer, &labels)), None, &line());
        assert_eq!(verdict.action, Action::Escalate(EscalationReason::Rule("legacy")));
        assert_eq!(verdict.routing, Routing::ManualTriage);
    }

    #[test]
    fn without_a_model_a_person_decides() {
        let decider = decider();
        let verdict = decider.by_model(RuleVerdict::default(), None, None, &line());
        assert_eq!((verdict.queue, verdict.confidence, verdict.routing), ("triage", 0.0, Routing::ManualTriage));
    }
}
