//! A report as one HTML file that needs nothing else: style inside, charts as SVG, no script. Names come from outside and
//! are escaped wherever they stand.

use std::fmt::Write;

use super::figures::{Judged, Named, Report};
use super::proportion::Proportion;
use super::svg;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --paper: #fff; --bar: #7aa7d9;
  --wrong: #d9737a; --dot: #1f4e8c; --second: #a0651a }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --line: #343b43; --paper: #14181d;
  --bar: #33679e; --wrong: #a8444c; --dot: #9cc7f5; --second: #e0a458 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.note, caption { color: var(--soft); text-align: left }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child, td.name { text-align: left }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--soft) } .grid { stroke: var(--line) } .bar { fill: var(--bar) } .wrong { fill: var(--wrong) }
.ideal { stroke: var(--soft); stroke-dasharray: 3 4 } .whisker { stroke: var(--dot); stroke-width: 1.5 }
.dot { fill: var(--dot) } .recall .whisker { stroke: var(--second) } .recall .dot { fill: var(--second) }
.scroll { overflow-x: auto }
";

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut page = String::with_capacity(64 << 10);
    let period = format!("{} to {}", day(&report.from), day(&report.to));
    push(
        &mut page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>triaged, {0}</title>\n<style>{STYLE}</style>\n\
         </head><body>\n<h1>Decisions and feedback, {0}</h1>\n<p class=\"note\">Made at {1}. Figures about right and \
         wrong come from the events that somebody judged, mostly those that were unsure. Intervals are at 95 %.</p>\n",
            escape(&period),
            escape(&report.made_at)
        ),
    );
    confidence(&mut page, report);
    queues(&mut page, report);
    feedback(&mut page, report);
    detail(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

fn confidence(page: &mut String, report: &Report) {
    let analysis = &report.confidence;
    let mean = analysis.mean.map_or_else(|| "none".to_owned(), |mean| format!("{mean:.3}"));
    push(
        page,
        format_args!(
            "<h2>How sure the decisions were</h2>\n<p>{} events, mean confidence {mean}.</p>\n",
            analysis.events
        ),
    );
    page.push_str(&svg::confidence(&analysis.bins));
    for (title, named) in [("Routing", &analysis.by_routing), ("Decided by", &analysis.by_tier)] {
        let row = |Named { name, events }: &Named| vec![name.clone(), events.to_string()];
        table(page, &[title, "events"], named.iter().map(row));
    }
    let row = |queue: &super::QueueConfidence| {
        vec![queue.queue.clone(), queue.events.to_string(), format!("{:.3}", queue.mean), queue.unsure.to_string()]
    };
    table(page, &["Queue", "events", "mean confidence", "unsure"], analysis.queues.iter().map(row));
}

fn queues(page: &mut String, report: &Report) {
    page.push_str("<h2>Queues</h2>\n");
    if report.queues.is_empty() {
        page.push_str("<p class=\"note\">Nobody has judged an event in this time.</p>\n");
        return;
    }
    page.push_str(&svg::queues(&report.queues));
    let row = |queue: &super::QueuePerformance| vec![queue.queue.clone(), show(&queue.precision), show(&queue.recall)];
    table(page, &["Queue", "precision", "recall"], report.queues.iter().map(row));
}

fn feedback(page: &mut String, report: &Report) {
    let analysis = &report.feedback;
    push(
        page,
        format_args!(
            "<h2>Feedback</h2>\n<p>{} judgements; right: {}; {} of events that are gone.</p>\n",
            analysis.judged,
            show(&analysis.right),
            analysis.unknown
        ),
    );
    if analysis.judged == 0 {
        return;
    }
    page.push_str(&svg::days(&analysis.by_day));
    for (title, judged) in [("By whom", &analysis.by_reviewer), ("Difficulty", &analysis.by_difficulty)] {
        let row = |Judged { name, right }: &Judged| vec![name.clone(), show(right)];
        table(page, &[title, "right"], judged.iter().map(row));
    }
    let row = |confusion: &super::Confusion| {
        vec![confusion.predicted.clone(), confusion.right.clone(), confusion.events.to_string()]
    };
    table(page, &["Routed to", "belongs in", "events"], analysis.confusions.iter().map(row));
}

fn detail(page: &mut String, report: &Report) {
    if report.detail.is_empty() {
        return;
    }
    page.push_str("<h2>Judgements</h2>\n");
    let row = |detail: &super::Detail| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            detail.given_at.clone(),
            detail.given_by.clone(),
            text(&detail.predicted_queue),
            text(&detail.right_queue),
            detail.confidence.map(|confidence| format!("{confidence:.3}")).unwrap_or_default(),
            text(&detail.decided_by),
            detail.event_id.clone(),
        ]
    };
    let names = ["Given at", "by", "routed to", "belongs in", "confidence", "decided by", "event"];
    table(page, &names, report.detail.iter().map(row));
}

fn table(page: &mut String, names: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    page.push_str("<div class=\"scroll\"><table><tr>");
    for name in names {
        push(page, format_args!("<th>{}</th>", escape(name)));
    }
    page.push_str("</tr>\n");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            push(page, format_args!("<td>{}</td>", escape(&cell)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

pub(super) fn show(proportion: &Proportion) -> String {
    match proportion.share {
        None => "–".to_owned(),
        Some(share) => format!(
            "{share:.3} ({:.3}–{:.3}, {} of {})",
            proportion.lower, proportion.upper, proportion.right, proportion.of
        ),
    }
}

fn day(time: &str) -> &str {
    time.get(.."2026-01-31".len()).unwrap_or(time)
}

/// Safe between tags and in an attribute in quotes. Control characters, which XML does not take, become spaces.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("writing to memory");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::DetailFilter;
    use super::super::figures::{figures, tests::judgement};
    use super::*;

    fn page(predicted: &str, right: &str, by: &str) -> String {
        html(&figures((0, 86_400_000), &[], &[judgement(predicted, right, by)], &DetailFilter::default()))
    }

    #[test]
    fn a_page_has_charts_and_no_script() {
        let page = page("a", "b", "ada");
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
        assert!(page.contains("Decisions and feedback, 1970-01-01 to 1970-01-02"));
    }

    #[test]
    fn an_empty_report_is_a_page_too() {
        let page = html(&figures((0, 1), &[], &[], &DetailFilter::default()));
        assert!(page.contains("Nobody has judged") && page.ends_with("</html>\n"));
    }

    proptest! {
        #[test]
        fn whatever_a_queue_is_called_no_tag_comes_of_it(name in "\\PC{1,20}|<script>alert\\(1\\)</script>|\"><img src=x>") {
            prop_assume!(!name.trim().is_empty());
            let harmless = page("a", "b", "c");
            let hostile = page(&name, "b", &name);
            prop_assert_eq!(hostile.matches('<').count(), harmless.matches('<').count());
        }
    }
}
