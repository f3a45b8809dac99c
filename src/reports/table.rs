//! One part of a report as CSV, for spreadsheets.

use serde::Deserialize;
use utoipa::ToSchema;

use super::figures::Report;
use super::proportion::Proportion;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Queues,
    Confidence,
    Feedback,
    Detail,
}

/// The table with a header.
pub fn csv(report: &Report, part: Part) -> String {
    let rows = match part {
        Part::Queues => queues(report),
        Part::Confidence => confidence(report),
        Part::Feedback => feedback(report),
        Part::Detail => detail(report),
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.iter().map(|cell| harmless(cell))).expect("writing to memory");
    }
    String::from_utf8(writer.into_inner().expect("writing to memory")).expect("cells are text")
}

type Rows = Vec<Vec<String>>;

/// Spreadsheets take a cell that begins so for a formula, and names come from outside (OWASP, "CSV Injection").
fn harmless(cell: &str) -> String {
    match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    }
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn share(share: Option<f64>) -> String {
    share.map(|share| format!("{share:.4}")).unwrap_or_default()
}

fn cells(proportion: &Proportion) -> [String; 5] {
    let Proportion { right, of, lower, upper, .. } = proportion;
    [right.to_string(), of.to_string(), share(proportion.share), format!("{lower:.4}"), format!("{upper:.4}")]
}

fn queues(report: &Report) -> Rows {
    let names = [
        "queue",
        "precision_right",
        "precision_of",
        "precision",
        "precision_lower95",
        "precision_upper95",
        "recall_right",
        "recall_of",
        "recall",
        "recall_lower95",
        "recall_upper95",
    ];
    let row = |queue: &super::QueuePerformance| {
        let mut row = vec![queue.queue.clone()];
        row.extend(cells(&queue.precision));
        row.extend(cells(&queue.recall));
        row
    };
    std::iter::once(header(&names)).chain(report.queues.iter().map(row)).collect()
}

fn confidence(report: &Report) -> Rows {
    let names = ["from", "to", "events", "right", "judged", "accuracy", "lower95", "upper95"];
    let row = |bin: &super::ConfidenceBin| {
        let mut row = vec![format!("{:.2}", bin.lower), format!("{:.2}", bin.upper), bin.events.to_string()];
        row.extend(cells(&bin.right));
        row
    };
    std::iter::once(header(&names)).chain(report.confidence.bins.iter().map(row)).collect()
}

fn feedback(report: &Report) -> Rows {
    let row = |day: &super::DayOfFeedback| vec![day.day.clone(), day.right.to_string(), day.wrong.to_string()];
    std::iter::once(header(&["day", "right", "wrong"])).chain(report.feedback.by_day.iter().map(row)).collect()
}

fn detail(report: &Report) -> Rows {
    let names = [
        "event_id",
        "given_at",
        "given_by",
        "kind",
        "predicted_queue",
        "right_queue",
        "correct",
        "confidence",
        "decided_by",
        "difficulty",
    ];
    let row = |detail: &super::Detail| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            detail.event_id.clone(),
            detail.given_at.clone(),
            detail.given_by.clone(),
            text(&detail.kind),
            text(&detail.predicted_queue),
            text(&detail.right_queue),
            detail.correct.map(|correct| correct.to_string()).unwrap_or_default(),
            detail.confidence.map(|confidence| format!("{confidence:.4}")).unwrap_or_default(),
            text(&detail.decided_by),
            detail.difficulty.map(|difficulty| difficulty.to_string()).unwrap_or_default(),
        ]
    };
    std::iter::once(header(&names)).chain(report.detail.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::DetailFilter;
    use super::super::figures::{figures, tests::judgement};
    use super::*;

    #[test]
    fn a_name_cannot_become_a_formula() {
        let judgements = [judgement("=cmd|' /C calc'!A0", "b", "a,\"b\"")];
        let report = figures((0, 1), &[], &judgements, &DetailFilter::default());
        let detail = csv(&report, Part::Detail);
        assert!(detail.contains(",'=cmd|' /C calc'!A0,b,false,"), "{detail}");
        assert!(detail.contains("\"a,\"\"b\"\"\""), "{detail}");
        assert_eq!(csv(&report, Part::Queues).lines().count(), 3);
        assert_eq!(csv(&report, Part::Confidence).lines().count(), 21);
    }
}
