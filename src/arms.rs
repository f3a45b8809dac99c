//! What two models are worth that are compared on the stream: how sure each is, how often they say the same, and what people
//! who judged events say about both.
//!
//! In a split each arm has its own events, so the shares of right answers are compared as those of two samples. In the shadow
//! both have answered the same events, so only those count for which both answers could be judged, and McNemar's test
//! compares them. People judge mostly the events that were unsure: the figures hold for those, and for both arms alike.

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::{ChallengerMode, Config};
use crate::model::evaluation::mcnemar_of;
use crate::model::{Manifest, PackageError};
use crate::record::{Arm, Kind};
use crate::reports::Proportion;
use crate::volumes::{ArmCount, Judgement, JudgementQuery, StoreError, VolumeStore};

/// Judgements that are looked at: the newest.
const MOST_JUDGEMENTS: usize = 200_000;
/// Of the standard normal distribution, for 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Two models that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmPair {
    pub kind: Kind,
    pub mode: ChallengerMode,
    /// Names and versions.
    pub champion: String,
    pub challenger: String,
}

/// What is known about two models of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ArmReport {
    pub kind: Kind,
    /// `shadow` or `split`.
    #[schema(value_type = String)]
    pub mode: &'static str,
    pub champion: ArmFigures,
    pub challenger: ArmFigures,
    /// Events for which both say the same queue; only in the shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Proportion>,
    pub difference: Difference,
}

/// What is known about one of them.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ArmFigures {
    /// Name and version.
    pub model: String,
    /// That it decided, or was asked about in the shadow.
    pub events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Mean>,
    /// Of its judged events, those whose queue was right.
    pub accuracy: Proportion,
}

/// A mean with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Mean {
    pub mean: f64,
    pub lower: f64,
    pub upper: f64,
}

/// How the challenger's accuracy differs from the champion's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Difference {
    /// The challenger's less the champion's; absent while one of them has no judged events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Its 95 % interval, in a split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper: Option<f64>,
    /// Of McNemar's exact test, in the shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
}

/// The pairs that the configuration names, by the manifests of their packages.
pub fn pairs(config: &Config) -> Result<Vec<ArmPair>, PackageError> {
    let (model, challenger) = (&config.model, &config.model.challenger);
    let specs = [(Kind::Ticket, &model.ticket, &challenger.ticket), (Kind::Log, &model.log, &challenger.log)];
    let id = |spec: &str| Ok::<_, PackageError>(Manifest::load_configured(spec, model)?.id());
    specs
        .into_iter()
        .filter_map(|(kind, champion, challenger)| Some((kind, champion.as_deref()?, challenger.as_deref()?)))
        .map(|(kind, champion, other)| {
            Ok(ArmPair { kind, mode: challenger.mode, champion: id(champion)?, challenger: id(other)? })
        })
        .collect()
}

/// Compares pairs on events that occurred, and feedback that was given, in this time (milliseconds since 1970-01-01 UTC).
pub async fn compare(store: &VolumeStore, from: i64, to: i64, pairs: &[ArmPair]) -> Result<Vec<ArmReport>, StoreError> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let counts = store.arm_counts(from, to).await?;
    let query = JudgementQuery { from, to, with_text: false, limit: MOST_JUDGEMENTS };
    let judgements = store.judgements(&query).await?;
    Ok(pairs.iter().map(|pair| report(pair, &counts, &judgements)).collect())
}

fn report(pair: &ArmPair, counts: &[ArmCount], judgements: &[Judgement]) -> ArmReport {
    let in_shadow = u8::from(pair.mode == ChallengerMode::Shadow);
    let count = |arm: Arm, model: &str, in_shadow: u8| {
        counts.iter().find(|count| {
            count.kind == pair.kind as i8 + 1
                && (count.arm.as_str(), count.model.as_str(), count.in_shadow) == (arm.as_str(), model, in_shadow)
        })
    };
    let champion = count(Arm::Champion, &pair.champion, 0);
    let challenger = count(Arm::Challenger, &pair.challenger, in_shadow);
    let judged = Judged::of(pair, judgements);
    let figures = |model: &str, count: Option<&ArmCount>, accuracy| ArmFigures {
        model: model.to_owned(),
        events: count.map_or(0, |count| count.events),
        confidence: count.and_then(Mean::of),
        accuracy,
    };
    ArmReport {
        kind: pair.kind,
        mode: pair.mode.as_str(),
        champion: figures(&pair.champion, champion, judged.champion),
        challenger: figures(&pair.challenger, challenger, judged.challenger),
        agreement: (in_shadow == 1)
            .then(|| challenger.map_or((0, 0), |count| (count.agreed, count.compared)))
            .map(|(agreed, compared)| Proportion::new(agreed, compared)),
        difference: judged.difference(pair.mode),
    }
}

impl Mean {
    /// By the normal distribution, which is near enough for the many events of a stream; within 0 and 1.
    fn of(count: &ArmCount) -> Option<Mean> {
        let n = count.events as f64;
        if count.events == 0 {
            return None;
        }
        let mean = count.sum / n;
        let variance = if count.events > 1 { ((count.squares - n * mean * mean) / (n - 1.0)).max(0.0) } else { 0.0 };
        let half = Z * (variance / n).sqrt();
        Some(Mean { mean, lower: (mean - half).max(0.0), upper: (mean + half).min(1.0) })
    }
}

/// Judged events of both arms.
struct Judged {
    champion: Proportion,
    challenger: Proportion,
    only_champion: usize,
    only_challenger: usize,
}

impl Judged {
    fn of(pair: &ArmPair, judgements: &[Judgement]) -> Self {
        let mut right = [0u64; 2];
        let mut of = [0u64; 2];
        let (mut only_champion, mut only_challenger) = (0, 0);
        let decided = judgements.iter().filter_map(|judgement| Some((judgement, judgement.event.as_ref()?)));
        let by_model =
            decided.filter(|(_, event)| event.kind() == pair.kind && matches!(&*event.decided_by, "fast" | "cache"));
        for (judgement, event) in by_model {
            let is_right = |queue: &str| is_right(judgement, &event.queue, queue);
            let Some(decision_right) = is_right(&event.queue) else { continue };
            match pair.mode {
                ChallengerMode::Shadow if event.model == pair.champion => {
                    let beside = event.shadow.iter().find(|(model, ..)| *model == pair.challenger);
                    let Some(other_right) = beside.and_then(|(_, queue, _)| is_right(queue)) else { continue };
                    right[0] += u64::from(decision_right);
                    right[1] += u64::from(other_right);
                    of = of.map(|all| all + 1);
                    only_champion += usize::from(decision_right && !other_right);
                    only_challenger += usize::from(other_right && !decision_right);
                }
                ChallengerMode::Shadow => {}
                ChallengerMode::Split => {
                    let arm = match event.arm.as_str() {
                        "champion" if event.model == pair.champion => Arm::Champion,
                        "challenger" if event.model == pair.challenger => Arm::Challenger,
                        _ => continue,
                    };
                    right[arm as usize] += u64::from(decision_right);
                    of[arm as usize] += 1;
                }
            }
        }
        let [champion, challenger] = [0, 1].map(|arm| Proportion::new(right[arm], of[arm]));
        Judged { champion, challenger, only_champion, only_challenger }
    }

    fn difference(&self, mode: ChallengerMode) -> Difference {
        let none = Difference { accuracy: None, lower: None, upper: None, p_value: None };
        let (Some(before), Some(after)) = (self.champion.share, self.challenger.share) else { return none };
        let accuracy = Some(after - before);
        match mode {
            ChallengerMode::Shadow => {
                let test = mcnemar_of(self.only_champion, self.only_challenger);
                Difference { accuracy, p_value: Some(test.p_value), ..none }
            }
            // Method 10 of R. G. Newcombe, "Interval estimation for the difference between independent proportions", 1998.
            ChallengerMode::Split => {
                let (one, other) = (&self.champion, &self.challenger);
                let below = (after - other.lower).hypot(one.upper - before);
                let above = (other.upper - after).hypot(before - one.lower);
                Difference {
                    accuracy,
                    lower: Some(after - before - below),
                    upper: Some(after - before + above),
                    ..none
                }
            }
        }
    }
}

/// Whether a queue is right for a judged event; `None` where nobody said.
fn is_right(judgement: &Judgement, decided: &str, queue: &str) -> Option<bool> {
    if let Some(right) = judgement.right_queue() {
        return Some(right == queue);
    }
    // The decision was wrong, and it is not known what is right.
    let judged_wrong = judgement.is_correct() == Some(false) && judgement.predicted() == Some(decided);
    (judged_wrong && queue == decided).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Feedback, QueueEvent, SourcePosition};
    use crate::volumes::{EventRow, FeedbackRow, StoredEvent};

    fn pair(mode: ChallengerMode) -> ArmPair {
        ArmPair { kind: Kind::Log, mode, champion: "logs@1".into(), challenger: "logs@2".into() }
    }

    /// An event and what somebody said about it.
    fn judged(rest: &str, feedback: &str) -> Judgement {
        let id = "00000000-0000-5000-8000-000000000000";
        let text = format!(
            r#"{{"event_id":"{id}","source":{{"topic":"logs","partition":1,"offset":7}},"kind":"log",
            "occurred_at":"2026-01-01T00:00:00.000Z","decided_at":"2026-01-01T00:00:00.500Z","queue":"soc",
            "priority":"low","confidence":0.5,"routing":"auto_route","decided_by":"fast",{rest}}}"#
        );
        let event: QueueEvent<'_> = serde_json::from_str(&text).expect("an event");
        let text = format!(r#"{{"event_id":"{id}",{feedback}}}"#);
        let said: Feedback<'_> = serde_json::from_str(&text).expect("feedback");
        let place = SourcePosition { topic: "feedback".into(), partition: 0, offset: 3 };
        Judgement {
            feedback: FeedbackRow::of(&said, &place, 7).expect("a row"),
            event: Some(StoredEvent::from(&EventRow::of(&event).expect("a row"))),
        }
    }

    fn beside(queue: &str) -> String {
        format!(r#""model":"logs@1","arm":"champion","shadow":{{"model":"logs@2","queue":"{queue}","confidence":0.9}}"#)
    }

    #[test]
    fn in_the_shadow_both_answer_for_the_same_events() {
        let (right, wrong) = (r#""correct":true"#, r#""corrected_queue":"iam""#);
        let nobody_knows = r#""correct":false,"predicted_queue":"soc""#;
        let judgements = [
            judged(&beside("soc"), right),
            judged(&beside("iam"), right),
            judged(&beside("iam"), wrong),
            judged(&beside("iam"), wrong),
            judged(&beside("soc"), nobody_knows),
            judged(&beside("iam"), nobody_knows),
            judged(r#""model":"logs@0","arm":"champion""#, right),
        ];
        let judged = Judged::of(&pair(ChallengerMode::Shadow), &judgements);
        assert_eq!((judged.champion.right, judged.champion.of), (2, 5));
        assert_eq!((judged.challenger.right, judged.challenger.of), (3, 5));
        assert_eq!((judged.only_champion, judged.only_challenger), (1, 2));
        let difference = judged.difference(ChallengerMode::Shadow);
        assert!((difference.accuracy.expect("both were judged") - 0.2).abs() < 1e-12);
        assert_eq!(difference.p_value, Some(1.0));
    }

    #[test]
    fn in_a_split_each_answers_for_its_own() {
        let of = |arm: &str, model: &str| format!(r#""model":"{model}","arm":"{arm}""#);
        let mut judgements = Vec::new();
        // The example of Newcombe's paper: 56 of 70 and 48 of 80.
        for number in 0..70 {
            let said = if number < 56 { r#""correct":true"# } else { r#""corrected_queue":"iam""# };
            judgements.push(judged(&of("challenger", "logs@2"), said));
        }
        for number in 0..80 {
            let said = if number < 48 { r#""correct":true"# } else { r#""corrected_queue":"iam""# };
            judgements.push(judged(&of("champion", "logs@1"), said));
        }
        let judged = Judged::of(&pair(ChallengerMode::Split), &judgements);
        assert_eq!((judged.champion.of, judged.challenger.of), (80, 70));
        let difference = judged.difference(ChallengerMode::Split);
        let (lower, upper) = (difference.lower.expect("an interval"), difference.upper.expect("an interval"));
        assert!((lower - 0.0524).abs() < 5e-5 && (upper - 0.3339).abs() < 5e-5, "{lower} {upper}");
    }

    #[test]
    fn a_mean_has_an_interval() {
        let count = ArmCount {
            kind: 2,
            arm: "champion".into(),
            model: "logs@1".into(),
            in_shadow: 0,
            events: 4,
            sum: 2.0,
            squares: 1.2,
            compared: 0,
            agreed: 0,
        };
        let mean = Mean::of(&count).expect("there are events");
        // Standard deviation 0.2582, standard error 0.1291.
        assert!(
            (mean.mean - 0.5).abs() < 1e-12 && (mean.lower - 0.247).abs() < 1e-3 && (mean.upper - 0.753).abs() < 1e-3
        );
    }
}
