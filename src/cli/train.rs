//! `triaged train`: a model package from labelled rows.

mod feedback;

use std::io::{self, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::{DeviceKind, parse_duration};
use crate::model::dataset::{Columns, Dataset, Leakage};
use crate::model::train::{DEFAULT_TIME_BUDGET, Progress, TrainSettings, Trained, train};
use crate::model::{DeepProgress, Encoder, EncoderPrecision, FineTune, train_deep};
use crate::record::Kind;

use super::evaluate::write_report;
use super::{Globals, UsageError, write_json};

/// Suspects and conflicts that are listed; `--json` lists all.
const SUSPECTS_SHOWN: usize = 10;

/// Train a model package from labelled rows
///
/// Settings are chosen by cross-validation, so nothing has to be tuned by hand. The package is written only when all
/// is done: stopping earlier leaves what was there before.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged train --kind ticket --data tickets.jsonl --out models/mine\n  \
                             triaged train --kind log --data lines.csv --text-field msg --label-field team --out models/lines\n  \
                             triaged train --kind ticket --data tickets.jsonl --from-feedback --since 30d")]
pub(super) struct Arguments {
    /// What the rows are: ticket or log
    #[arg(long)]
    kind: Kind,

    /// Labelled rows: a .csv file with a header, or JSON lines
    #[arg(long)]
    data: PathBuf,

    /// Rows kept apart for testing, with the same columns: those that are among the training rows too are named
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,

    /// Folder of the package; a package that is there is replaced
    #[arg(long, required_unless_present = "from_feedback", conflicts_with = "from_feedback")]
    out: Option<PathBuf>,

    /// Add what people said about events, train, and compare with the model in use on rows held out; the result is a
    /// new version in model.registry, and is put into use when it is not worse
    #[arg(long)]
    from_feedback: bool,

    /// With --from-feedback: how far back it is read
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30d")]
    since: Duration,

    /// With --from-feedback: put the version into use even if it is worse
    #[arg(long, requires = "from_feedback")]
    promote: bool,

    /// Name of the model [default: the folder's name; with --from-feedback, that of the model in use]
    #[arg(long)]
    name: Option<String>,

    #[command(flatten)]
    columns: ColumnArguments,

    /// Decides how rows are dealt to folds; the same seed, rows and settings give the same package, byte for byte
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Parts that the rows are dealt to for validation
    #[arg(long, default_value_t = 5)]
    folds: usize,

    /// Seconds that the search for settings may take on two cores of a small server; counted as work, not by the clock
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIME_BUDGET)]
    time_budget: f64,

    /// Train for the escalate role, over the transformer in this folder (config.json, model.safetensors, tokenizer.json):
    /// the package holds a head over its embeddings and the fast model
    #[arg(long, value_name = "FOLDER")]
    encoder: Option<PathBuf>,

    /// With --encoder: train this many of its last layers on, for each fold and at the end; they are used if validation
    /// says that they help. Takes minutes to hours
    #[arg(long, value_name = "LAYERS", requires = "encoder", conflicts_with = "from_feedback")]
    fine_tune: Option<usize>,

    /// With --fine-tune: how often each text is seen at most
    #[arg(long, value_name = "EPOCHS", requires = "fine_tune", default_value_t = 4)]
    epochs: usize,

    /// Store the confidence at which this share of decisions was right in validation, such as 0.99
    #[arg(long)]
    target_precision: Option<f32>,

    /// Name of the data, for the manifest [default: the file's folder and name]
    #[arg(long)]
    data_name: Option<String>,

    /// Licence of the data, for the manifest
    #[arg(long)]
    licence: Option<String>,

    /// Where the data come from, for the manifest
    #[arg(long)]
    origin: Option<String>,
}

/// Column names that `train` and `evaluate` share.
#[derive(Debug, Args)]
pub(super) struct ColumnArguments {
    /// Column of the title [default: title or subject, if there]
    #[arg(long)]
    title_field: Option<String>,

    /// Column of the text [default: content, description, body, log_message, message or text]
    #[arg(long)]
    text_field: Option<String>,

    /// Column of the label [default: assigned_queue, target_label, label, category, queue or intent]
    #[arg(long)]
    label_field: Option<String>,

    /// Column of the row's id [default: ticket_id or id, else the line number]
    #[arg(long)]
    id_field: Option<String>,
}

impl ColumnArguments {
    pub(super) fn columns(&self) -> Columns {
        Columns {
            title: self.title_field.clone(),
            text: self.text_field.clone(),
            label: self.label_field.clone(),
            id: self.id_field.clone(),
        }
    }
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    let folder_name = || Some(arguments.out.as_ref()?.file_name()?.to_string_lossy().into_owned());
    let settings = TrainSettings {
        kind: arguments.kind,
        name: arguments.name.clone().or_else(folder_name).unwrap_or_default(),
        seed: arguments.seed,
        folds: arguments.folds,
        time_budget: arguments.time_budget,
        target_precision: arguments.target_precision,
        device: DeviceKind::Flex,
        data_name: arguments.data_name.clone().unwrap_or_else(|| short_path(&arguments.data)),
        licence: arguments.licence.clone(),
        origin: arguments.origin.clone(),
        command: command_line(&arguments),
    };
    if arguments.from_feedback {
        return feedback::run(&arguments, settings, globals);
    }
    let out_folder = arguments.out.as_deref().context("no --out")?;
    anyhow::ensure!(!settings.name.is_empty(), "--out has no folder name; give --name");
    let dataset = Dataset::read(&arguments.data, arguments.kind, &arguments.columns.columns())?;
    let read_held_out = |path| Dataset::read(path, arguments.kind, &arguments.columns.columns());
    let held_out = arguments.held_out.as_deref().map(read_held_out).transpose()?;
    let leakage = held_out.map(|rows| dataset.leakage(&rows));
    if let Some(folder) = &arguments.encoder {
        let fine_tune = arguments.fine_tune.map(|layers| fine_tune(folder, layers, arguments.epochs)).transpose()?;
        return run_deep(globals, &dataset, &settings, folder, fine_tune.as_ref(), out_folder);
    }
    let bar = progress_bar();
    let trained = train(&dataset, &settings, &mut |progress| show(&bar, &progress))?;
    bar.finish_and_clear();
    trained.write(out_folder)?;
    if globals.json {
        return write_json(&serde_json::json!({
            "package": arguments.out,
            "manifest": trained.manifest(),
            "duplicates": trained.duplicates,
            "conflicts": trained.conflicts,
            "rows_with_twins": trained.rows_with_twins,
            "leakage": leakage,
            "suspects": trained.suspects,
            "report": trained.report,
            "seconds": trained.seconds,
        }));
    }
    let mut out = stdout().lock();
    write_result(&mut out, out_folder, &trained, leakage.as_ref())?;
    Ok(())
}

fn run_deep(
    globals: &Globals,
    dataset: &Dataset,
    settings: &TrainSettings,
    folder: &Path,
    fine_tune: Option<&FineTune>,
    out_folder: &Path,
) -> anyhow::Result<()> {
    // In f32, so that the head does not depend on the processor that it was trained on.
    let encoder = Encoder::load(folder, EncoderPrecision::F32)?;
    let bar = progress_bar();
    let trained = train_deep(dataset, settings, &encoder, fine_tune, &mut |progress| show_deep(&bar, &progress))?;
    bar.finish_and_clear();
    trained.write(out_folder)?;
    if globals.json {
        return write_json(&serde_json::json!({
            "package": out_folder,
            "manifest": trained.manifest(),
            "report": trained.report,
            "fast_report": trained.fast().report,
            "seconds": trained.seconds,
        }));
    }
    let mut out = stdout().lock();
    write_report(&mut out, &trained.report)?;
    writeln!(
        out,
        "\nthe fast model alone: accuracy {:.4}, expected calibration error {:.4}",
        trained.fast().report.summary.accuracy,
        trained.fast().report.summary.ece
    )?;
    writeln!(out, "{} written after {:.1} s", out_folder.display(), trained.seconds)?;
    Ok(())
}

/// The settings of fine-tuning, checked as far as the command line goes.
pub(super) fn fine_tune(folder: &Path, layers: usize, epochs: usize) -> anyhow::Result<FineTune> {
    match epochs {
        1..=100 => Ok(FineTune { folder: folder.to_owned(), layers, epochs }),
        _ => Err(UsageError(format!("--epochs {epochs}: 1 to 100 are possible")).into()),
    }
}

pub(super) fn show_deep(bar: &ProgressBar, progress: &DeepProgress) {
    let (done, of, message) = match progress {
        DeepProgress::Fast(progress) => return show(bar, progress),
        DeepProgress::Embedding { done, of } => (done, of, "texts read by the encoder".to_owned()),
        DeepProgress::Tuning { done, of } => (done, of, "texts trained on".to_owned()),
        DeepProgress::Head { done, of, best } => (done, of, format!("head, accuracy {best:.4}")),
    };
    bar.set_length(*of as u64);
    bar.set_position(*done as u64);
    bar.set_message(message);
}

fn write_result(
    out: &mut impl Write,
    folder: &std::path::Path,
    trained: &Trained,
    leakage: Option<&Leakage>,
) -> io::Result<()> {
    let data = &trained.manifest().data;
    writeln!(out, "{} rows, {} duplicates dropped", data.rows, trained.duplicates)?;
    write_report(out, &trained.report)?;
    if !trained.conflicts.is_empty() {
        writeln!(
            out,
            "\n{} rows have a text that occurs with another label too: {}",
            trained.conflicts.len(),
            some(&trained.conflicts)
        )?;
    }
    if trained.rows_with_twins > 0 {
        let share = trained.rows_with_twins as f64 / data.rows_used as f64;
        writeln!(
            out,
            "\n{:.1} % of the rows differ from a row of another fold only in numbers, case or punctuation: on texts \
             unlike these, expect less",
            100.0 * share
        )?;
    }
    if let Some(Leakage { same_text, same_shape }) = leakage {
        writeln!(
            out,
            "\nheld-out rows that are training rows too: {} with the same text ({}), {} that differ only in numbers, case or \
             punctuation ({})",
            same_text.len(),
            some(same_text),
            same_shape.len(),
            some(same_shape)
        )?;
    }
    if !trained.suspects.is_empty() {
        writeln!(
            out,
            "\n{} labels look wrong: models that did not see the row are sure of another one",
            trained.suspects.len()
        )?;
        for suspect in trained.suspects.iter().take(SUSPECTS_SHOWN) {
            writeln!(
                out,
                "  {:<20} is {}, looks like {} ({:.2})",
                suspect.id, suspect.label, suspect.predicted, suspect.confidence
            )?;
        }
    }
    writeln!(out, "\n{} written after {:.1} s", folder.display(), trained.seconds)
}

fn some(ids: &[String]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    let more = if ids.len() > SUSPECTS_SHOWN { ", ..." } else { "" };
    ids[..ids.len().min(SUSPECTS_SHOWN)].join(", ") + more
}

/// A bar on the standard error, if that is a terminal.
pub(super) fn progress_bar() -> ProgressBar {
    let style = "{elapsed} {wide_bar} {pos}/{len} {msg}";
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub(super) fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_length(progress.of as u64);
    bar.set_position(progress.done as u64);
    if let Some(best) = progress.best {
        bar.set_message(format!("accuracy {best:.4}"));
    }
}

/// The folder and the name of a file: enough to tell data sets apart, and free of one machine's paths.
pub(super) fn short_path(path: &std::path::Path) -> String {
    let parts: Vec<_> =
        path.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn command_line(arguments: &Arguments) -> String {
    let mut words = vec!["triaged train".to_owned()];
    let mut add = |name: &str, value: &dyn std::fmt::Display| words.push(format!("--{name} {value}"));
    add("kind", &arguments.kind);
    add("data", &short_path(&arguments.data));
    if let Some(out) = &arguments.out {
        add("out", &short_path(out));
    }
    add("seed", &arguments.seed);
    add("folds", &arguments.folds);
    let columns = &arguments.columns;
    let optional = [
        ("name", &arguments.name),
        ("title-field", &columns.title_field),
        ("text-field", &columns.text_field),
        ("label-field", &columns.label_field),
        ("id-field", &columns.id_field),
        ("data-name", &arguments.data_name),
        ("licence", &arguments.licence),
        ("origin", &arguments.origin),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            add(name, value);
        }
    }
    if arguments.time_budget != DEFAULT_TIME_BUDGET {
        add("time-budget", &arguments.time_budget);
    }
    if let Some(encoder) = &arguments.encoder {
        add("encoder", &short_path(encoder));
    }
    if let Some(layers) = &arguments.fine_tune {
        add("fine-tune", layers);
        add("epochs", &arguments.epochs);
    }
    if let Some(precision) = arguments.target_precision {
        add("target-precision", &precision);
    }
    if arguments.from_feedback {
        words.push("--from-feedback".to_owned());
    }
    words.join(" ")
}
