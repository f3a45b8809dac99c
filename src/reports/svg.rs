//! Charts as inline SVG: no script, no font, no request. Colours are classes, so that the page's style chooses them.

use std::fmt::Write;

use super::figures::{ConfidenceBin, DayOfFeedback, QueuePerformance};
use super::html::escape;
use super::proportion::Proportion;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 44.0;
/// Of one queue in the chart of queues.
const ROW: f64 = 34.0;
/// Where names end and the scale begins.
const NAMES: f64 = 220.0;
/// Days of a chart; the newest.
const MOST_DAYS: usize = 92;
/// Characters of a name that fit.
const NAME_CHARS: usize = 30;

/// Events by confidence as bars, and as dots with whiskers how many of the judged ones were right.
pub(super) fn confidence(bins: &[ConfidenceBin]) -> String {
    let most = bins.iter().map(|bin| bin.events).max().unwrap_or(0).max(1) as f64;
    let mut svg = open(HEIGHT, "Events by confidence, and how many of those that were judged were right");
    scale(&mut svg);
    let y = |share: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * share;
    let x = |share: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * share;
    for bin in bins {
        let (left, width) = (x(bin.lower) + 1.0, x(bin.upper) - x(bin.lower) - 2.0);
        let top = y(bin.events as f64 / most);
        let bottom = y(0.0);
        push(
            &mut svg,
            format_args!(
                "<rect class=\"bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\">\
                 <title>{:.2} to {:.2}: {} events</title></rect>",
                bottom - top,
                bin.lower,
                bin.upper,
                bin.events
            ),
        );
    }
    push(
        &mut svg,
        format_args!(
            "<line class=\"ideal\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            x(0.0),
            y(0.0),
            x(1.0),
            y(1.0)
        ),
    );
    for bin in bins.iter().filter(|bin| bin.right.of > 0) {
        let middle = x((bin.lower + bin.upper) / 2.0);
        whisker(&mut svg, &bin.right, (middle, y(bin.right.lower)), (middle, y(bin.right.upper)), |share| {
            (middle, y(share))
        });
    }
    close(svg)
}

/// Right and wrong by day, stacked.
pub(super) fn days(days: &[DayOfFeedback]) -> String {
    let days = &days[days.len().saturating_sub(MOST_DAYS)..];
    let most = days.iter().map(|day| day.right + day.wrong).max().unwrap_or(0).max(1) as f64;
    let mut svg = open(HEIGHT, "Judgements by day, right and wrong");
    let width = (WIDTH - 2.0 * MARGIN) / days.len().max(1) as f64;
    let tall = |events: u64| (HEIGHT - 2.0 * MARGIN) * events as f64 / most;
    for (place, day) in days.iter().enumerate() {
        let left = MARGIN + width * place as f64;
        let (right, wrong) = (tall(day.right), tall(day.wrong));
        let bottom = HEIGHT - MARGIN;
        for (class, top, height, events) in
            [("bar", bottom - right, right, day.right), ("wrong", bottom - right - wrong, wrong, day.wrong)]
        {
            push(
                &mut svg,
                format_args!(
                    "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
                     <title>{}: {events}</title></rect>",
                    left + 0.5,
                    (width - 1.0).max(0.5),
                    escape(&day.day)
                ),
            );
        }
    }
    for (day, place, anchor) in [(days.first(), MARGIN, "start"), (days.last(), WIDTH - MARGIN, "end")] {
        if let Some(day) = day {
            push(
                &mut svg,
                format_args!(
                    "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                    HEIGHT - MARGIN + 16.0,
                    escape(&day.day)
                ),
            );
        }
    }
    push(
        &mut svg,
        format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{most}</text>", MARGIN - 6.0, MARGIN + 4.0),
    );
    close(svg)
}

/// Precision and recall of each queue with their intervals.
pub(super) fn queues(queues: &[QueuePerformance]) -> String {
    let height = ROW * queues.len() as f64 + 40.0;
    let mut svg = open(height, "Precision and recall of each queue, with 95 % intervals");
    let x = |share: f64| NAMES + (WIDTH - NAMES - MARGIN) * share;
    for share in [0.0, 0.5, 1.0] {
        push(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"20\" y2=\"{1:.1}\"/>\
                 <text x=\"{0:.1}\" y=\"14\" text-anchor=\"middle\">{share}</text>",
                x(share),
                height - 16.0
            ),
        );
    }
    for (row, queue) in queues.iter().enumerate() {
        let top = 34.0 + ROW * row as f64;
        let name: String = queue.queue.chars().take(NAME_CHARS).collect();
        push(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                NAMES - 10.0,
                top + 8.0,
                escape(&name)
            ),
        );
        for (class, proportion, y) in [("precision", &queue.precision, top), ("recall", &queue.recall, top + 12.0)] {
            if proportion.of > 0 {
                push(&mut svg, format_args!("<g class=\"{class}\">"));
                whisker(&mut svg, proportion, (x(proportion.lower), y), (x(proportion.upper), y), |share| {
                    (x(share), y)
                });
                svg.push_str("</g>");
            }
        }
    }
    close(svg)
}

fn whisker(
    svg: &mut String,
    proportion: &Proportion,
    (x1, y1): (f64, f64),
    (x2, y2): (f64, f64),
    place: impl Fn(f64) -> (f64, f64),
) {
    let share = proportion.share.unwrap_or(0.0);
    let (x, y) = place(share);
    push(
        svg,
        format_args!(
            "<line class=\"whisker\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\
             <circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\">\
             <title>{} of {}: {share:.3} ({:.3} to {:.3})</title></circle>",
            proportion.right, proportion.of, proportion.lower, proportion.upper
        ),
    );
}

/// Lines at none, half and all, with numbers.
fn scale(svg: &mut String) {
    for share in [0.0, 0.5, 1.0] {
        let (x, y) = (MARGIN + (WIDTH - 2.0 * MARGIN) * share, HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * share);
        push(
            svg,
            format_args!(
                "<line class=\"grid\" x1=\"{MARGIN}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{share}</text>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{share}</text>",
                WIDTH - MARGIN,
                MARGIN - 6.0,
                y + 4.0,
                HEIGHT - MARGIN + 16.0
            ),
        );
    }
}

fn open(height: f64, title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>", escape(title))
}

fn close(mut svg: String) -> String {
    svg.push_str("</svg>\n");
    svg
}

fn push(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("writing to memory");
}
