//! Training the last layers of a small model on, and serving what came out.

use std::path::Path;

use burn::tensor::Device;

use super::super::small_model::{FAMILIES, SmallModel};
use super::super::tune::{TuneSettings, Tuner};
use super::super::{Encoder, Precision};

/// Texts of two classes: the class is a word among others.
fn texts() -> (Vec<String>, Vec<u32>) {
    (0..96)
        .map(|row| {
            let word = if row % 2 == 0 { "w7" } else { "w8" };
            (format!("w{} w{} {word} w{}", 10 + row % 9, 20 + row % 7, 30 + row % 5), row % 2)
        })
        .unzip()
}

const SETTINGS: TuneSettings = TuneSettings { layers: 2, epochs: 30, seed: 7 };

#[test]
fn layers_that_were_trained_on_are_served_as_burn_computes_them() {
    let (texts, labels) = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows: Vec<usize> = (0..texts.len()).collect();
    for family in FAMILIES {
        let model = SmallModel::write(family);
        let encoder = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
        for layers in [1, 2] {
            let settings = TuneSettings { layers, epochs: 1, ..SETTINGS };
            let tuner = Tuner::new(model.folder(), &encoder, &texts, (&labels, 2), settings, &Device::flex());
            let tuner = tuner.expect("a good folder");
            let tuned = tuner.fit(&rows, &mut |_| {}).expect("good texts");
            let expected = tuner.scores(&tuned, &rows).expect("good texts");
            let path = Path::new("tuned.safetensors");
            let (served, classifier) =
                encoder.with_tuned_layers(layers, 2, path, tuner.to_bytes(&tuned)).expect("its own layers");
            let summaries = served.summarise(&texts).expect("good texts");
            let before = encoder.summarise(&texts).expect("good texts");
            assert_ne!(summaries, before, "nothing was trained");
            for (summary, expected) in summaries.chunks_exact(3 * served.dimension()).zip(expected.chunks_exact(2)) {
                for (class, expected) in expected.iter().enumerate() {
                    let products = summary.iter().zip(classifier.weight.iter().skip(class).step_by(2));
                    let found = classifier.bias[class] + products.map(|(value, weight)| value * weight).sum::<f32>();
                    assert!((found - expected).abs() < 1e-4, "{family:?}: {found} for {expected}");
                }
            }
        }
    }
}

#[test]
fn training_learns_what_it_is_shown_and_gives_the_same_twice() {
    let (texts, labels) = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let model = SmallModel::write(FAMILIES[0]);
    let encoder = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
    let tuner = || {
        Tuner::new(model.folder(), &encoder, &texts, (&labels, 2), SETTINGS, &Device::flex()).expect("a good folder")
    };
    let (shown, unseen): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|row| row % 4 < 2);
    let first = tuner();
    let mut seen = 0;
    let tuned = first.fit(&shown, &mut |texts| seen += texts).expect("good texts");
    assert_eq!(seen, shown.len() * SETTINGS.epochs, "progress ends at the end");
    let scores = first.scores(&tuned, &unseen).expect("good texts");
    let right = scores.chunks_exact(2).zip(&unseen).filter(|(scores, row)| (scores[1] > scores[0]) == (*row % 2 == 1));
    assert!(right.count() as f64 >= 0.9 * unseen.len() as f64, "{scores:?}");
    let second = tuner();
    let again = second.fit(&shown, &mut |_| {}).expect("good texts");
    assert!(first.to_bytes(&tuned) == second.to_bytes(&again), "two trainings differ");
}

#[test]
fn what_no_training_wrote_is_refused() {
    let model = SmallModel::write(FAMILIES[0]);
    let encoder = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
    let path = Path::new("tuned.safetensors");
    let (texts, labels) = (["w1", "w2"], [0, 1]);
    let settings = TuneSettings { layers: 1, epochs: 1, seed: 1 };
    let tuner =
        Tuner::new(model.folder(), &encoder, &texts, (&labels, 2), settings, &Device::flex()).expect("a good folder");
    let bytes = tuner.to_bytes(&tuner.fit(&[0, 1], &mut |_| {}).expect("good texts"));
    let refused = |layers, classes, bytes: &[u8]| {
        encoder.with_tuned_layers(layers, classes, path, bytes.to_vec()).map(|_| ()).expect_err("a fault").to_string()
    };
    assert!(refused(1, 3, &bytes).contains("`classifier.weight` has shape"));
    assert!(refused(2, 2, &bytes).contains("is missing"));
    assert!(refused(0, 2, &bytes).contains("has 0 layers; the encoder has 2"));
    assert!(refused(3, 2, &bytes).contains("has 3 layers"));
    assert!(refused(1, 2, &bytes[..40]).contains("safetensors"));
}
