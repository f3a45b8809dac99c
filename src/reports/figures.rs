//! The figures of a report: pure sums over what the store answered.

use std::collections::BTreeMap;

use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use crate::record::{Routing, rfc3339};
use crate::volumes::{CONFIDENCE_BINS, ConfidenceCount, Judgement};

use super::proportion::Proportion;
use super::{DetailFilter, USUAL_DETAIL};

/// Confusions that are listed; the rest are seldom.
const MOST_CONFUSIONS: usize = 30;

/// Everything that a report says.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// RFC 3339, here and below.
    pub from: String,
    /// No longer included.
    pub to: String,
    pub made_at: String,
    pub confidence: ConfidenceAnalysis,
    pub feedback: FeedbackAnalysis,
    pub queues: Vec<QueuePerformance>,
    pub detail: Vec<Detail>,
}

/// How sure the decisions were.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ConfidenceAnalysis {
    pub events: u64,
    pub mean: Option<f64>,
    pub by_routing: Vec<Named>,
    pub by_tier: Vec<Named>,
    /// Twentieths of the range from 0 to 1.
    pub bins: Vec<ConfidenceBin>,
    pub queues: Vec<QueueConfidence>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Named {
    pub name: String,
    pub events: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ConfidenceBin {
    pub lower: f64,
    pub upper: f64,
    pub events: u64,
    /// Of those that were judged: a calibrated confidence of 0.8 is right in eight of ten.
    pub right: Proportion,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct QueueConfidence {
    pub queue: String,
    pub events: u64,
    pub mean: f64,
    /// Not routed by themselves.
    pub unsure: u64,
}

/// What people said.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FeedbackAnalysis {
    pub judged: u64,
    pub right: Proportion,
    /// Feedback from which nobody can tell whether the queue was right: the event is gone.
    pub unknown: u64,
    pub by_day: Vec<DayOfFeedback>,
    pub by_reviewer: Vec<Judged>,
    /// 1 to 5.
    pub by_difficulty: Vec<Judged>,
    /// Most frequent first.
    pub confusions: Vec<Confusion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DayOfFeedback {
    /// `2026-01-31`, UTC.
    pub day: String,
    pub right: u64,
    pub wrong: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Judged {
    pub name: String,
    pub right: Proportion,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Confusion {
    pub predicted: String,
    pub right: String,
    pub events: u64,
}

/// A queue, by the events that were judged.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct QueuePerformance {
    pub queue: String,
    /// Of the events that were routed to it, those that belong there.
    pub precision: Proportion,
    /// Of the events that belong there, those that were routed to it.
    pub recall: Proportion,
}

/// One judgement. No text: a report may be passed on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Detail {
    pub event_id: String,
    pub given_at: String,
    pub given_by: String,
    pub kind: Option<String>,
    pub predicted_queue: Option<String>,
    pub right_queue: Option<String>,
    pub correct: Option<bool>,
    pub confidence: Option<f32>,
    pub decided_by: Option<String>,
    pub difficulty: Option<u8>,
}

/// `from` and `to` in milliseconds since 1970-01-01 UTC; judgements newest first.
pub(super) fn figures(
    (from, to): (i64, i64),
    counts: &[ConfidenceCount],
    judgements: &[Judgement],
    filter: &DetailFilter,
) -> Report {
    Report {
        from: rfc3339(from),
        to: rfc3339(to),
        made_at: rfc3339(Utc::now().timestamp_millis()),
        confidence: confidence(counts, judgements),
        feedback: feedback(judgements),
        queues: queues(judgements),
        detail: detail(judgements, filter),
    }
}

/// Right ones and all.
type Tally = (u64, u64);

fn count(tally: &mut Tally, is_right: bool) {
    tally.0 += u64::from(is_right);
    tally.1 += 1;
}

fn proportion((right, of): Tally) -> Proportion {
    Proportion::new(right, of)
}

fn confidence(counts: &[ConfidenceCount], judgements: &[Judgement]) -> ConfidenceAnalysis {
    let mut bins = vec![(0u64, Tally::default()); usize::from(CONFIDENCE_BINS)];
    let mut by_routing: BTreeMap<&str, u64> = BTreeMap::new();
    let mut by_tier: BTreeMap<&str, u64> = BTreeMap::new();
    let mut queues: BTreeMap<&str, (u64, f64, u64)> = BTreeMap::new();
    for ConfidenceCount { queue, tier, routing, bin, events, sum } in counts {
        let routing = Routing::ALL.get(usize::try_from(routing - 1).unwrap_or(usize::MAX)).copied();
        bins[usize::from(*bin).min(usize::from(CONFIDENCE_BINS) - 1)].0 += events;
        *by_routing.entry(routing.map_or("unknown", Routing::as_str)).or_default() += events;
        *by_tier.entry(tier).or_default() += events;
        let of_queue = queues.entry(queue).or_default();
        of_queue.0 += events;
        of_queue.1 += sum;
        of_queue.2 += if routing == Some(Routing::AutoRoute) { 0 } else { *events };
    }
    for judgement in judgements {
        if let (Some(event), Some(is_right)) = (&judgement.event, judgement.is_correct()) {
            let bin = (event.confidence.clamp(0.0, 1.0) * f32::from(CONFIDENCE_BINS)) as usize;
            count(&mut bins[bin.min(usize::from(CONFIDENCE_BINS) - 1)].1, is_right);
        }
    }
    let events: u64 = counts.iter().map(|count| count.events).sum();
    let sum: f64 = counts.iter().map(|count| count.sum).sum();
    let named = |names: BTreeMap<&str, u64>| {
        names.into_iter().map(|(name, events)| Named { name: name.to_owned(), events }).collect()
    };
    let width = 1.0 / f64::from(CONFIDENCE_BINS);
    ConfidenceAnalysis {
        events,
        mean: (events > 0).then(|| sum / events as f64),
        by_routing: named(by_routing),
        by_tier: named(by_tier),
        bins: bins
            .into_iter()
            .enumerate()
            .map(|(place, (events, right))| ConfidenceBin {
                lower: place as f64 * width,
                upper: (place + 1) as f64 * width,
                events,
                right: proportion(right),
            })
            .collect(),
        queues: queues
            .into_iter()
            .map(|(queue, (events, sum, unsure))| QueueConfidence {
                queue: queue.to_owned(),
                events,
                mean: sum / events.max(1) as f64,
                unsure,
            })
            .collect(),
    }
}

fn feedback(judgements: &[Judgement]) -> FeedbackAnalysis {
    let mut all = Tally::default();
    let mut by_day: BTreeMap<String, Tally> = BTreeMap::new();
    let mut by_reviewer: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut by_difficulty: BTreeMap<u8, Tally> = BTreeMap::new();
    let mut confusions: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for judgement in judgements {
        let Some(is_right) = judgement.is_correct() else { continue };
        let said = &judgement.feedback;
        count(&mut all, is_right);
        let mut day = rfc3339(said.given_at);
        day.truncate("2026-01-31".len());
        count(by_day.entry(day).or_default(), is_right);
        count(by_reviewer.entry(&said.given_by).or_default(), is_right);
        if said.difficulty > 0 {
            count(by_difficulty.entry(said.difficulty).or_default(), is_right);
        }
        if let (false, Some(predicted), Some(right)) = (is_right, judgement.predicted(), judgement.right_queue()) {
            *confusions.entry((predicted, right)).or_default() += 1;
        }
    }
    let mut confusions: Vec<Confusion> = confusions
        .into_iter()
        .map(|((predicted, right), events)| Confusion {
            predicted: predicted.to_owned(),
            right: right.to_owned(),
            events,
        })
        .collect();
    confusions.sort_by_key(|confusion| std::cmp::Reverse(confusion.events));
    confusions.truncate(MOST_CONFUSIONS);
    let judged = |name: String, tally: Tally| Judged { name, right: proportion(tally) };
    FeedbackAnalysis {
        judged: judgements.len() as u64,
        right: proportion(all),
        unknown: judgements.len() as u64 - all.1,
        by_day: by_day.into_iter().map(|(day, (right, of))| DayOfFeedback { day, right, wrong: of - right }).collect(),
        by_reviewer: by_reviewer.into_iter().map(|(name, tally)| judged(name.to_owned(), tally)).collect(),
        by_difficulty: by_difficulty.into_iter().map(|(level, tally)| judged(level.to_string(), tally)).collect(),
        confusions,
    }
}

fn queues(judgements: &[Judgement]) -> Vec<QueuePerformance> {
    let mut queues: BTreeMap<&str, (Tally, Tally)> = BTreeMap::new();
    for judgement in judgements {
        let Some(is_right) = judgement.is_correct() else { continue };
        if let Some(predicted) = judgement.predicted() {
            count(&mut queues.entry(predicted).or_default().0, is_right);
        }
        if let Some(right) = judgement.right_queue() {
            count(&mut queues.entry(right).or_default().1, is_right);
        }
    }
    queues
        .into_iter()
        .map(|(queue, (precision, recall))| QueuePerformance {
            queue: queue.to_owned(),
            precision: proportion(precision),
            recall: proportion(recall),
        })
        .collect()
}

fn detail(judgements: &[Judgement], filter: &DetailFilter) -> Vec<Detail> {
    let wanted = |judgement: &&Judgement| {
        let is_of_queue = |queue: &str| judgement.predicted() == Some(queue) || judgement.right_queue() == Some(queue);
        filter.queue.as_deref().is_none_or(is_of_queue)
            && filter.given_by.as_ref().is_none_or(|name| *name == judgement.feedback.given_by)
            && filter.correct.is_none_or(|correct| judgement.is_correct() == Some(correct))
    };
    judgements
        .iter()
        .filter(wanted)
        .take(filter.limit.unwrap_or(USUAL_DETAIL))
        .map(|judgement| {
            let (said, event) = (&judgement.feedback, judgement.event.as_ref());
            Detail {
                event_id: said.event_id.to_string(),
                given_at: rfc3339(said.given_at),
                given_by: said.given_by.clone(),
                kind: judgement.kind().map(|kind| kind.to_string()),
                predicted_queue: judgement.predicted().map(str::to_owned),
                right_queue: judgement.right_queue().map(str::to_owned),
                correct: judgement.is_correct(),
                confidence: event.map(|event| event.confidence),
                decided_by: event.map(|event| event.decided_by.clone()),
                difficulty: Some(said.difficulty).filter(|difficulty| *difficulty > 0),
            }
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{Feedback, SourcePosition};
    use crate::volumes::FeedbackRow;

    /// A judgement without an event.
    pub(in super::super) fn judgement(predicted: &str, right: &str, given_by: &str) -> Judgement {
        let feedback = Feedback {
            feedback_id: None,
            event_id: uuid::Uuid::nil(),
            source: None,
            kind: None,
            given_at: None,
            given_by: Some(given_by.into()),
            predicted_queue: Some(predicted.into()),
            corrected_queue: Some(right.into()),
            category: None,
            correct: None,
            notes: None,
            keywords: Vec::new(),
            difficulty: Some(2),
            text: None,
        };
        let place = SourcePosition { topic: "feedback".into(), partition: 0, offset: 0 };
        Judgement { feedback: FeedbackRow::of(&feedback, &place, 86_400_000).expect("a row"), event: None }
    }

    #[test]
    fn precision_and_recall_follow_from_the_judgements() {
        let judgements = [
            judgement("a", "a", "ada"),
            judgement("a", "a", "ada"),
            judgement("a", "b", "bob"),
            judgement("b", "b", "bob"),
        ];
        let report = figures((0, 1), &[], &judgements, &DetailFilter::default());
        let of = |queue: &str| {
            let found = report.queues.iter().find(|found| found.queue == queue).expect("it is there");
            ((found.precision.right, found.precision.of), (found.recall.right, found.recall.of))
        };
        assert_eq!((of("a"), of("b")), (((2, 3), (2, 2)), ((1, 1), (1, 2))));
        let analysis = &report.feedback;
        assert_eq!((analysis.judged, analysis.right.right, analysis.by_day.len()), (4, 3, 1));
        assert_eq!(analysis.by_day[0], DayOfFeedback { day: "1970-01-02".into(), right: 3, wrong: 1 });
        let confusion = Confusion { predicted: "a".into(), right: "b".into(), events: 1 };
        assert_eq!(analysis.confusions, [confusion]);
    }

    #[test]
    fn the_detail_can_be_filtered() {
        let judgements = [judgement("a", "b", "ada"), judgement("c", "c", "bob")];
        let detail = |filter: DetailFilter| figures((0, 1), &[], &judgements, &filter).detail.len();
        assert_eq!(detail(DetailFilter { queue: Some("b".into()), ..DetailFilter::default() }), 1);
        assert_eq!(detail(DetailFilter { correct: Some(true), ..DetailFilter::default() }), 1);
        assert_eq!(detail(DetailFilter { given_by: Some("eve".into()), ..DetailFilter::default() }), 0);
        assert_eq!(detail(DetailFilter { limit: Some(1), ..DetailFilter::default() }), 1);
    }
}
