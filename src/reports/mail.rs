//! A report by e-mail: a summary as text, and the page as an attachment.

use crate::config::SmtpSettings;
use crate::mail::{Attachment, Letter, MailError, Postbox};

use super::figures::Report;
use super::html::{html, show};

/// Who gets reports, and by which server.
#[derive(Debug)]
pub struct Mailer(Postbox);

impl Mailer {
    /// Nothing is connected before the first report.
    pub fn new(smtp: &SmtpSettings, to: &[String]) -> Result<Self, MailError> {
        Ok(Mailer(Postbox::new(smtp, to)?))
    }

    /// Sends a report; the server has taken it for all recipients when this returns.
    pub async fn send(&self, report: &Report) -> Result<(), MailError> {
        self.0.send(letter(report)).await
    }
}

fn letter(report: &Report) -> Letter {
    let day = |time: &str| time.get(..10).unwrap_or_default().to_owned();
    let (from, to) = (day(&report.from), day(&report.to));
    Letter {
        subject: format!("triaged: {from} to {to}"),
        text: summary(report),
        page: Some(Attachment { name: format!("triaged-{from}-{to}.html"), html: html(report) }),
        id: None,
    }
}

/// What fits into a few lines. Names of queues are left to the attachment.
fn summary(report: &Report) -> String {
    let (confidence, feedback) = (&report.confidence, &report.feedback);
    let unsure: u64 = confidence.queues.iter().map(|queue| queue.unsure).sum();
    let mean = confidence.mean.map_or_else(|| "none".to_owned(), |mean| format!("{mean:.3}"));
    format!(
        "{} to {}\n\nevents: {}, of which unsure: {unsure}\nmean confidence: {mean}\njudgements: {}\n\
         right, of those judged: {}\n\nThe page with charts is attached.\n",
        report.from,
        report.to,
        confidence.events,
        feedback.judged,
        show(&feedback.right)
    )
}

#[cfg(test)]
mod tests {
    use super::super::DetailFilter;
    use super::super::figures::{figures, tests::judgement};
    use super::*;

    #[test]
    fn a_report_has_a_summary_and_the_page() {
        let report = figures((0, 86_400_000), &[], &[judgement("a", "b", "ada")], &DetailFilter::default());
        let letter = letter(&report);
        assert_eq!(letter.subject, "triaged: 1970-01-01 to 1970-01-02");
        assert!(letter.text.contains("judgements: 1"), "{}", letter.text);
        let page = letter.page.expect("the page");
        assert!(page.name == "triaged-1970-01-01-1970-01-02.html" && page.html.contains("<svg"), "{}", page.name);
    }
}
