//! Series from a file: JSON lines or CSV. Every fault names its line.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde::Deserialize;

use crate::forecast::Series;

use super::Arguments;

/// Values of one series; more are most likely not one.
const MOST_VALUES: usize = 10_000_000;
const DEFAULT_HORIZON: usize = 30;

/// One series as it was given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub(super) id: String,
    pub(super) series: Series,
    /// Time of the first value and distance of two, in milliseconds, where the file has times.
    pub(super) times: Option<(i64, i64)>,
}

#[derive(Debug, Deserialize)]
struct JsonLine {
    id: Option<serde_json::Value>,
    season: Option<Seasons>,
    horizon: Option<usize>,
    values: Vec<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Seasons {
    One(usize),
    Several(Vec<usize>),
}

pub(super) fn read(arguments: &Arguments) -> anyhow::Result<Vec<Given>> {
    let path = &arguments.input;
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let read = if is_csv { read_csv(file, arguments) } else { read_jsonl(BufReader::new(file), arguments) };
    read.with_context(|| path.display().to_string())
}

fn read_jsonl(reader: impl BufRead, arguments: &Arguments) -> anyhow::Result<Vec<Given>> {
    let mut all = Vec::new();
    for (number, line) in reader.lines().enumerate() {
        let number = number + 1;
        let line = line.with_context(|| format!("line {number}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let JsonLine { id, season, horizon, values } =
            serde_json::from_str(&line).with_context(|| format!("line {number} is no series"))?;
        check(&values).with_context(|| format!("line {number}"))?;
        let seasons = match season {
            Some(Seasons::One(season)) => vec![season],
            Some(Seasons::Several(seasons)) => seasons,
            None => arguments.season.clone(),
        };
        let horizon = horizon.or(arguments.horizon.map(|steps| steps as usize)).unwrap_or(DEFAULT_HORIZON);
        if !(1..=10_000).contains(&horizon) {
            bail!("line {number}: the horizon must be from 1 to 10000");
        }
        let id = match id {
            Some(serde_json::Value::String(id)) => id,
            Some(other) => other.to_string(),
            None => number.to_string(),
        };
        all.push(Given { id, series: Series { values, seasons, horizon }, times: None });
    }
    Ok(all)
}

fn read_csv(file: File, arguments: &Arguments) -> anyhow::Result<Vec<Given>> {
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers().context("line 1")?.clone();
    let column = |name: &str| header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
    let Some(value_column) = column(&arguments.value_column) else {
        bail!(
            "there is no column {:?}; there are: {}",
            arguments.value_column,
            header.iter().collect::<Vec<_>>().join(", ")
        );
    };
    let (id_column, time_column) = (column(&arguments.id_column), column(&arguments.time_column));
    let horizon = arguments.horizon.map_or(DEFAULT_HORIZON, |steps| steps as usize);
    // Series in the order in which they first occur, rows in the order of the file.
    let mut all: Vec<(Given, Vec<i64>)> = Vec::new();
    for row in reader.records() {
        let row = row?;
        let number = row.position().map_or(0, csv::Position::line);
        let field = |column: usize| row.get(column).unwrap_or_default().trim();
        let text = field(value_column);
        let value: f64 = text
            .parse()
            .with_context(|| format!("line {number}: {text:?} in {} is no number", arguments.value_column))?;
        let time = match time_column.map(field) {
            None => None,
            Some(text) => Some(parse_time(text).with_context(|| {
                format!("line {number}: {text:?} is no time such as 2026-01-31 or 2026-01-31T12:00:00Z")
            })?),
        };
        let id = id_column.map_or("series", field);
        let index = all.iter().position(|(given, _)| given.id == id).unwrap_or_else(|| {
            let series = Series { values: Vec::new(), seasons: arguments.season.clone(), horizon };
            all.push((Given { id: id.to_owned(), series, times: None }, Vec::new()));
            all.len() - 1
        });
        all[index].0.series.values.push(value);
        all[index].1.extend(time);
    }
    for (given, times) in &mut all {
        check(&given.series.values).with_context(|| format!("series {}", given.id))?;
        given.times = spacing(times).with_context(|| format!("series {}", given.id))?;
    }
    Ok(all.into_iter().map(|(given, _)| given).collect())
}

fn check(values: &[f64]) -> anyhow::Result<()> {
    if values.len() > MOST_VALUES {
        bail!("there are more than {MOST_VALUES} values");
    }
    match values.iter().position(|value| !value.is_finite() || *value < 0.0) {
        Some(index) => bail!("value {} is {}; counts are finite and not negative", index + 1, values[index]),
        None => Ok(()),
    }
}

/// The first time and the distance of two. Months are not equally long; their median distance is what is counted on with.
fn spacing(times: &[i64]) -> anyhow::Result<Option<(i64, i64)>> {
    let mut distances: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if let Some(index) = distances.iter().position(|distance| *distance <= 0) {
        bail!("the times of rows {} and {} are not in order", index + 1, index + 2);
    }
    distances.sort_unstable();
    Ok(distances.get(distances.len() / 2).map(|distance| {
        let last = times[times.len() - 1];
        (last - distance * (times.len() as i64 - 1), *distance)
    }))
}

fn parse_time(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let time = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let time = time.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    Some(time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lead_on_from_the_last_one() {
        let day = 86_400_000;
        assert_eq!(spacing(&[0, day, 2 * day, 4 * day]).unwrap(), Some((day, day)));
        assert_eq!(spacing(&[]).unwrap(), None);
        assert!(spacing(&[5, 5]).unwrap_err().to_string().contains("rows 1 and 2"));
        assert_eq!(parse_time("1970-01-02"), Some(day));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn counts_are_checked() {
        assert!(check(&[1.0, -2.0]).unwrap_err().to_string().starts_with("value 2 is -2"));
        assert!(check(&[f64::NAN]).is_err());
        assert!(check(&[]).is_ok());
    }
}
