//! `triaged evaluate --encoder`: what each tier is worth alone, and what it decides in the climb.

use std::io::{self, Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use crate::config::{Config, DeviceKind};
use crate::escalate::llm::{Label, LabelSet, LlmOutcome, LlmTier};
use crate::model::climb::{TierFigures, TierOutcomes, Unseen, climb};
use crate::model::dataset::Dataset;
use crate::model::evaluation::{Outcome, Report};
use crate::model::train::TrainSettings;
use crate::model::validation::Splits;
use crate::model::{DeepModel, Encoder, EncoderPrecision};
use crate::record::Kind;

use super::super::compare::ask_all;
use super::super::train::{fine_tune, progress_bar, short_path, show_deep};
use super::super::{Globals, write_json};
use super::Arguments;

/// What is known of all rows.
#[derive(Debug, Serialize)]
struct Figures {
    rows: usize,
    method: String,
    /// Had it been asked about every row.
    alone: Vec<Alone>,
    /// At `decide.auto_route`, with the encoder in int8.
    auto_route: f32,
    climb: Vec<TierFigures>,
    llm_tokens: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Alone {
    tier: &'static str,
    #[serde(flatten)]
    report: Report,
}

pub(super) fn run(arguments: &Arguments, folder: &Path, globals: &Globals) -> anyhow::Result<()> {
    let config = globals.load_config()?;
    let load = |precision| Encoder::load(folder, precision).map(Arc::new);
    let encoders = [load(EncoderPrecision::F32)?, load(EncoderPrecision::Int8)?];
    let (kind, dataset, unseen) = match arguments.cross_validate {
        Some(parts) => {
            let kind = arguments.kind.context("--cross-validate needs --kind")?;
            let dataset = Dataset::read(arguments.data()?, kind, &arguments.columns.columns())?;
            let unseen = validate(arguments, parts, kind, &dataset, folder, &encoders)?;
            (kind, dataset, unseen)
        }
        None => {
            let package = arguments.model.as_deref().context("no --model")?;
            let models: Result<Vec<DeepModel>, _> = encoders
                .iter()
                .map(|encoder| DeepModel::load(Path::new(package), Arc::clone(encoder), DeviceKind::Flex))
                .collect();
            let models = models?;
            let kind = models[0].fast().kind();
            let dataset = Dataset::read(arguments.data()?, kind, &arguments.columns.columns())?;
            let method = format!("all rows of {}", short_path(arguments.data()?));
            let unseen = Unseen::of_models(&dataset, &models, &method)?;
            (kind, dataset, unseen)
        }
    };
    let alone: Vec<Alone> =
        unseen.tiers.iter().map(|tier| Alone { tier: tier.tier, report: unseen.report(tier) }).collect();
    let mut tiers: Vec<TierOutcomes> =
        unseen.tiers.iter().filter(|tier| tier.tier != "encoder, f32").cloned().collect();
    let mut llm_tokens = None;
    if config.escalate.llm.enabled {
        let (tier, tokens) = ask_llm(&config, kind, &dataset, &unseen, &tiers)?;
        tiers.push(tier);
        llm_tokens = Some(tokens);
    }
    let figures = Figures {
        rows: unseen.rows.len(),
        method: unseen.method.clone(),
        alone,
        auto_route: config.decide.auto_route,
        climb: climb(&tiers, config.decide.auto_route),
        llm_tokens,
    };
    if globals.json {
        return write_json(&figures);
    }
    write_figures(&mut stdout().lock(), &figures)?;
    Ok(())
}

fn validate(
    arguments: &Arguments,
    parts: usize,
    kind: Kind,
    dataset: &Dataset,
    folder: &Path,
    encoders: &[Arc<Encoder>],
) -> anyhow::Result<Unseen> {
    let settings = TrainSettings { seed: arguments.seed, ..TrainSettings::new(kind, "validation") };
    let splits = match arguments.rows_per_label {
        Some(rows) => Splits::draws(dataset, rows, parts, settings.seed),
        None => Splits::parts(dataset, parts, settings.seed),
    };
    let fine_tune = arguments.fine_tune.map(|layers| fine_tune(folder, layers, arguments.epochs)).transpose()?;
    let bar = progress_bar();
    let unseen = Unseen::of_training(dataset, &settings, &splits, encoders, fine_tune.as_ref(), &mut |split, step| {
        bar.set_prefix(format!("{}/{parts}", split + 1));
        show_deep(&bar, &step);
    })?;
    bar.finish_and_clear();
    Ok(unseen)
}

/// Asks the LLM about the rows that the tiers before leave open.
fn ask_llm(
    config: &Config,
    kind: Kind,
    dataset: &Dataset,
    unseen: &Unseen,
    tiers: &[TierOutcomes],
) -> anyhow::Result<(TierOutcomes, u64)> {
    let is_sure = |outcome: &Option<Outcome>| outcome.is_some_and(|said| said.confidence >= config.decide.auto_route);
    let open: Vec<usize> =
        (0..unseen.rows.len()).filter(|&at| !tiers.iter().any(|tier| is_sure(&tier.outcomes[at]))).collect();
    let labels = unseen.names.iter().map(|name| Label::new(Arc::from(name.as_str()), "")).collect();
    let labels = Arc::new(LabelSet::try_new(labels)?);
    let texts = open.iter().map(|&at| dataset.examples[unseen.rows[at]].record.text().to_owned()).collect();
    let tier = Arc::new(LlmTier::try_new(config.escalate.llm.clone())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let started = Instant::now();
    let answers = runtime.block_on(ask_all(&tier, &labels, kind, texts));
    let mut tokens = 0;
    let mut outcomes = vec![None; unseen.rows.len()];
    for (at, answer) in open.into_iter().zip(answers) {
        let Some(LlmOutcome::Answer(answer)) = answer else { continue };
        tokens += answer.usage.input + answer.usage.output;
        let place = |label: &str| unseen.names.iter().position(|name| name == label);
        let label = place(&dataset.examples[unseen.rows[at]].label);
        if let (Some(label), Some(predicted)) = (label, place(&answer.label)) {
            outcomes[at] = Some(Outcome { label, predicted, confidence: answer.confidence });
        }
    }
    Ok((TierOutcomes { tier: "llm", outcomes, time: started.elapsed() }, tokens))
}

fn write_figures(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    writeln!(out, "{} rows, {}", figures.rows, figures.method)?;
    writeln!(out, "\n{:14} {:>8}  {:>8}  calibration error", "each alone", "accuracy", "macro F1")?;
    for Alone { tier, report } in &figures.alone {
        let summary = &report.summary;
        writeln!(out, "{tier:14} {:8.4}  {:8.4}  {:17.4}", summary.accuracy, summary.macro_f1, summary.ece)?;
    }
    writeln!(
        out,
        "\n{:14} {:>6}  {:>7}  {:>8}  {:>21}  {:>10}",
        format!("climb at {:.2}", figures.auto_route),
        "asked",
        "decides",
        "accuracy",
        "all rows if it ends so",
        "µs a row"
    )?;
    for tier in &figures.climb {
        let accuracy = tier.accuracy.map_or_else(|| "-".to_owned(), |accuracy| format!("{accuracy:.4}"));
        writeln!(
            out,
            "{:14} {:6}  {:7}  {accuracy:>8}  {:22.4}  {:10.1}",
            tier.tier, tier.asked, tier.decided, tier.accuracy_so_far, tier.microseconds
        )?;
    }
    let left = figures.rows - figures.climb.iter().map(|tier| tier.decided).sum::<usize>();
    writeln!(out, "{:14} {left:6}", "a person")?;
    match figures.llm_tokens {
        Some(tokens) => writeln!(out, "the LLM took {tokens} tokens"),
        None => Ok(()),
    }
}
