//! `triaged compare`: what the fast model and the LLM say about the same labelled rows.

use std::io::{self, Write, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::task::JoinSet;

use crate::classify::{ClassifierError, Models};
use crate::escalate::llm::{Agreement, Isotonic, Label, LabelSet, LlmOutcome, LlmTier, Pair, Question};
use crate::model::Scratch;
use crate::model::dataset::Dataset;
use crate::record::Kind;

use super::train::{ColumnArguments, progress_bar};
use super::{Globals, UsageError, write_json};

/// Mismatches that are listed; `--json` and `--mismatches` have all.
const MISMATCHES_SHOWN: usize = 10;
/// Longer than the tier's own deadline can be.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Label rows with the fast model and with the LLM, and compare
///
/// The LLM is that of [escalate.llm], with its limits and masks. Prints how far the two agree, how often each is right,
/// and what the LLM's own confidence is worth: the points for `escalate.llm.calibration`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  \
                             triaged compare --config my.toml --kind ticket --data tickets.jsonl --limit 200")]
pub(super) struct Arguments {
    /// What the rows are: ticket or log
    #[arg(long)]
    kind: Kind,

    /// Labelled rows: a .csv file with a header, or JSON lines
    #[arg(long)]
    data: PathBuf,

    /// Rows to take from the start of the file
    #[arg(long, value_name = "ROWS")]
    limit: Option<usize>,

    /// Write the rows on which the two differ to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    mismatches: Option<PathBuf>,

    #[command(flatten)]
    columns: ColumnArguments,
}

/// What both said about one row.
#[derive(Debug, Default, Clone)]
struct Said {
    fast: Option<String>,
    llm: Option<String>,
    /// The LLM's confidence as it stated it.
    stated: f32,
    no_answer: Option<&'static str>,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let config = globals.load_config()?;
    if !config.escalate.llm.enabled {
        return Err(UsageError("escalate.llm.enabled is false: there is no LLM to compare with".to_owned()).into());
    }
    let dataset = Dataset::read(&arguments.data, arguments.kind, &arguments.columns.columns())?;
    let rows = arguments.limit.unwrap_or(usize::MAX).min(dataset.examples.len());
    let models = Models::load(&config).map_err(ClassifierError::Models)?;
    let model =
        models.of(arguments.kind).with_context(|| format!("there is no model for {} records", arguments.kind))?;
    let labels = LabelSet::try_new(model.labels().iter().map(|label| Label::new(Arc::clone(label), "")).collect())?;
    let mut scratch = Scratch::new();
    let mut said: Vec<Said> = dataset.examples[..rows]
        .iter()
        .map(|example| {
            let label = model.classify(&example.record, &mut scratch).label;
            Said { fast: Some(model.labels()[label].to_string()), ..Said::default() }
        })
        .collect();
    let texts: Vec<String> = dataset.examples[..rows].iter().map(|example| example.record.text().to_owned()).collect();
    let tier = Arc::new(LlmTier::try_new(config.escalate.llm.clone())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcomes = runtime.block_on(ask_all(&tier, &Arc::new(labels), arguments.kind, texts));
    for (said, outcome) in said.iter_mut().zip(outcomes) {
        match outcome {
            Some(LlmOutcome::Answer(answer)) => {
                said.llm = Some(answer.label.to_string());
                said.stated = answer.stated;
            }
            Some(LlmOutcome::NoAnswer(why)) => said.no_answer = Some(why.as_str()),
            None => {}
        }
    }

    let pairs = said.iter().enumerate().map(|(row, said)| Pair {
        row: row + 1,
        first: said.fast.as_deref(),
        second: said.llm.as_deref(),
    });
    let agreement = Agreement::of(pairs);
    let truth: Vec<&str> = dataset.examples[..rows].iter().map(|example| example.label.as_str()).collect();
    let right = |pick: fn(&Said) -> Option<&str>| {
        said.iter().zip(&truth).filter(|(said, truth)| pick(said) == Some(**truth)).count()
    };
    let (fast_right, llm_right) = (right(|said| said.fast.as_deref()), right(|said| said.llm.as_deref()));
    let answered =
        said.iter().zip(&truth).filter_map(|(said, truth)| Some((said.stated, said.llm.as_deref()? == *truth)));
    let calibration = Isotonic::fit(answered);
    if let Some(path) = &arguments.mismatches {
        write_mismatches(path, &agreement, &truth).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let points: Vec<String> = calibration
        .iter()
        .flat_map(Isotonic::points)
        .map(|(stated, right)| format!("{stated:.3}={right:.3}"))
        .collect();
    if globals.json {
        return write_json(&serde_json::json!({
            "rows": rows,
            "agreement": agreement,
            "fast_accuracy": share(fast_right, rows),
            "llm_accuracy": share(llm_right, rows),
            "calibration": points,
            "no_answer": reasons(&said),
        }));
    }
    write_result(&mut stdout().lock(), &agreement, &said, (fast_right, llm_right), &points)?;
    Ok(())
}

/// Asks about all texts; the tier itself keeps to its limits.
pub(super) async fn ask_all(
    tier: &Arc<LlmTier>,
    labels: &Arc<LabelSet>,
    kind: Kind,
    texts: Vec<String>,
) -> Vec<Option<LlmOutcome>> {
    /// Rows that wait for the tier at a time.
    const WAITING: usize = 64;
    let bar = progress_bar();
    bar.set_length(texts.len() as u64);
    let mut outcomes = vec![None; texts.len()];
    let mut asked = JoinSet::new();
    let mut texts = texts.into_iter().enumerate();
    loop {
        while asked.len() < WAITING
            && let Some((row, text)) = texts.next()
        {
            let (tier, labels) = (Arc::clone(tier), Arc::clone(labels));
            asked.spawn(async move {
                let deadline = tokio::time::Instant::now() + LONGEST_WAIT;
                let question = Question { text: &text, kind, labels: &labels, template_key: None, deadline };
                (row, tier.ask(question).await)
            });
        }
        let Some(Ok((row, outcome))) = asked.join_next().await else { break };
        outcomes[row] = Some(outcome);
        bar.inc(1);
    }
    bar.finish_and_clear();
    outcomes
}

fn write_mismatches(path: &std::path::Path, agreement: &Agreement, truth: &[&str]) -> io::Result<()> {
    let mut out = io::BufWriter::new(std::fs::File::create(path)?);
    for mismatch in &agreement.mismatches {
        let line = serde_json::json!({
            "row": mismatch.row,
            "fast": mismatch.first,
            "llm": mismatch.second,
            "label": truth[mismatch.row - 1],
        });
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn write_result(
    out: &mut impl Write,
    agreement: &Agreement,
    said: &[Said],
    (fast_right, llm_right): (usize, usize),
    points: &[String],
) -> io::Result<()> {
    writeln!(out, "{} rows, {} answered by both", agreement.rows, agreement.compared)?;
    writeln!(out, "fast model right: {:.4}", share(fast_right, said.len()))?;
    writeln!(out, "LLM right:        {:.4} (no answer counts as wrong)", share(llm_right, said.len()))?;
    if let (Some(share), Some((low, high))) = (agreement.agreement, agreement.agreement95) {
        writeln!(out, "they agree:       {share:.4} (95 % interval {low:.4} to {high:.4})")?;
    }
    if let Some(kappa) = agreement.kappa {
        writeln!(out, "Cohen's kappa:    {kappa:.4}")?;
    }
    for (reason, rows) in reasons(said) {
        writeln!(out, "no answer, {reason}: {rows}")?;
    }
    for mismatch in agreement.mismatches.iter().take(MISMATCHES_SHOWN) {
        writeln!(out, "  row {:<6} fast {}, LLM {}", mismatch.row, mismatch.first, mismatch.second)?;
    }
    if points.is_empty() {
        return writeln!(out, "\ntoo few answers to tell what the LLM's confidence is worth");
    }
    let points: Vec<String> = points.iter().map(|point| format!("{point:?}")).collect();
    writeln!(out, "\n[escalate.llm]\ncalibration = [{}]", points.join(", "))
}

fn reasons(said: &[Said]) -> std::collections::BTreeMap<&'static str, usize> {
    let mut reasons = std::collections::BTreeMap::new();
    for reason in said.iter().filter_map(|said| said.no_answer) {
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}

fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}
