//! `triaged forecast`: forecasts of any series in a file, with the methods of the daemon.

mod backtest;
mod chart;
mod input;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;
use serde::Serialize;

use crate::forecast::{Backtest, Estimate, Forecast, ForecastSettings, Series, Trend, forecast};
use crate::record::rfc3339;

use super::{Globals, UsageError};
use input::Given;

/// Series that are fitted between two looks at the progress bar.
const PART: usize = 16;
/// Series that are drawn; more would fit on no screen.
const MOST_CHARTS: usize = 24;

/// Forecast any series of counts in a file, without Kafka or ClickHouse
///
/// Reads JSON lines such as {"id":"H1","season":24,"horizon":48,"values":[...]} or a CSV file with a header: a column of
/// values, and if there are any, columns of series names and of times. Gives means, 80 and 95 % intervals for each
/// step and for the sum of all, and the probability that the sum exceeds that of the equally long time before.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged forecast --input volumes.csv --horizon 30 --season 7\n  \
                             triaged forecast --input series.jsonl --json > forecasts.jsonl\n  \
                             triaged forecast --input series.jsonl --format svg --output forecasts.svg\n  \
                             triaged forecast --input series.jsonl --backtest")]
pub(super) struct Arguments {
    /// Series: a .csv file with a header, or JSON lines
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Steps to forecast, where the file does not say it
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    horizon: Option<u32>,

    /// Steps of a season, where the file does not say it; several separated by commas
    #[arg(long, value_name = "STEPS", value_delimiter = ',')]
    season: Vec<usize>,

    /// How results are written; without it a plot on a terminal and JSON lines elsewhere
    #[arg(long, value_enum, conflicts_with = "backtest")]
    format: Option<Output>,

    /// Write to this file, not to the standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Hold back the last horizon of each series, forecast it from the rest, and print how good that is
    #[arg(long)]
    backtest: bool,

    /// CSV column of the values
    #[arg(long, value_name = "NAME", default_value = "value")]
    value_column: String,

    /// CSV column of the series' names; without such a column there is one series
    #[arg(long, value_name = "NAME", default_value = "id")]
    id_column: String,

    /// CSV column of the times, RFC 3339 or YYYY-MM-DD
    #[arg(long, value_name = "NAME", default_value = "timestamp")]
    time_column: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One JSON object a series
    Jsonl,
    /// Comma-separated, one row a step, with a header
    Csv,
    /// A chart of each series for browsers and reports
    Svg,
    /// A chart of each series for the terminal
    Plot,
}

/// A step's place: its time where the file has times, else its number, counted from the first value of the series.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum At {
    Time(String),
    Step(usize),
}

#[derive(Debug, Serialize)]
struct Point {
    at: At,
    #[serde(flatten)]
    estimate: Estimate,
}

/// The shape of the forecast contract, with the series' id.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: &'a str,
    queue: &'a str,
    window: &'static str,
    from: At,
    points: Vec<Point>,
    total: Estimate,
    probability_of_increase: f64,
    trend: Trend,
    method: &'a str,
    backtest: Backtest,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let series = input::read(&arguments)?;
    if series.is_empty() {
        return Err(UsageError(format!("{}: there is no series in it", arguments.input.display())).into());
    }
    let mut out: Box<dyn Write> = match &arguments.output {
        Some(path) => {
            Box::new(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
        }
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    if arguments.backtest {
        backtest::run(&series, globals.json, &mut out)?;
        return Ok(out.flush()?);
    }
    let forecasts = forecast_all(&series.iter().map(|given| given.series.clone()).collect::<Vec<_>>());
    let on_terminal = arguments.output.is_none() && io::stdout().is_terminal();
    let format = match arguments.format {
        _ if globals.json => Output::Jsonl,
        Some(format) => format,
        None if on_terminal => Output::Plot,
        None => Output::Jsonl,
    };
    let pairs = || series.iter().zip(&forecasts);
    match format {
        Output::Jsonl => {
            for (given, forecast) in pairs() {
                serde_json::to_writer(&mut out, &line(given, forecast)).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
        Output::Csv => write_csv(&mut out, pairs())?,
        Output::Svg => chart::svg(&mut out, pairs().take(MOST_CHARTS))?,
        Output::Plot => chart::plot(&mut out, pairs().take(MOST_CHARTS))?,
    }
    if matches!(format, Output::Svg | Output::Plot) && series.len() > MOST_CHARTS {
        tracing::warn!("{MOST_CHARTS} of {} series are drawn; --format csv writes all", series.len());
    }
    Ok(out.flush()?)
}

/// With a progress bar on a terminal, for long work.
fn forecast_all(series: &[Series]) -> Vec<Forecast> {
    let style = "{bar:40} {pos}/{len} series, {eta} left";
    let bar = ProgressBar::with_draw_target(
        Some(series.len().div_ceil(PART) as u64 * PART as u64),
        ProgressDrawTarget::stderr(),
    )
    .with_style(ProgressStyle::with_template(style).expect("the template is a constant"));
    let settings = ForecastSettings::default();
    let parts = series.chunks(PART);
    let mut forecasts = Vec::with_capacity(series.len());
    for part in parts {
        forecasts.par_extend(part.par_iter().map(|one| forecast(one, &settings)));
        bar.inc(PART as u64);
    }
    bar.finish_and_clear();
    forecasts
}

fn at(given: &Given, step: usize) -> At {
    match given.times {
        Some((first, distance)) => At::Time(rfc3339(first + step as i64 * distance)),
        None => At::Step(step),
    }
}

fn line<'a>(given: &'a Given, forecast: &'a Forecast) -> Line<'a> {
    let begin = given.series.values.len();
    let steps = forecast.means.iter().zip(&forecast.bounds).enumerate();
    Line {
        id: &given.id,
        queue: &given.id,
        window: "file",
        from: at(given, begin),
        points: steps
            .map(|(step, (mean, bounds))| Point { at: at(given, begin + step), estimate: Estimate::new(*mean, bounds) })
            .collect(),
        total: Estimate::new(forecast.total.mean, &forecast.total.bounds),
        probability_of_increase: forecast.probability_of_increase,
        trend: forecast.trend,
        method: &forecast.method,
        backtest: Backtest { mase: forecast.backtest.mase, coverage95: forecast.backtest.coverage95 },
    }
}

fn write_csv<'a>(out: &mut dyn Write, pairs: impl Iterator<Item = (&'a Given, &'a Forecast)>) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(["id", "step", "at", "mean", "lower80", "upper80", "lower95", "upper95", "method"])?;
    for (given, forecast) in pairs {
        let line = line(given, forecast);
        for (step, point) in line.points.iter().enumerate() {
            let at = match &point.at {
                At::Time(time) => time.clone(),
                At::Step(number) => number.to_string(),
            };
            let Estimate { mean, lower80, upper80, lower95, upper95 } = &point.estimate;
            let numbers = [mean, lower80, upper80, lower95, upper95].map(|number| format!("{number:.6}"));
            let [mean, lower80, upper80, lower95, upper95] = &numbers;
            let step = (step + 1).to_string();
            writer.write_record([&*given.id, &step, &at, mean, lower80, upper80, lower95, upper95, line.method])?;
        }
    }
    Ok(writer.flush()?)
}
