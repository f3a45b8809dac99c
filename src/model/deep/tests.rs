//! A package over a small random encoder, written, read and served.

use std::sync::Arc;

use super::package::{self, TunedReference};
use super::*;
use crate::model::climb::Unseen;
use crate::model::dataset::{Dataset, Example};
use crate::model::encoder::Cpu;
use crate::model::encoder::small_model::{FAMILIES, SmallModel};
use crate::model::encoder::tune::{TuneSettings, Tuner};
use crate::model::head;
use crate::model::package::sha256;
use crate::model::train::TrainSettings;
use crate::model::validation::Splits;
use crate::record::{Kind, LogLine};

fn dataset() -> Dataset {
    let words = ["w11 w12 w13", "w21 w22 w23", "w31 w32 w33"];
    let example = |row: usize| {
        let text = format!("{} w{} w{} w{}", words[row % 3], 40 + row % 10, 1 + row % 7, 5 + row % 11);
        let record = Record::Log(LogLine { text: text.into(), source: None, level: None, occurred_at: 0 });
        Example { id: row.to_string(), label: format!("class {}", row % 3), record }
    };
    Dataset { examples: (0..90).map(example).collect(), sha256: String::new() }
}

fn settings() -> TrainSettings {
    TrainSettings { folds: 3, time_budget: 0.0, ..TrainSettings::new(Kind::Log, "small") }
}

fn encoder(model: &SmallModel) -> Arc<Encoder> {
    let encoder = Encoder::load_on(model.folder(), Precision::F32, Cpu::best()).expect("a good folder");
    Arc::new(encoder)
}

fn trained(model: &SmallModel, layers: usize) -> DeepTrained {
    let fine_tune = FineTune { folder: model.folder().to_owned(), layers, epochs: 1 };
    train_deep(&dataset(), &settings(), &encoder(model), Some(&fine_tune), &mut |_| {}).expect("good rows")
}

#[test]
fn a_written_package_serves_what_was_trained_and_is_no_worse_than_its_fast_model() {
    let model = SmallModel::write(FAMILIES[0]);
    let mut steps = Vec::new();
    let fine_tune = FineTune { folder: model.folder().to_owned(), layers: 1, epochs: 1 };
    let trained = train_deep(&dataset(), &settings(), &encoder(&model), Some(&fine_tune), &mut |step| {
        steps.push(std::mem::discriminant(&step));
    });
    let trained = trained.expect("good rows");
    assert!(steps.contains(&std::mem::discriminant(&DeepProgress::Tuning { done: 0, of: 0 })));
    assert!(trained.report.summary.accuracy >= trained.fast().report.summary.accuracy);
    assert_eq!(trained.manifest().reading.tuned > 0.0, trained.manifest().tuned.is_some());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("package");
    trained.write(&out).expect("written");
    let read = DeepModel::load(&out, encoder(&model), DeviceKind::Flex).expect("readable");
    let direct = trained.model(encoder(&model)).expect("its own encoder");
    let dataset = dataset();
    let records: Vec<Record<'_>> = dataset.examples.iter().map(|example| example.record.clone()).collect();
    let found = read.predict(&records).expect("good texts");
    assert_eq!(found, direct.predict(&records).expect("good texts"));
    let right = found.iter().enumerate().filter(|(row, found)| found.label == row % 3).count();
    assert!(right >= 85, "{right} of 90 training rows");
    assert!(read.predict(&[]).expect("no texts").is_empty());
}

#[test]
fn layers_that_were_trained_on_lie_in_the_package_and_weigh_what_the_head_says() {
    let model = SmallModel::write(FAMILIES[1]);
    let encoder = encoder(&model);
    let dataset = dataset();
    let records: Vec<Record<'_>> = dataset.examples.iter().map(|example| example.record.clone()).collect();
    let texts: Vec<&str> = records.iter().map(Record::text).collect();
    let labels: Vec<u32> = (0..90).map(|row| row % 3).collect();
    let tune = TuneSettings { layers: 2, epochs: 1, seed: 3 };
    let tuner = Tuner::new(model.folder(), &encoder, &texts, (&labels, 3), tune, &head::device(DeviceKind::Flex));
    let tuner = tuner.expect("a good folder");
    let rows: Vec<usize> = (0..90).collect();
    let tuned = tuner.fit(&rows, &mut |_| {}).expect("good texts");
    let scores = tuner.scores(&tuned, &rows).expect("good texts");
    let bytes = tuner.to_bytes(&tuned);

    // A head that adds twice the layers' scores to the fast model's.
    let mut trained = trained(&model, 1);
    let mut weight = vec![0.0; 6 * 3];
    (0..6).for_each(|feature| weight[feature * 3 + feature % 3] = 1.0);
    let weights = package::weights_to_bytes(&weight, &[0.0; 3]).expect("shapes fit");
    let manifest = trained.manifest_mut();
    manifest.reading = Reading { tuned: 2.0, ..Reading::SCORES };
    manifest.weights_sha256 = sha256(&weights);
    manifest.tuned = Some(TunedReference { layers: 2, sha256: sha256(&bytes) });
    trained.set_parts(weights, bytes);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("package");
    trained.write(&out).expect("written");
    let served = DeepModel::load(&out, Arc::clone(&encoder), DeviceKind::Flex).expect("readable");
    let mut scratch = Scratch::new();
    for ((record, found), tuned) in
        records.iter().zip(served.predict(&records).expect("good texts")).zip(scores.chunks_exact(3))
    {
        served.fast().score(record, &mut scratch);
        let sums: Vec<f32> = scratch.scores().iter().zip(tuned).map(|(score, tuned)| score + 2.0 * tuned).collect();
        assert_eq!(found.label, best(&sums), "{sums:?}");
    }

    let path = out.join("tuned.safetensors");
    let mut damaged = std::fs::read(&path).expect("a file");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&path, damaged).expect("a file");
    let error = DeepModel::load(&out, Arc::clone(&encoder), DeviceKind::Flex).expect_err("a flipped bit").to_string();
    assert!(error.contains("tuned.safetensors does not belong to head.json"), "{error}");
    std::fs::remove_file(&path).expect("a file");
    let error = DeepModel::load(&out, encoder, DeviceKind::Flex).expect_err("a missing file").to_string();
    assert!(error.contains("tuned.safetensors"), "{error}");
}

#[test]
fn more_layers_than_there_are_cannot_be_trained_on() {
    let model = SmallModel::write(FAMILIES[0]);
    for layers in [0, 3] {
        let fine_tune = FineTune { folder: model.folder().to_owned(), layers, epochs: 1 };
        let error = train_deep(&dataset(), &settings(), &encoder(&model), Some(&fine_tune), &mut |_| {});
        assert!(matches!(error, Err(DeepTrainError::Layers { layers: 2, .. })));
    }
}

#[test]
fn every_row_is_asked_about_once_in_both_precisions_by_models_that_did_not_see_it() {
    let model = SmallModel::write(FAMILIES[2]);
    let int8 = Encoder::load(model.folder(), Precision::Int8).expect("a good folder");
    let encoders = [encoder(&model), Arc::new(int8)];
    let dataset = dataset();
    let splits = Splits::parts(&dataset, 3, 1);
    let unseen = Unseen::of_training(&dataset, &settings(), &splits, &encoders, None, &mut |_, _| {});
    let unseen = unseen.expect("good rows");
    let mut rows = unseen.rows.clone();
    rows.sort_unstable();
    assert!(rows.into_iter().eq(0..90));
    let summaries = unseen.summaries();
    assert_eq!(summaries.iter().map(|(tier, _)| *tier).collect::<Vec<_>>(), ["fast", "encoder, f32", "encoder, int8"]);
    for (tier, summary) in summaries {
        // The words differ in their digits only, which the fast model takes for one word: what it says is chance.
        let least = if tier == "fast" { 0.3 } else { 0.6 };
        assert!(summary.rows == 90 && summary.accuracy > least, "{tier}: {summary:?}");
    }
    for tier in &unseen.tiers {
        let labels = tier.outcomes.iter().flatten().map(|outcome| outcome.label);
        assert!(labels.eq(unseen.rows.iter().map(|row| row % 3)), "{}", tier.tier);
    }
}
