//! The live view: a block that is redrawn on a terminal, a line a second elsewhere, nothing with `--json`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::telemetry::colours;
use crate::volumes::TOTAL;

use super::{Outcomes, QueueForecast, Summary};

const REDRAW: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(1);
/// Queues shown; the rest are summed up.
const MOST_QUEUES: usize = 10;
const BAR: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Silent,
    Lines,
    Block,
}

pub(super) struct View {
    mode: Mode,
    colours: bool,
    drawn_at: Option<(Instant, u64)>,
    /// Lines of the block on the screen.
    height: usize,
}

impl View {
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let mode = match (json, terminal) {
            (true, _) => Mode::Silent,
            (false, true) => Mode::Block,
            (false, false) => Mode::Lines,
        };
        View { mode, colours: colours(&io::stdout()), drawn_at: None, height: 0 }
    }

    /// Shows the present state if the last time is long enough ago.
    pub(super) fn update(&mut self, metrics: &Metrics, generated: u64, elapsed: Duration) -> io::Result<()> {
        let pause = match self.mode {
            Mode::Silent => return Ok(()),
            Mode::Lines => LINE,
            Mode::Block => REDRAW,
        };
        let outcomes = Outcomes::read(metrics);
        let now = Instant::now();
        let rate = match self.drawn_at {
            Some((at, _)) if now - at < pause => return Ok(()),
            Some((at, before)) => outcomes.total().saturating_sub(before) as f64 / (now - at).as_secs_f64(),
            None => 0.0,
        };
        self.drawn_at = Some((now, outcomes.total()));
        let quantile =
            |q| metrics.quantile("triaged_record_latency_seconds", "classify", q).map_or(0.0, |s| s * 1000.0);
        let head = format!(
            "{:>5.1} s   {rate:>9.0} records/s   latency p50 {:.1} ms, p99 {:.1} ms",
            elapsed.as_secs_f64(),
            quantile(0.5),
            quantile(0.99)
        );
        let balance = format!(
            "in {generated}   events {}   escalations {}   dead letters {}   in flight {}",
            outcomes.events,
            outcomes.escalations,
            outcomes.dead_letters,
            generated.saturating_sub(outcomes.total())
        );
        let mut out = io::stdout().lock();
        if self.mode == Mode::Lines {
            return writeln!(out, "{head}   {balance}");
        }
        let mut lines = vec![self.bold(&head), balance, String::new()];
        lines.push(self.bold("decided by"));
        lines.extend(bars(&by_label(metrics, "triaged_outcomes_total", "decided_by", &["dead_letter", "stored"])));
        lines.push(self.bold("queues"));
        lines.extend(bars(&by_label(metrics, "triaged_queue_events_total", "queue", &[])));
        self.clear(&mut out)?;
        for line in &lines {
            writeln!(out, "{line}")?;
        }
        self.height = lines.len();
        out.flush()
    }

    /// Leaves the last state on the screen.
    pub(super) fn close(&mut self) -> io::Result<()> {
        match self.mode {
            Mode::Block => writeln!(io::stdout()),
            Mode::Silent | Mode::Lines => Ok(()),
        }
    }

    fn clear(&self, out: &mut impl Write) -> io::Result<()> {
        match self.height {
            0 => Ok(()),
            height => write!(out, "\x1b[{height}A\x1b[J"),
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.colours { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Sums a family by one label, largest first, without zeros.
fn by_label(metrics: &Metrics, family: &str, label: &str, without_outcomes: &[&str]) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (labels, value) in metrics.values(family) {
        let left_out = labels.get("outcome").is_some_and(|outcome| without_outcomes.contains(&outcome.as_str()));
        if !left_out && let Some(name) = labels.get(label) {
            *sums.entry(name.clone()).or_default() += value as u64;
        }
    }
    let mut sums: Vec<(String, u64)> = sums.into_iter().filter(|(_, sum)| *sum > 0).collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if sums.len() > MOST_QUEUES {
        let rest: u64 = sums.drain(MOST_QUEUES - 1..).map(|(_, sum)| sum).sum();
        sums.push(("others".to_owned(), rest));
    }
    sums
}

fn bars(sums: &[(String, u64)]) -> Vec<String> {
    let total: u64 = sums.iter().map(|(_, sum)| sum).sum();
    sums.iter()
        .map(|(name, sum)| {
            let share = *sum as f64 / total.max(1) as f64;
            let bar = "█".repeat((share * BAR as f64).round() as usize);
            format!("  {name:<22} {sum:>9}  {:>5.1} %  {bar}", share * 100.0)
        })
        .collect()
}

/// What the forecast role would publish now, for the window of hours.
pub(super) fn forecasts(forecasts: &[QueueForecast]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{:<22} {:>9}  {:>9}  {:<19}  trend", "queue", "2 weeks", "next 48 h", "80 % interval")?;
    for QueueForecast { queue, events, total, trend, .. } in forecasts {
        let interval = format!("{:.0} to {:.0}", total.lower80, total.upper80);
        let (name, mean) = (if queue == TOTAL { "all" } else { queue }, total.mean);
        let trend = serde_json::to_value(trend).map_err(io::Error::from)?;
        writeln!(out, "{name:<22} {events:>9}  {mean:>9.0}  {interval:<19}  {}", trend.as_str().unwrap_or_default())?;
    }
    Ok(())
}

/// What became of the records, as a sum that can be checked.
pub(super) fn summary(summary: &Summary) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:>9}  records generated", summary.generated)?;
    writeln!(out, "{:>9}  records processed, of which became", summary.processed)?;
    writeln!(out, "{:>9}    events", summary.events)?;
    writeln!(out, "{:>9}    escalations (a slower tier or a person decides)", summary.escalations)?;
    writeln!(out, "{:>9}    dead letters (unreadable, kept untouched)", summary.dead_letters)?;
    if summary.dropped > 0 {
        writeln!(out, "{:>9}    dropped by a rule", summary.dropped)?;
    }
    writeln!(out, "{:>9}  records found in the broker's output topics", summary.published)?;
    writeln!(out, "{:>9}  events counted in the volumes", summary.counted)?;
    let latency = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} ms"));
    writeln!(
        out,
        "{:.1} s, {:.0} records/s, latency p50 {}, p99 {}",
        summary.seconds,
        summary.records_per_second,
        latency(summary.latency_p50_ms),
        latency(summary.latency_p99_ms)
    )?;
    let verdict = if summary.adds_up { "in = events + escalations + dead letters" } else { "does not add up" };
    writeln!(
        out,
        "{verdict}: {} = {}",
        summary.generated,
        summary.events + summary.escalations + summary.dead_letters + summary.dropped
    )
}
