//! `triaged evaluate`: what a model is worth on labelled rows, or what training would make of them.

mod live;
mod tiers;

use std::fs::File;
use std::io::{self, BufWriter, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use crate::config::{DeviceKind, parse_duration};
use crate::model::dataset::Dataset;
use crate::model::evaluation::{Outcome, Report, mcnemar};
use crate::model::train::TrainSettings;
use crate::model::validation::{cross_validate, few_rows};
use crate::model::{FastModel, Scratch};
use crate::record::Kind;

use super::train::{ColumnArguments, progress_bar, short_path, show};
use super::{Globals, write_json};

/// Measure a model, or the training itself, on labelled rows
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged evaluate --model builtin:tickets --data held-out.jsonl --predictions out.jsonl\n  \
                             triaged evaluate --compare models/old models/new --data held-out.jsonl\n  \
                             triaged evaluate --cross-validate 5 --kind ticket --data tickets.jsonl\n  \
                             triaged evaluate --model models/deep --encoder models/minilm --data held-out.jsonl\n  \
                             triaged evaluate --live --since 7d --config my.toml")]
pub(super) struct Arguments {
    /// Model package: a folder, builtin:NAME or registry:NAME
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["compare", "cross_validate", "live"])]
    model: Option<String>,

    /// Two packages on the same rows, with McNemar's test of whether they differ
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "model")]
    compare: Vec<String>,

    /// Train on all parts but one and predict that one, for this many parts
    #[arg(long, value_name = "PARTS", conflicts_with_all = ["model", "compare"], requires = "kind")]
    cross_validate: Option<usize>,

    /// With --cross-validate: train on this many rows of each label, PARTS times, and predict all other rows
    #[arg(long, value_name = "ROWS", requires = "cross_validate")]
    rows_per_label: Option<usize>,

    /// With --cross-validate: what the rows are, ticket or log
    #[arg(long, requires = "cross_validate")]
    kind: Option<Kind>,

    /// Encoder that the model was trained over, or is to be with --cross-validate: what the fast model and the encoder, in
    /// f32 and in int8, are each worth, and what each tier of the climb decides, with the LLM if escalate.llm is enabled
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["compare", "predictions"])]
    encoder: Option<PathBuf>,

    /// With --cross-validate and --encoder: train this many of its last layers on
    #[arg(long, value_name = "LAYERS", requires = "encoder", requires = "cross_validate")]
    fine_tune: Option<usize>,

    /// With --fine-tune: how often each text is seen at most
    #[arg(long, value_name = "EPOCHS", requires = "fine_tune", default_value_t = 4)]
    epochs: usize,

    /// With --cross-validate: decides how rows are dealt to parts
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Compare model.challenger with the model that decides, by the events and the feedback in ClickHouse
    #[arg(long, conflicts_with_all = ["model", "compare", "cross_validate", "data", "predictions"])]
    live: bool,

    /// With --live: how far back
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30d", requires = "live")]
    since: Duration,

    /// Labelled rows: a .csv file with a header, or JSON lines
    #[arg(long, value_name = "FILE", required_unless_present = "live")]
    data: Option<PathBuf>,

    #[command(flatten)]
    columns: ColumnArguments,

    /// Write each row's id, label, predicted label and confidence as JSON lines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "cross_validate"])]
    predictions: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    if arguments.live {
        return live::run(arguments.since, globals);
    }
    if let Some(encoder) = &arguments.encoder {
        return tiers::run(&arguments, encoder, globals);
    }
    if let Some(parts) = arguments.cross_validate {
        return validate_training(&arguments, parts, globals);
    }
    if let [first, second] = &arguments.compare[..] {
        return compare(&arguments, load(first, globals)?, load(second, globals)?, globals);
    }
    let spec = arguments.model.as_deref().context("no --model")?;
    let evaluation = Evaluation::run(&arguments, load(spec, globals)?)?;
    if let Some(path) = &arguments.predictions {
        evaluation.write_predictions(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if globals.json {
        return write_json(&evaluation.result());
    }
    let mut out = stdout().lock();
    writeln!(out, "{} on {}", evaluation.model.id(), short_path(arguments.data()?))?;
    write_report(&mut out, &evaluation.report)?;
    Ok(())
}

impl Arguments {
    fn data(&self) -> anyhow::Result<&Path> {
        self.data.as_deref().context("no --data")
    }
}

/// One model's predictions for all rows of a data set.
struct Evaluation {
    model: FastModel,
    dataset: Dataset,
    outcomes: Vec<Outcome>,
    report: Report,
}

#[derive(Serialize)]
struct ModelResult<'a> {
    model: &'a str,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct RowPrediction<'a> {
    id: &'a str,
    label: &'a str,
    predicted: &'a str,
    confidence: f32,
}

impl Evaluation {
    fn run(arguments: &Arguments, model: FastModel) -> anyhow::Result<Self> {
        let dataset = Dataset::read(arguments.data()?, model.kind(), &arguments.columns.columns())?;
        // Labels that the model does not know are counted too, as errors.
        let mut names = dataset.labels();
        names.extend(model.labels().iter().map(|label| label.to_string()));
        names.sort_unstable();
        names.dedup();
        let place = |label: &str| names.iter().position(|name| name == label).unwrap_or_default();
        let of_model: Vec<usize> = model.labels().iter().map(|label| place(label)).collect();
        let mut scratch = Scratch::new();
        let outcomes: Vec<Outcome> = dataset
            .examples
            .iter()
            .map(|example| {
                let found = model.classify(&example.record, &mut scratch);
                Outcome { label: place(&example.label), predicted: of_model[found.label], confidence: found.confidence }
            })
            .collect();
        let report = Report::new(&outcomes, &names, &format!("all rows of {}", short_path(arguments.data()?)));
        Ok(Evaluation { model, dataset, outcomes, report })
    }

    fn result(&self) -> ModelResult<'_> {
        ModelResult { model: self.model.id(), report: &self.report }
    }

    fn write_predictions(&self, path: &Path) -> anyhow::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for (example, outcome) in self.dataset.examples.iter().zip(&self.outcomes) {
            let row = RowPrediction {
                id: &example.id,
                label: &example.label,
                predicted: &self.report.labels[outcome.predicted],
                confidence: outcome.confidence,
            };
            serde_json::to_writer(&mut out, &row)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    }
}

/// Only a spec of the registry needs the configuration.
fn load(spec: &str, globals: &Globals) -> anyhow::Result<FastModel> {
    match spec.starts_with("registry:") {
        true => Ok(FastModel::load_configured(spec, &globals.load_config()?.model)?),
        false => Ok(FastModel::load(spec, DeviceKind::Flex)?),
    }
}

fn compare(arguments: &Arguments, first: FastModel, second: FastModel, globals: &Globals) -> anyhow::Result<()> {
    let (first, second) = (Evaluation::run(arguments, first)?, Evaluation::run(arguments, second)?);
    if first.model.kind() != second.model.kind() {
        bail!(
            "{} is for {}s and {} for {}s",
            first.model.id(),
            first.model.kind(),
            second.model.id(),
            second.model.kind()
        );
    }
    let test = mcnemar(&first.outcomes, &second.outcomes);
    if globals.json {
        return write_json(&serde_json::json!({ "first": first.result(), "second": second.result(), "mcnemar": test }));
    }
    let mut out = stdout().lock();
    for evaluation in [&first, &second] {
        writeln!(out, "{}", evaluation.model.id())?;
        write_summary(&mut out, &evaluation.report)?;
    }
    writeln!(
        out,
        "only the first is right on {} rows, only the second on {} (McNemar's exact test: p = {:.4})",
        test.only_first_right, test.only_second_right, test.p_value
    )?;
    Ok(())
}

fn validate_training(arguments: &Arguments, parts: usize, globals: &Globals) -> anyhow::Result<()> {
    let kind = arguments.kind.context("--cross-validate needs --kind")?;
    let dataset = Dataset::read(arguments.data()?, kind, &arguments.columns.columns())?;
    let settings = TrainSettings { seed: arguments.seed, ..TrainSettings::new(kind, "validation") };
    let bar = progress_bar();
    let mut progress = |progress| show(&bar, &progress);
    let result = match arguments.rows_per_label {
        Some(rows) => few_rows(&dataset, &settings, rows, parts, &mut progress)?,
        None => cross_validate(&dataset, &settings, parts, &mut progress)?,
    };
    bar.finish_and_clear();
    if globals.json {
        return write_json(&result);
    }
    let mut out = stdout().lock();
    write_report(&mut out, &result.report)?;
    let accuracies: Vec<String> = result.accuracies.iter().map(|accuracy| format!("{accuracy:.4}")).collect();
    writeln!(out, "\naccuracy of each model: {}", accuracies.join(" "))?;
    Ok(())
}

pub(super) fn write_summary(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let summary = &report.summary;
    writeln!(
        out,
        "accuracy {:.4}, macro F1 {:.4}, calibration error {:.4} ({} rows, {})",
        summary.accuracy, summary.macro_f1, summary.ece, summary.rows, summary.method
    )
}

/// The report as tables for people.
pub(super) fn write_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    write_summary(out, report)?;
    let width = report.labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(5);
    writeln!(out, "\n{:width$}  precision  recall      f1    rows", "label")?;
    for class in &report.per_class {
        let note = if class.too_small { "  too few to trust" } else { "" };
        writeln!(
            out,
            "{:width$}  {:9.3}  {:6.3}  {:6.3}  {:6}{note}",
            class.label, class.precision, class.recall, class.f1, class.support
        )?;
    }
    writeln!(out, "\n{:width$}  predicted as, in the order of the labels", "confusion")?;
    for (label, row) in report.labels.iter().zip(&report.confusion) {
        let cells: Vec<String> = row.iter().map(|count| format!("{count:5}")).collect();
        writeln!(out, "{label:width$}  {}", cells.join(" "))?;
    }
    writeln!(out, "\nprecision  share of rows  confidence at least")?;
    for line in &report.risk_coverage {
        match line.threshold {
            Some(threshold) => writeln!(out, "{:9.2}  {:13.3}  {threshold:.3}", line.precision, line.coverage)?,
            None => writeln!(out, "{:9.2}  {:>13}", line.precision, "none")?,
        }
    }
    Ok(())
}
