//! `triaged train`: a model package from labelled rows.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::DeviceKind;
use crate::model::dataset::{Columns, Dataset};
use crate::model::train::{TrainSettings, Trained, train};
use crate::record::Kind;

/// Train a model package from labelled rows
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// What the rows are: ticket or log
    #[arg(long)]
    kind: Kind,

    /// Labelled rows: a .csv file with a header, or JSON lines
    #[arg(long)]
    data: PathBuf,

    /// Folder of the package; a package that is there is replaced
    #[arg(long)]
    out: PathBuf,

    /// Name of the model [default: the folder's name]
    #[arg(long)]
    name: Option<String>,

    #[command(flatten)]
    columns: ColumnArgs,

    /// Decides how rows are dealt to folds; the same seed, rows and settings give the same package, byte for byte
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Parts that the rows are dealt to for validation
    #[arg(long, default_value_t = 5)]
    folds: usize,

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

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Column names that `train` and `evaluate` share.
#[derive(Debug, Args)]
pub(super) struct ColumnArgs {
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

impl ColumnArgs {
    pub(super) fn columns(&self) -> Columns {
        Columns {
            title: self.title_field.clone(),
            text: self.text_field.clone(),
            label: self.label_field.clone(),
            id: self.id_field.clone(),
        }
    }
}

pub(super) fn run(args: &TrainArgs) -> Result<()> {
    let dataset = Dataset::read(&args.data, args.kind, &args.columns.columns())?;
    let folder_name = || args.out.file_name().map(|name| name.to_string_lossy().into_owned());
    let settings = TrainSettings {
        kind: args.kind,
        name: args.name.clone().or_else(folder_name).context("--out has no folder name; give --name")?,
        seed: args.seed,
        folds: args.folds,
        target_precision: args.target_precision,
        device: DeviceKind::Flex,
        data_name: args.data_name.clone().unwrap_or_else(|| short_path(&args.data)),
        licence: args.licence.clone(),
        origin: args.origin.clone(),
        command: command_line(args),
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if !stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}").expect("a valid template"));
    let trained = train(&dataset, &settings, &mut |progress| {
        bar.set_length(progress.of as u64);
        bar.set_position(progress.done as u64);
        if let Some(best) = progress.best {
            bar.set_message(format!("accuracy {best:.4}"));
        }
    })?;
    bar.finish_and_clear();
    trained.write(&args.out)?;
    print(args, &dataset, &trained)?;
    Ok(())
}

#[allow(clippy::print_stdout)]
fn print(args: &TrainArgs, dataset: &Dataset, trained: &Trained) -> Result<()> {
    if args.json {
        let result = serde_json::json!({
            "package": args.out,
            "manifest": trained.manifest(),
            "duplicates": dataset.duplicates,
            "conflicts": dataset.conflicts,
            "rows_with_twins": trained.rows_with_twins,
            "suspects": trained.suspects,
            "report": trained.report,
            "seconds": trained.seconds,
        });
        println!("{}", serde_json::to_string_pretty(&result)?);
        return Ok(());
    }
    let summary = &trained.report.summary;
    println!(
        "{} rows, {} duplicates dropped, {} labels",
        dataset.rows,
        dataset.duplicates,
        trained.manifest().labels.len()
    );
    println!(
        "accuracy {:.4}, macro F1 {:.4}, calibration error {:.4} ({})",
        summary.accuracy, summary.macro_f1, summary.ece, summary.method
    );
    println!("{} written in {:.1} s", args.out.display(), trained.seconds);
    Ok(())
}

/// The folder and the name of a file: enough to tell data sets apart, and free of one machine's paths.
fn short_path(path: &std::path::Path) -> String {
    let parts: Vec<_> =
        path.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn command_line(args: &TrainArgs) -> String {
    format!(
        "triaged train --kind {} --data {} --out {} --seed {} --folds {}",
        args.kind,
        short_path(&args.data),
        short_path(&args.out),
        args.seed,
        args.folds
    )
}
