//! Judgements as labelled rows.
//!
//! A model's labels are categories, and people speak of queues. A queue that is a label itself, or that only one category
//! leads to, names its label; one that several lead to does so only when the category was given too, or the event's own was
//! right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::model::dataset::Example;
use crate::record::{Kind, LogLine, Record, Ticket};
use crate::volumes::Judgement;

/// A row that somebody has labelled.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    pub event_id: String,
    pub label: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub given_at: i64,
    pub record: Record<'static>,
}

impl Correction {
    pub fn into_example(self) -> Example {
        Example { id: self.event_id, label: self.label, record: self.record }
    }
}

/// Judgements that no model can learn from, by why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unusable {
    /// Neither the feedback nor the event has a text.
    pub without_text: usize,
    /// It was wrong, and nobody said what is right.
    pub without_queue: usize,
    /// Queues that stand for several categories, with how many judgements named no category.
    pub ambiguous: BTreeMap<String, usize>,
}

/// What there is to learn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Corrections {
    pub usable: Vec<Correction>,
    pub unusable: Unusable,
}

impl Corrections {
    /// Of one kind of record. `queues` leads from category to queue, `labels` are those of the base rows.
    pub fn of(
        judgements: &[Judgement],
        kind: Kind,
        queues: &BTreeMap<String, Arc<str>>,
        labels: &[String],
    ) -> Corrections {
        let mut found = Corrections::default();
        for judgement in judgements.iter().filter(|judgement| judgement.kind() == Some(kind)) {
            let Some(text) = judgement.text() else {
                found.unusable.without_text += 1;
                continue;
            };
            let Some(queue) = judgement.right_queue() else {
                found.unusable.without_queue += 1;
                continue;
            };
            match label_of(judgement, queue, queues, labels) {
                Some(label) => found.usable.push(Correction {
                    event_id: judgement.feedback.event_id.to_string(),
                    label,
                    given_at: judgement.feedback.given_at,
                    record: record(kind, text, judgement),
                }),
                None => *found.unusable.ambiguous.entry(queue.to_owned()).or_default() += 1,
            }
        }
        found
    }
}

fn label_of(
    judgement: &Judgement,
    queue: &str,
    queues: &BTreeMap<String, Arc<str>>,
    labels: &[String],
) -> Option<String> {
    if !judgement.feedback.category.is_empty() {
        return Some(judgement.feedback.category.clone());
    }
    if let Some(event) = judgement.event.as_ref().filter(|_| judgement.is_correct() == Some(true))
        && !event.category.is_empty()
    {
        return Some(event.category.clone());
    }
    let leads_there = |category: &&String| queues.get(*category).map_or(category.as_str(), |queue| queue) == queue;
    let categories: BTreeSet<&String> = labels.iter().chain(queues.keys()).filter(leads_there).collect();
    match categories.len() {
        // A queue that is new to the model becomes a label.
        0 => Some(queue.to_owned()),
        1 => categories.into_iter().next().cloned(),
        _ => None,
    }
}

fn record(kind: Kind, text: &str, judgement: &Judgement) -> Record<'static> {
    let event = judgement.event.as_ref();
    let origin = event.filter(|event| !event.origin.is_empty()).map(|event| event.origin.clone().into());
    let text = text.to_owned().into();
    match kind {
        Kind::Ticket => Record::Ticket(Ticket {
            ticket_id: None,
            text,
            title_len: 0,
            email_address: None,
            priority: None,
            source: origin,
            occurred_at: 0,
        }),
        Kind::Log => Record::Log(LogLine { text, source: origin, level: None, occurred_at: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Feedback, SourcePosition};
    use crate::volumes::FeedbackRow;

    fn judgement(rest: &str) -> Judgement {
        let text = format!("{{\"event_id\":\"00000000-0000-5000-8000-000000000000\",\"kind\":\"log\"{rest}}}");
        let feedback: Feedback<'_> = serde_json::from_str(&text).expect("feedback");
        let place = SourcePosition { topic: "feedback".into(), partition: 0, offset: 0 };
        Judgement { feedback: FeedbackRow::of(&feedback, &place, 7).expect("a row"), event: None }
    }

    fn corrections(rest: &str) -> Corrections {
        let queues = [("Error", "platform"), ("Critical Error", "platform"), ("Security Alert", "soc")];
        let queues = queues.into_iter().map(|(category, queue)| (category.to_owned(), Arc::from(queue))).collect();
        let labels = ["Error", "Critical Error", "Security Alert", "CTI"].map(str::to_owned);
        Corrections::of(&[judgement(rest)], Kind::Log, &queues, &labels)
    }

    fn label(rest: &str) -> Option<String> {
        corrections(rest).usable.pop().map(|correction| correction.label)
    }

    #[test]
    fn queues_are_led_back_to_labels() {
        let label = |rest: &str| label(&format!(",\"text\":\"a\"{rest}"));
        assert_eq!(label(",\"corrected_queue\":\"soc\"").as_deref(), Some("Security Alert"));
        assert_eq!(label(",\"corrected_queue\":\"CTI\"").as_deref(), Some("CTI"));
        assert_eq!(label(",\"corrected_queue\":\"brand-new\"").as_deref(), Some("brand-new"));
        assert_eq!(label(",\"corrected_queue\":\"platform\",\"category\":\"Error\"").as_deref(), Some("Error"));
        assert_eq!(label(",\"predicted_queue\":\"soc\",\"correct\":true").as_deref(), Some("Security Alert"));
        assert_eq!(label(",\"corrected_queue\":\"platform\""), None);
    }

    #[test]
    fn what_cannot_be_used_is_counted_by_why() {
        let why = |rest: &str| corrections(rest).unusable;
        assert_eq!(why(",\"corrected_queue\":\"soc\"").without_text, 1);
        assert_eq!(why(",\"text\":\"a\",\"correct\":false").without_queue, 1);
        assert_eq!(why(",\"text\":\"a\",\"corrected_queue\":\"platform\"").ambiguous["platform"], 1);
    }
}
