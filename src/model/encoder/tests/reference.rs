//! The encoder as the papers write it, in f64 and without any haste.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::settings::Settings;
use super::super::small_model::{names, read_tensors};
use super::super::{Family, Pooling};

pub(super) struct Reference {
    settings: Settings,
    /// Without the prefix of the family.
    tensors: BTreeMap<String, Vec<f64>>,
}

type Rows = Vec<Vec<f64>>;

impl Reference {
    pub(super) fn read(folder: &Path) -> Reference {
        let settings = Settings::read(folder).expect("a good folder");
        let without_prefix = |name: &str| match name.split_once('.') {
            Some(("bert" | "roberta" | "distilbert", rest)) => rest.to_owned(),
            _ => name.to_owned(),
        };
        let tensors = read_tensors(&folder.join("model.safetensors")).into_iter();
        let widen = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
        let tensors = tensors.map(|(name, (_, values))| (without_prefix(&name), widen(values))).collect();
        Reference { settings, tensors }
    }

    pub(super) fn embed(&self, tokens: &[u32], pooling: Pooling, unit_length: bool) -> Vec<f64> {
        let states = self.run(tokens);
        let column = |at: usize| states.iter().map(move |row| row[at]);
        let pooled: Vec<f64> = (0..self.settings.hidden)
            .map(|at| match pooling {
                Pooling::Mean => column(at).sum::<f64>() / states.len() as f64,
                Pooling::Cls => states[0][at],
                Pooling::Max => column(at).fold(f64::MIN, f64::max),
            })
            .collect();
        let length = if unit_length { pooled.iter().map(|value| value * value).sum::<f64>().sqrt() } else { 1.0 };
        pooled.into_iter().map(|value| value / length).collect()
    }

    fn run(&self, tokens: &[u32]) -> Rows {
        let (layer, linears, norms) = names(self.settings.family);
        let mut states = self.start(tokens);
        for number in 0..self.settings.layers {
            let linear = |rows: &Rows, at: usize| self.linear(rows, &format!("{layer}.{number}.{}", linears[at].0));
            let norm = |rows: Rows, at: usize| self.norm(rows, &format!("{layer}.{number}.{}", norms[at]));
            let mixed = self.attend(&linear(&states, 0), &linear(&states, 1), &linear(&states, 2));
            states = norm(add(&states, &linear(&mixed, 3)), 0);
            let mut wide = linear(&states, 4);
            wide.iter_mut().flatten().for_each(|value| *value = gelu(*value));
            states = norm(add(&states, &linear(&wide, 5)), 1);
        }
        states
    }

    fn start(&self, tokens: &[u32]) -> Rows {
        let hidden = self.settings.hidden;
        let row = |table: &str, at: usize| {
            let table = self.tensors.get(&format!("embeddings.{table}.weight"));
            table.map_or(vec![0.0; hidden], |table| table[at * hidden..(at + 1) * hidden].to_vec())
        };
        // The small models' padding token is number 1 and in no text.
        let first = if self.settings.family == Family::Roberta { 2 } else { 0 };
        let rows = tokens.iter().enumerate().map(|(at, token)| {
            let word = vec![row("word_embeddings", *token as usize)];
            let place = vec![row("position_embeddings", first + at)];
            add(&add(&word, &place), &vec![row("token_type_embeddings", 0)]).remove(0)
        });
        self.norm(rows.collect(), "embeddings.LayerNorm")
    }

    fn linear(&self, rows: &Rows, name: &str) -> Rows {
        let (weights, bias) = (&self.tensors[&format!("{name}.weight")], &self.tensors[&format!("{name}.bias")]);
        let output = |row: &Vec<f64>, at: usize| {
            let weights = &weights[at * row.len()..(at + 1) * row.len()];
            bias[at] + row.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>()
        };
        rows.iter().map(|row| (0..bias.len()).map(|at| output(row, at)).collect()).collect()
    }

    fn norm(&self, rows: Rows, name: &str) -> Rows {
        let (gain, shift) = (&self.tensors[&format!("{name}.weight")], &self.tensors[&format!("{name}.bias")]);
        let normalise = |row: Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let deviation = (variance + f64::from(self.settings.epsilon)).sqrt();
            row.iter().enumerate().map(|(at, value)| (value - mean) / deviation * gain[at] + shift[at]).collect()
        };
        rows.into_iter().map(normalise).collect()
    }

    fn attend(&self, queries: &Rows, keys: &Rows, values: &Rows) -> Rows {
        let size = self.settings.hidden / self.settings.heads;
        let mix = |query: &Vec<f64>, at: usize| {
            let head = at / size * size..at / size * size + size;
            let score = |key: &Vec<f64>| {
                let product = query[head.clone()].iter().zip(&key[head.clone()]).map(|(a, b)| a * b).sum::<f64>();
                (product / (size as f64).sqrt()).exp()
            };
            let scores: Vec<f64> = keys.iter().map(score).collect();
            let mixed = scores.iter().zip(values).map(|(score, value)| score * value[at]).sum::<f64>();
            mixed / scores.iter().sum::<f64>()
        };
        queries.iter().map(|query| (0..self.settings.hidden).map(|at| mix(query, at)).collect()).collect()
    }
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn gelu(x: f64) -> f64 {
    // Taylor series of the error function; beyond 5 it is 1 to the last digit that matters here.
    let y = x / std::f64::consts::SQRT_2;
    if y.abs() > 5.0 {
        return if y > 0.0 { x } else { 0.0 };
    }
    let (mut term, mut sum) = (y, y);
    for n in 1..150 {
        term *= -y * y / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    x * 0.5 * (1.0 + sum * std::f64::consts::FRAC_2_SQRT_PI)
}
