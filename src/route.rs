//! Where an event goes and how it is marked, for every role that publishes events: thresholds, the tables from
//! categories to queues and priorities, topics by queue, and the headers that a router reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::{DecideSettings, OutputSettings};
use crate::record::{Priority, QueueEvent, Routing};
use crate::stream::{Headers, TopicId, Topics};

const EVENT_TYPE: &str = "dev.triaged.queue-event.v1";
const ESCALATION_TYPE: &str = "dev.triaged.escalation.v1";

/// The tables and thresholds.
#[derive(Debug, Clone)]
pub struct Policy {
    auto_route: f32,
    human_verify: f32,
    fallback_queue: Arc<str>,
    default_priority: Priority,
    priorities: BTreeMap<String, Priority>,
    queues: BTreeMap<String, Arc<str>>,
}

impl Policy {
    pub fn new(settings: &DecideSettings) -> Self {
        Policy {
            auto_route: settings.auto_route,
            human_verify: settings.human_verify,
            fallback_queue: Arc::clone(&settings.fallback_queue),
            default_priority: settings.default_priority,
            priorities: settings.priorities.clone(),
            queues: settings.queues.clone(),
        }
    }

    /// How a confidence is routed; one that is no number is worth nothing. `auto_route` is the threshold of the model that
    /// was asked, if it was trained for a precision and brings its own.
    pub fn routing(&self, confidence: f32, auto_route: Option<f32>) -> Routing {
        if confidence >= auto_route.unwrap_or(self.auto_route) {
            Routing::AutoRoute
        } else if confidence >= self.human_verify {
            Routing::HumanVerify
        } else {
            Routing::ManualTriage
        }
    }

    /// The queue of what nobody can place.
    pub fn fallback_queue(&self) -> &str {
        &self.fallback_queue
    }

    /// The queue of a category; a category that is not in the table is its own queue.
    pub fn queue_of<'c>(&'c self, category: &'c str) -> &'c str {
        self.queues.get(category).map_or(category, |queue| queue)
    }

    /// The rule's priority; else the higher of what the category and the record itself say; else the default.
    pub fn priority(&self, rule: Option<Priority>, category: Option<&str>, stated: Option<Priority>) -> Priority {
        let of_category = category.and_then(|category| self.priorities.get(category).copied());
        rule.or(of_category.max(stated)).unwrap_or(self.default_priority)
    }
}

/// The topics of events, by queue.
#[derive(Debug, Clone)]
pub struct EventTopics {
    events: TopicId,
    by_queue: HashMap<String, TopicId>,
}

impl EventTopics {
    /// Adds what is needed to the role's topics.
    pub fn new(output: &OutputSettings, topics: &Topics) -> Self {
        EventTopics {
            events: topics.add(&output.events),
            by_queue: output.topics.iter().map(|(queue, topic)| (queue.clone(), topics.add(topic))).collect(),
        }
    }

    pub fn of(&self, queue: &str) -> TopicId {
        match self.by_queue.is_empty() {
            true => self.events,
            false => self.by_queue.get(queue).copied().unwrap_or(self.events),
        }
    }
}

/// Headers by which a router can choose without parsing the body, and the CloudEvents attributes (Kafka binding 1.0,
/// binary mode).
pub fn headers(event: &QueueEvent<'_>, escalated: bool) -> Headers {
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    Headers::with_capacity(10)
        .add("queue", &*event.queue)
        .add("priority", event.priority.as_str())
        .add("routing", event.routing.as_str())
        .add("content-type", "application/json")
        .add("ce_specversion", "1.0")
        .add("ce_type", if escalated { ESCALATION_TYPE } else { EVENT_TYPE })
        .add("ce_source", &*event.source.topic)
        .add("ce_id", event.event_id.hyphenated().encode_lower(&mut id).as_bytes())
        .add("ce_time", &*event.occurred_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_inclusive() {
        let policy = Policy {
            auto_route: 0.85,
            human_verify: 0.65,
            fallback_queue: Arc::from("triage"),
            default_priority: Priority::Low,
            priorities: [("Error".to_owned(), Priority::Medium)].into(),
            queues: BTreeMap::new(),
        };
        assert_eq!(policy.routing(0.85, None), Routing::AutoRoute);
        assert_eq!(policy.routing(0.849, None), Routing::HumanVerify);
        assert_eq!(policy.routing(0.65, None), Routing::HumanVerify);
        assert_eq!(policy.routing(0.649, None), Routing::ManualTriage);
        assert_eq!(policy.routing(f32::NAN, None), Routing::ManualTriage);
        assert_eq!(policy.routing(0.9, Some(0.95)), Routing::HumanVerify);
        assert_eq!(policy.priority(None, Some("Error"), Some(Priority::High)), Priority::High);
        assert_eq!(policy.priority(Some(Priority::Low), Some("Error"), Some(Priority::High)), Priority::Low);
        assert_eq!(policy.priority(None, Some("Other"), None), Priority::Low);
    }
}
