//! From what each tier says to the final event. Pure.

use std::borrow::Cow;

use crate::record::{Alternative, DecidedBy, Escalation, QueueEvent, Routing};
use crate::route::Policy;

/// What one tier says about a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Opinion<'a> {
    pub(super) label: Cow<'a, str>,
    /// Calibrated probability that the label is right.
    pub(super) confidence: f32,
    pub(super) decided_by: DecidedBy<'static>,
    /// Name and version of the model.
    pub(super) model: Cow<'a, str>,
    /// A person must look, whatever the confidence.
    pub(super) doubted: bool,
}

/// Whether an answer ends the climb.
pub(super) fn is_final(opinion: &Opinion<'_>, policy: &Policy) -> bool {
    !opinion.doubted && policy.routing(opinion.confidence, None) == Routing::AutoRoute
}

/// The event that stands at the end of an escalation.
///
/// The most confident tier decides; where two are equally sure the slower one does, as it knows more. What the other
/// tiers said is among the alternatives. A rule that escalated the record did so because the fast tiers' own answer is
/// not to be trusted, so that answer alone routes nothing by itself.
pub(super) fn final_event<'a>(
    escalation: Escalation<'a>,
    opinions: &'a [Opinion<'a>],
    policy: &'a Policy,
    decided_at: &'a str,
    keep_text: impl Fn(Routing) -> bool,
) -> QueueEvent<'a> {
    let Escalation { reason, rule_priority, stated_priority, mut event, .. } = escalation;
    let by_rule = reason.starts_with("rule:");
    let suspected = opinions.iter().any(|opinion| opinion.doubted);
    let sure_first = |a: &&Opinion<'_>, b: &&Opinion<'_>| a.confidence.total_cmp(&b.confidence);
    let best = opinions.iter().max_by(sure_first);
    let fast_stands = best.is_none_or(|best| event.confidence > best.confidence && !by_rule);
    let mut alternatives = std::mem::take(&mut event.alternatives);
    if fast_stands {
        alternatives.extend(opinions.iter().map(alternative));
    } else if let Some(best) = best {
        let others = opinions.iter().filter(|other| !std::ptr::eq(*other, best));
        let fast = event.category.take().map(|label| Alternative {
            label,
            probability: event.confidence,
            decided_by: tier_of(&event.decided_by).map(Cow::Borrowed),
        });
        // The fast model's further labels stay, and say that they are its own.
        let tier = tier_of(&event.decided_by);
        for further in &mut alternatives {
            further.decided_by = tier.map(Cow::Borrowed);
        }
        alternatives = others.map(alternative).chain(fast).chain(alternatives).collect();
        event.queue = match policy.queue_of(&best.label) {
            same if same == best.label => best.label.clone(),
            queue => Cow::Borrowed(queue),
        };
        event.priority = policy.priority(rule_priority, Some(&best.label), stated_priority);
        event.category = Some(best.label.clone());
        event.confidence = best.confidence;
        event.decided_by = Cow::Borrowed(best.decided_by.tier());
        event.model = Some(best.model.clone());
        event.reasons.clear();
    }
    event.alternatives = alternatives;
    event.routing = match policy.routing(event.confidence, None) {
        _ if by_rule && fast_stands => Routing::ManualTriage,
        Routing::AutoRoute if suspected || fast_stands => Routing::HumanVerify,
        routing => routing,
    };
    event.decided_at = Cow::Borrowed(decided_at);
    if !keep_text(event.routing) {
        event.text = None;
    }
    event
}

fn alternative<'a>(opinion: &'a Opinion<'a>) -> Alternative<'a> {
    Alternative {
        label: Cow::Borrowed(&opinion.label),
        probability: opinion.confidence,
        decided_by: Some(Cow::Borrowed(opinion.decided_by.tier())),
    }
}

/// The tiers that alternatives can name.
fn tier_of(decided_by: &str) -> Option<&'static str> {
    ["cache", "fast", "encoder", "llm"].into_iter().find(|tier| *tier == decided_by)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::DecideSettings;
    use crate::record::{Kind, Priority, SourcePosition};

    fn policy() -> Policy {
        Policy::new(&DecideSettings {
            auto_route: 0.85,
            human_verify: 0.65,
            fallback_queue: Arc::from("triage"),
            default_priority: Priority::Low,
            priorities: [("Error".to_owned(), Priority::High)].into(),
            queues: [("Error".to_owned(), Arc::from("platform"))].into(),
        })
    }

    fn escalation(reason: &'static str) -> Escalation<'static> {
        let source = SourcePosition { topic: "logs".into(), partition: 0, offset: 7 };
        Escalation {
            reason: reason.into(),
            email_address: None,
            level: None,
            title_len: 0,
            rule_priority: None,
            stated_priority: None,
            event: QueueEvent {
                event_id: source.event_id(),
                source,
                kind: Kind::Log,
                ticket_id: None,
                origin: None,
                occurred_at: "2026-01-01T00:00:00.000Z".into(),
                decided_at: "2026-01-01T00:00:00.000Z".into(),
                queue: "Noise".into(),
                category: Some("Noise".into()),
                priority: Priority::Low,
                confidence: 0.7,
                routing: Routing::HumanVerify,
                decided_by: "fast".into(),
                alternatives: vec![Alternative { label: "Other".into(), probability: 0.2, decided_by: None }],
                reasons: Vec::new(),
                tags: Vec::new(),
                indicators: Default::default(),
                model: Some("logs@1".into()),
                arm: None,
                shadow: None,
                config: None,
                template_id: None,
                text: Some("text".into()),
            },
        }
    }

    fn opinion(label: &'static str, confidence: f32, decided_by: DecidedBy<'static>) -> Opinion<'static> {
        Opinion { label: label.into(), confidence, decided_by, model: "m@1".into(), doubted: false }
    }

    fn decide<'a>(reason: &'static str, opinions: &'a [Opinion<'a>], policy: &'a Policy) -> QueueEvent<'a> {
        final_event(escalation(reason), opinions, policy, "2026-01-01T00:00:01.000Z", |routing| {
            routing != Routing::AutoRoute
        })
    }

    #[test]
    fn the_surest_tier_decides_and_the_others_are_named() {
        let policy = policy();
        let opinions = [opinion("Other", 0.6, DecidedBy::Encoder), opinion("Error", 0.9, DecidedBy::Llm)];
        let event = decide("low_confidence", &opinions, &policy);
        assert_eq!((&*event.queue, event.category.as_deref()), ("platform", Some("Error")));
        assert_eq!((event.priority, event.routing, &*event.decided_by), (Priority::High, Routing::AutoRoute, "llm"));
        assert_eq!((event.text.as_deref(), event.model.as_deref()), (None, Some("m@1")));
        let named: Vec<_> = event
            .alternatives
            .iter()
            .map(|other| (&*other.label, other.probability, other.decided_by.as_deref()))
            .collect();
        let expected = [("Other", 0.6, Some("encoder")), ("Noise", 0.7, Some("fast")), ("Other", 0.2, Some("fast"))];
        assert_eq!(named, expected);
    }

    #[test]
    fn what_the_fast_model_said_stands_when_nobody_is_surer() {
        let policy = policy();
        let opinions = [opinion("Error", 0.5, DecidedBy::Encoder)];
        let event = decide("low_confidence", &opinions, &policy);
        assert_eq!((&*event.queue, event.routing, &*event.decided_by), ("Noise", Routing::HumanVerify, "fast"));
        assert_eq!(event.alternatives[1].decided_by.as_deref(), Some("encoder"));
        assert_eq!(event.text.as_deref(), Some("text"));
        let event = decide("low_confidence", &[], &policy);
        assert_eq!((event.routing, event.confidence), (Routing::HumanVerify, 0.7));
    }

    #[test]
    fn what_a_rule_escalated_is_not_routed_by_the_fast_model() {
        let policy = policy();
        assert_eq!(decide("rule:legacy", &[], &policy).routing, Routing::ManualTriage);
        let opinions = [opinion("Error", 0.66, DecidedBy::Llm)];
        let event = decide("rule:legacy", &opinions, &policy);
        assert_eq!((&*event.queue, event.routing), ("platform", Routing::HumanVerify));
    }

    #[test]
    fn a_doubted_answer_is_never_routed_unseen() {
        let policy = policy();
        let doubted = Opinion { doubted: true, ..opinion("Error", 0.99, DecidedBy::Llm) };
        assert!(!is_final(&doubted, &policy));
        let opinions = [doubted];
        assert_eq!(decide("low_confidence", &opinions, &policy).routing, Routing::HumanVerify);
    }

    #[test]
    fn a_rules_priority_holds() {
        let policy = policy();
        let opinions = [opinion("Error", 0.9, DecidedBy::Encoder)];
        let mut low = escalation("low_confidence");
        low.rule_priority = Some(Priority::Low);
        let event = final_event(low, &opinions, &policy, "2026-01-01T00:00:01.000Z", |_| false);
        assert_eq!(event.priority, Priority::Low);
    }
}
