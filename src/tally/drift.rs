//! Whether what comes in is still like what the models learned from.
//!
//! Of the newest events that a model decided, two numbers are watched for each kind. Label shift: the population stability
//! index of the labels against the rows that the model learned from (0.1 is little, 0.25 much). Confidence drop: the
//! accuracy that the model had in validation less the mean confidence now; calibrated confidences are as high as the share
//! of right answers, so a drop means texts that the model does not know. An event costs two counts in a ring.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::{Config, DriftSettings};
use crate::metrics::Metrics;
use crate::model::Manifest;
use crate::record::{Arm, Kind, QueueEvent};
use crate::reload::Live;

/// With fewer events chance makes shifts.
const FEWEST_EVENTS: usize = 200;

/// What is watched; cloning shares it, so that all workers fill one window.
#[derive(Debug, Clone)]
pub struct DriftWatch {
    settings: Live<DriftSettings>,
    metrics: Metrics,
    windows: Arc<Mutex<Vec<Window>>>,
}

/// A number that is above its setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    pub kind: Kind,
    /// `labels` or `confidence`.
    pub of: &'static str,
    pub value: f64,
    pub limit: f64,
    /// In how many events.
    pub events: usize,
    /// That was learned from something else.
    pub model: String,
}

/// The newest events of one kind.
#[derive(Debug)]
struct Window {
    kind: Kind,
    /// Hash of the model's weights.
    weights: String,
    places: HashMap<String, usize>,
    /// Share of each label among the rows that were learned from.
    expected: Vec<f64>,
    accuracy: f64,
    /// Place of the label, `expected.len()` for one that the model did not have then, and the confidence.
    newest: VecDeque<(usize, f32)>,
    counts: Vec<u64>,
    sum: f64,
    model: String,
    announced: [Option<Instant>; 2],
}

impl DriftWatch {
    /// Models without the rows of their labels, and those that are not here, are not watched.
    pub fn load(config: &Config, metrics: &Metrics) -> Self {
        let windows = Arc::new(Mutex::new(windows(config)));
        DriftWatch { settings: Live::new(config.drift.clone()), metrics: metrics.clone(), windows }
    }

    /// Takes up other settings and models; what was seen of a model that stays is kept.
    pub fn renew(&self, config: &Config) {
        let mut fresh = windows(config);
        let mut known = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for window in &mut fresh {
            if let Some(place) = known.iter().position(|known| known.weights == window.weights) {
                *window = known.swap_remove(place);
            }
        }
        *known = fresh;
        self.settings.set(config.drift.clone());
    }

    /// Takes events into the window; returns what is to be announced.
    pub fn observe<'e>(&self, events: impl Iterator<Item = &'e QueueEvent<'e>>) -> Vec<Shift> {
        // Counts of a window that a panic left are at most one event off.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.is_empty() {
            return Vec::new();
        }
        let settings = self.settings.get();
        // What a challenger decides says nothing about the model whose labels are expected.
        let of_champion = |event: &&QueueEvent<'_>| {
            matches!(&*event.decided_by, "fast" | "cache") && event.arm != Some(Arm::Challenger)
        };
        for event in events.filter(of_champion) {
            if let Some(window) = windows.iter_mut().find(|window| window.kind == event.kind) {
                window.push(event.category.as_deref().unwrap_or_default(), event.confidence, settings.window);
            }
        }
        let mut shifts = Vec::new();
        for window in windows.iter_mut().filter(|window| window.newest.len() >= FEWEST_EVENTS) {
            let values = [window.label_shift(), window.confidence_drop()];
            self.metrics.set_drift(window.kind, values[0], values[1]);
            let limits = [settings.label_shift, settings.confidence_drop];
            for (place, of) in ["labels", "confidence"].into_iter().enumerate() {
                let (value, limit) = (values[place], limits[place]);
                let is_news = window.announced[place].is_none_or(|at| at.elapsed() > settings.cooldown);
                if limit > 0.0 && value > limit && is_news {
                    window.announced[place] = Some(Instant::now());
                    let (events, model) = (window.newest.len(), window.model.clone());
                    shifts.push(Shift { kind: window.kind, of, value, limit, events, model });
                }
            }
        }
        shifts
    }
}

/// Of the champions, one for each kind whose manifest can be read.
fn windows(config: &Config) -> Vec<Window> {
    let specs = [(Kind::Ticket, &config.model.ticket), (Kind::Log, &config.model.log)];
    specs
        .into_iter()
        .filter_map(|(kind, spec)| Some((kind, spec.as_ref()?)))
        .filter_map(|(kind, spec)| match Manifest::load_configured(spec, &config.model) {
            Ok(manifest) if !manifest.label_rows.is_empty() => Some(Window::new(kind, &manifest)),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%kind, %error, "drift is not watched without the model's manifest");
                None
            }
        })
        .collect()
}

impl Window {
    fn new(kind: Kind, manifest: &Manifest) -> Self {
        let all: usize = manifest.label_rows.iter().sum();
        Window {
            kind,
            weights: manifest.weights.sha256.clone(),
            places: manifest.labels.iter().cloned().zip(0..).collect(),
            expected: manifest.label_rows.iter().map(|rows| *rows as f64 / all.max(1) as f64).collect(),
            accuracy: manifest.metrics.accuracy,
            newest: VecDeque::new(),
            counts: vec![0; manifest.labels.len() + 1],
            sum: 0.0,
            model: format!("{}@{}", manifest.name, manifest.weights.sha256.get(..8).unwrap_or_default()),
            announced: [None, None],
        }
    }

    fn push(&mut self, label: &str, confidence: f32, most: usize) {
        let place = self.places.get(label).copied().unwrap_or(self.expected.len());
        self.newest.push_back((place, confidence));
        self.counts[place] += 1;
        self.sum += f64::from(confidence);
        while self.newest.len() > most {
            if let Some((place, confidence)) = self.newest.pop_front() {
                self.counts[place] -= 1;
                self.sum -= f64::from(confidence);
            }
        }
    }

    fn label_shift(&self) -> f64 {
        stability_index(&self.expected, &self.counts)
    }

    fn confidence_drop(&self) -> f64 {
        self.accuracy - self.sum / self.newest.len().max(1) as f64
    }
}

/// Population stability index: the sum of (actual − expected) · ln(actual / expected), which is the symmetric
/// Kullback-Leibler divergence (Lewis, "An Introduction to Credit Scoring", 1994). Counts beyond `expected` belong to what
/// was not there. Half an event is added to each count, so that none is zero.
fn stability_index(expected: &[f64], counts: &[u64]) -> f64 {
    let events: u64 = counts.iter().sum();
    let all = events as f64 + 0.5 * counts.len() as f64;
    let shares = counts.iter().map(|count| (*count as f64 + 0.5) / all);
    let usual = expected.iter().copied().chain(std::iter::repeat(0.0)).map(|share| (share * events as f64 + 0.5) / all);
    shares.zip(usual).map(|(actual, usual)| (actual - usual) * (actual / usual).ln()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(label: &str, confidence: f32) -> QueueEvent<'static> {
        let text = format!(
            r#"{{"event_id":"00000000-0000-5000-8000-000000000000","source":{{"topic":"logs","partition":1,"offset":7}},
            "kind":"log","occurred_at":"2026-01-01T00:00:00.000Z","decided_at":"2026-01-01T00:00:00.500Z","queue":"q",
            "category":"{label}","priority":"low","confidence":{confidence},"routing":"auto_route","decided_by":"fast"}}"#
        );
        serde_json::from_str(text.leak()).expect("an event")
    }

    fn watch(settings: &str) -> (DriftWatch, Manifest) {
        let config = Config::from_toml(&format!("[drift]\n{settings}")).expect("settings");
        let manifest = Manifest::load_configured("builtin:logs", &config.model).expect("shipped");
        (DriftWatch::load(&config, &Metrics::new()), manifest)
    }

    #[test]
    fn what_was_learned_from_is_no_shift_and_another_mixture_is() {
        let (watch, manifest) = watch("label_shift = 0.25\nconfidence_drop = 0.2\nwindow = 2000");
        let labels = manifest.labels.iter().zip(&manifest.label_rows);
        let usual: Vec<QueueEvent<'_>> =
            labels.flat_map(|(label, rows)| std::iter::repeat_n(event(label, 0.99), *rows)).collect();
        assert_eq!(watch.observe(usual.iter()), []);
        let strange: Vec<QueueEvent<'_>> = (0..2_000).map(|_| event("Deprecation Warning", 0.5)).collect();
        let of: Vec<&str> = watch.observe(strange.iter()).iter().map(|shift| shift.of).collect();
        assert_eq!(of, ["labels", "confidence"]);
        assert_eq!(watch.observe(strange.iter()), [], "announced already");
        assert!(watch.metrics.encode().contains("triaged_label_shift{kind=\"log\"}"));
    }

    #[test]
    fn a_model_that_stays_keeps_what_was_seen_of_it() {
        let (watch, _) = watch("window = 1000");
        let strange: Vec<QueueEvent<'_>> = (0..1_000).map(|_| event("never heard of", 0.1)).collect();
        assert_eq!(watch.observe(strange.iter()), []);
        let loud = "[drift]\nwindow = 1000\nlabel_shift = 0.25";
        watch.renew(&Config::from_toml(loud).expect("settings"));
        assert_eq!(watch.observe(std::iter::empty()).len(), 1);
        let other = format!("{loud}\n[model]\nlog = \"\"");
        watch.renew(&Config::from_toml(&other).expect("settings"));
        assert_eq!(watch.observe(strange.iter()), []);
    }

    #[test]
    fn nothing_is_announced_unless_it_is_asked_for() {
        let (watch, _) = watch("window = 1000");
        let strange: Vec<QueueEvent<'_>> = (0..1_000).map(|_| event("never heard of", 0.1)).collect();
        assert_eq!(watch.observe(strange.iter()), []);
    }

    proptest! {
        #[test]
        fn the_index_is_never_negative_and_grows_with_the_distance(counts in prop::collection::vec(0u64..1000, 4), more in 1u64..5000) {
            let expected = [0.4, 0.4, 0.2];
            prop_assert!(stability_index(&expected, &counts) >= 0.0);
            let unknown = |count| stability_index(&expected, &[400, 400, 200, count]);
            prop_assert!(unknown(more) > unknown(0));
        }
    }
}
