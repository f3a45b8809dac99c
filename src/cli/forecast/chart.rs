//! Charts of series with their forecasts: SVG for browsers and reports, blocks of text for the terminal.

use std::io::{self, Write};

use crate::forecast::Forecast;

use super::input::Given;

/// Values of the history that a chart shows, in horizons; more would make the forecast a sliver.
const HISTORY_IN_HORIZONS: usize = 4;
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 48.0;
const PLOT_COLUMNS: usize = 100;
const PLOT_ROWS: usize = 12;

/// The newest values that are shown, oldest first.
fn shown(given: &Given, forecast: &Forecast) -> Vec<f64> {
    let values = &given.series.values;
    let most = forecast.means.len().max(12) * HISTORY_IN_HORIZONS;
    values[values.len().saturating_sub(most)..].to_vec()
}

fn highest(history: &[f64], forecast: &Forecast) -> f64 {
    let bounds = forecast.bounds.iter().map(|bounds| bounds.upper95);
    history.iter().copied().chain(bounds).fold(0.0, f64::max).max(1.0)
}

/// One picture with a chart for each series, one below the other.
pub(super) fn svg<'a>(out: &mut dyn Write, pairs: impl Iterator<Item = (&'a Given, &'a Forecast)>) -> io::Result<()> {
    let pairs: Vec<_> = pairs.collect();
    let height = HEIGHT * pairs.len() as f64;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    )?;
    for (index, (given, forecast)) in pairs.into_iter().enumerate() {
        writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * index as f64)?;
        chart(out, given, forecast)?;
        writeln!(out, "</g>")?;
    }
    writeln!(out, "</svg>")
}

fn chart(out: &mut dyn Write, given: &Given, forecast: &Forecast) -> io::Result<()> {
    let history = shown(given, forecast);
    let (top, steps) = (highest(&history, forecast), history.len() + forecast.means.len());
    let x = |step: usize| MARGIN + (WIDTH - 1.5 * MARGIN) * step as f64 / (steps.max(2) - 1) as f64;
    let y = |value: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * (value / top).min(1.0);
    let points = |from: usize, values: &mut dyn Iterator<Item = f64>| -> String {
        values.enumerate().map(|(step, value)| format!("{:.1},{:.1} ", x(from + step), y(value))).collect()
    };
    let begin = history.len();
    for (colour, level) in [("#d6e4f5", 95), ("#a9c8ec", 80)] {
        let bound = |upper: bool| {
            forecast.bounds.iter().map(move |bounds| match (level, upper) {
                (95, true) => bounds.upper95,
                (95, false) => bounds.lower95,
                (_, true) => bounds.upper80,
                (_, false) => bounds.lower80,
            })
        };
        let upper = points(begin, &mut bound(true));
        let lower: Vec<f64> = bound(false).collect();
        let lower: String =
            (0..lower.len()).rev().map(|step| format!("{:.1},{:.1} ", x(begin + step), y(lower[step]))).collect();
        writeln!(out, "<polygon points=\"{upper}{lower}\" fill=\"{colour}\"><title>{level} %</title></polygon>")?;
    }
    for share in [0.0, 0.5, 1.0] {
        let at = y(top * share);
        writeln!(
            out,
            "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            WIDTH - MARGIN / 2.0,
            MARGIN - 6.0,
            at + 4.0,
            short(top * share)
        )?;
    }
    let line = |out: &mut dyn Write, points: String, colour: &str| {
        writeln!(out, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>")
    };
    line(out, points(0, &mut history.iter().copied()), "#333")?;
    line(out, points(begin, &mut forecast.means.iter().copied()), "#1f5fae")?;
    writeln!(
        out,
        "<text x=\"{MARGIN}\" y=\"24\" font-weight=\"bold\">{}</text>\
         <text x=\"{}\" y=\"24\" text-anchor=\"end\" fill=\"#555\">{}</text>",
        escaped(&given.id),
        WIDTH - MARGIN / 2.0,
        escaped(&caption(forecast))
    )
}

fn caption(forecast: &Forecast) -> String {
    let total = &forecast.total;
    let trend = serde_json::to_value(forecast.trend).expect("a variant without fields becomes a text");
    format!(
        "total {} (95 %: {} to {}), {} ({:.0} % that it grows), {}",
        short(total.mean),
        short(total.bounds.lower95),
        short(total.bounds.upper95),
        trend.as_str().unwrap_or_default(),
        forecast.probability_of_increase * 100.0,
        forecast.method
    )
}

/// Names come from the file.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 100.0 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

/// History as `#`, the mean as `o`, the 95 % interval as `.`, each column one or more steps.
pub(super) fn plot<'a>(out: &mut dyn Write, pairs: impl Iterator<Item = (&'a Given, &'a Forecast)>) -> io::Result<()> {
    for (given, forecast) in pairs {
        let history = shown(given, forecast);
        let steps = history.len() + forecast.means.len();
        let columns = steps.min(PLOT_COLUMNS);
        let top = highest(&history, forecast);
        let row_of = |value: f64| ((value / top * (PLOT_ROWS - 1) as f64).round() as usize).min(PLOT_ROWS - 1);
        let mut grid = vec![vec![' '; columns]; PLOT_ROWS];
        for column in 0..columns {
            let (first, last) =
                (column * steps / columns, ((column + 1) * steps / columns).max(column * steps / columns + 1));
            let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / (last - first) as f64;
            if last <= history.len() {
                grid[row_of(mean(&mut history[first..last].iter().copied()))][column] = '#';
                continue;
            }
            let step = first.max(history.len()) - history.len();
            let bounds = &forecast.bounds[step];
            for row in grid.iter_mut().take(row_of(bounds.upper95) + 1).skip(row_of(bounds.lower95)) {
                row[column] = '.';
            }
            grid[row_of(forecast.means[step])][column] = 'o';
        }
        let name: String = given.id.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(out, "{name}: {}", caption(forecast))?;
        for (row, cells) in grid.iter().enumerate().rev() {
            let label = if row == PLOT_ROWS - 1 {
                short(top)
            } else if row == 0 {
                "0".to_owned()
            } else {
                String::new()
            };
            writeln!(out, "{label:>8} |{}", cells.iter().collect::<String>())?;
        }
        writeln!(out)?;
    }
    Ok(())
}
