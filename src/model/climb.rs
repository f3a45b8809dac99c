//! What each tier of the climb decides of labelled rows, and what it costs: the fast model, the encoder, the LLM.
//!
//! A record climbs until a tier is sure enough; at the end the surest of those who were asked decides, as in the daemon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::dataset::Dataset;
use super::deep::{DeepModel, DeepTrainError, FineTune, train_deep};
use super::encoder::{Encoder, EncoderError, Precision};
use super::evaluation::{Outcome, Report, Summary};
use super::selection::class_of;
use super::train::TrainSettings;
use super::validation::Splits;
use super::{DeepModelError, DeepProgress, FastModel, Scratch};
use crate::record::Record;

/// Records that the encoder is asked about at a time, as the daemon does by default.
const RECORDS_AT_A_TIME: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ClimbError {
    #[error(transparent)]
    Train(#[from] DeepTrainError),
    #[error(transparent)]
    Model(#[from] DeepModelError),
    #[error("the encoder failed")]
    Encoder(#[from] EncoderError),
}

/// What a tier says about all rows, had it been asked about each.
#[derive(Debug, Clone)]
pub struct TierOutcomes {
    pub tier: &'static str,
    /// `None`: no answer.
    pub outcomes: Vec<Option<Outcome>>,
    /// For all rows that were asked about.
    pub time: Duration,
}

/// What a tier does in the climb.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TierFigures {
    pub tier: &'static str,
    /// Rows that came to it.
    pub asked: usize,
    /// Rows that ended with it, because it was sure enough.
    pub decided: usize,
    /// Of what it decided. `None` if that is nothing.
    pub accuracy: Option<f64>,
    /// Of all rows, had the climb ended here.
    pub accuracy_so_far: f64,
    /// Mean time of a row that came to it.
    pub microseconds: f64,
}

/// Lets rows climb: a tier that is at least as sure as `threshold` ends a row's way. Rows that no tier decided are those
/// that a person sees.
pub fn climb(tiers: &[TierOutcomes], threshold: f32) -> Vec<TierFigures> {
    let rows = tiers.first().map_or(0, |tier| tier.outcomes.len());
    let mut surest: Vec<Option<Outcome>> = vec![None; rows];
    let mut open: Vec<usize> = (0..rows).collect();
    tiers
        .iter()
        .map(|tier| {
            let asked = open.len();
            for &row in &open {
                if let Some(said) = tier.outcomes[row]
                    && surest[row].is_none_or(|before| said.confidence > before.confidence)
                {
                    surest[row] = Some(said);
                }
            }
            let right = |row: &usize| surest[*row].is_some_and(|outcome| outcome.label == outcome.predicted);
            let is_sure = |row: &usize| surest[*row].is_some_and(|outcome| outcome.confidence >= threshold);
            let (decided, left): (Vec<usize>, Vec<usize>) = open.iter().partition(|row| is_sure(row));
            let share = |rows: usize, of: usize| rows as f64 / of.max(1) as f64;
            let accuracy = share(decided.iter().filter(|row| right(row)).count(), decided.len());
            let answered = tier.outcomes.iter().flatten().count();
            open = left;
            TierFigures {
                tier: tier.tier,
                asked,
                decided: decided.len(),
                accuracy: (!decided.is_empty()).then_some(accuracy),
                accuracy_so_far: share((0..rows).filter(right).count(), rows),
                microseconds: tier.time.as_secs_f64() * 1e6 / answered.max(1) as f64,
            }
        })
        .collect()
}

/// What tiers say about rows that none of them was trained on.
#[derive(Debug, Clone)]
pub struct Unseen {
    /// Places in the data set, in the order of the outcomes.
    pub rows: Vec<usize>,
    pub names: Vec<String>,
    pub method: String,
    /// The fast model, then the encoder at each precision.
    pub tiers: Vec<TierOutcomes>,
}

impl Unseen {
    /// Accuracy and calibration of each tier alone.
    pub fn summaries(&self) -> Vec<(&'static str, Summary)> {
        self.tiers.iter().map(|tier| (tier.tier, self.report(tier).summary)).collect()
    }

    pub fn report(&self, tier: &TierOutcomes) -> Report {
        let outcomes: Vec<Outcome> = tier.outcomes.iter().flatten().copied().collect();
        Report::new(&outcomes, &self.names, &self.method)
    }

    /// For models that did not see any of the rows. All of them are one package, over encoders of other precisions.
    pub fn of_models(dataset: &Dataset, models: &[DeepModel], method: &str) -> Result<Unseen, ClimbError> {
        let mut names = dataset.labels();
        names.extend(models.iter().flat_map(|model| model.labels()).map(|label| label.to_string()));
        names.sort_unstable();
        names.dedup();
        let mut unseen = Unseen { rows: Vec::new(), names, method: method.to_owned(), tiers: Vec::new() };
        let all: Vec<usize> = (0..dataset.examples.len()).collect();
        unseen.ask(dataset, models, &all)?;
        Ok(unseen)
    }

    /// Trains on the first part of each split and asks about the second. The first encoder computes in f32 and is what is
    /// trained with.
    pub fn of_training(
        dataset: &Dataset,
        settings: &TrainSettings,
        splits: &Splits,
        encoders: &[Arc<Encoder>],
        fine_tune: Option<&FineTune>,
        progress: &mut dyn FnMut(usize, DeepProgress),
    ) -> Result<Unseen, ClimbError> {
        let (names, method) = (dataset.labels(), splits.method.clone());
        let mut unseen = Unseen { rows: Vec::new(), names, method, tiers: Vec::new() };
        for (number, (train_rows, held_out)) in splits.splits.iter().enumerate() {
            let rows = dataset.subset(train_rows);
            let trained = train_deep(&rows, settings, &encoders[0], fine_tune, &mut |step| progress(number, step))?;
            let models: Result<Vec<DeepModel>, _> =
                encoders.iter().map(|encoder| trained.model(Arc::clone(encoder))).collect();
            unseen.ask(dataset, &models?, held_out)?;
        }
        Ok(unseen)
    }

    fn ask(&mut self, dataset: &Dataset, models: &[DeepModel], rows: &[usize]) -> Result<(), ClimbError> {
        self.rows.extend(rows);
        let records: Vec<Record<'_>> = rows.iter().map(|&row| dataset.examples[row].record.clone()).collect();
        let labels: Vec<usize> = rows.iter().map(|&row| class_of(&dataset.examples[row].label, &self.names)).collect();
        let Some(first) = models.first() else { return Ok(()) };
        let (answers, time) = ask_fast(first.fast(), &records);
        self.add("fast", first.labels(), &labels, answers, time);
        for model in models {
            let started = Instant::now();
            let mut answers = Vec::with_capacity(records.len());
            for some in records.chunks(RECORDS_AT_A_TIME) {
                answers.extend(model.predict(some)?.into_iter().map(|found| (found.label, found.confidence)));
            }
            let tier = match model.precision() {
                Precision::F32 => "encoder, f32",
                Precision::Int8 => "encoder, int8",
            };
            self.add(tier, model.labels(), &labels, answers, started.elapsed());
        }
        Ok(())
    }

    fn add(
        &mut self,
        tier: &'static str,
        of_model: &[Arc<str>],
        labels: &[usize],
        answers: Vec<(usize, f32)>,
        time: Duration,
    ) {
        let place = |label: usize| class_of(&of_model[label], &self.names);
        let outcomes: Vec<Option<Outcome>> = answers
            .into_iter()
            .zip(labels)
            .map(|((predicted, confidence), &label)| Some(Outcome { label, predicted: place(predicted), confidence }))
            .collect();
        match self.tiers.iter_mut().find(|known| known.tier == tier) {
            Some(known) => {
                known.outcomes.extend(outcomes);
                known.time += time;
            }
            None => self.tiers.push(TierOutcomes { tier, outcomes, time }),
        }
    }
}

fn ask_fast(model: &FastModel, records: &[Record<'_>]) -> (Vec<(usize, f32)>, Duration) {
    let mut scratch = Scratch::new();
    let started = Instant::now();
    let answers = records
        .iter()
        .map(|record| {
            let found = model.classify(record, &mut scratch);
            (found.label, found.confidence)
        })
        .collect();
    (answers, started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(tier: &'static str, said: &[(usize, f32)]) -> TierOutcomes {
        let outcome = |&(predicted, confidence)| Some(Outcome { label: 0, predicted, confidence });
        TierOutcomes { tier, outcomes: said.iter().map(outcome).collect(), time: Duration::from_micros(8) }
    }

    #[test]
    fn rows_end_with_the_first_tier_that_is_sure_and_the_surest_decides() {
        let fast = tier("fast", &[(0, 0.9), (1, 0.95), (0, 0.5), (1, 0.8)]);
        let mut encoder = tier("encoder", &[(1, 1.0), (0, 1.0), (0, 0.9), (0, 0.6)]);
        let figures = climb(&[fast.clone(), encoder.clone()], 0.85);
        assert_eq!((figures[0].asked, figures[0].decided, figures[0].accuracy), (4, 2, Some(0.5)));
        assert_eq!((figures[0].accuracy_so_far, figures[0].microseconds), (0.5, 2.0));
        // The last row stays with the fast model, which is surer of what is wrong.
        assert_eq!((figures[1].asked, figures[1].decided, figures[1].accuracy), (2, 1, Some(1.0)));
        assert_eq!(figures[1].accuracy_so_far, 0.5);
        encoder.outcomes[2] = None;
        let figures = climb(&[fast, encoder], 0.85);
        assert_eq!((figures[1].decided, figures[1].accuracy, figures[1].accuracy_so_far), (0, None, 0.5));
        assert!(climb(&[], 0.85).is_empty());
    }
}
