//! A report by e-mail: a summary as text, and the page as an attachment. lettre is named nowhere else.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::config::{SmtpSettings, SmtpTls};

use super::figures::Report;
use super::html::{html, show};

/// How long one step of the conversation may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a report was not sent. None of it holds a password.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("{address:?} is no address")]
    Address { address: String, source: lettre::address::AddressError },
    #[error("the message cannot be built")]
    Message(#[from] lettre::error::Error),
    #[error("{server} cannot be used")]
    Server { server: String, source: lettre::transport::smtp::Error },
    #[error("{server} did not take the report")]
    Refused { server: String, source: lettre::transport::smtp::Error },
}

/// The mail server, and who gets what from whom.
#[derive(Debug)]
pub struct Mailer {
    server: String,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mailer {
    /// Nothing is connected before the first report.
    pub fn new(smtp: &SmtpSettings, to: &[String]) -> Result<Self, MailError> {
        type Transport = AsyncSmtpTransport<Tokio1Executor>;
        let unusable = |source| MailError::Server { server: smtp.server.clone(), source };
        let mut builder = match smtp.tls {
            SmtpTls::StartTls => Transport::starttls_relay(&smtp.server).map_err(unusable)?,
            SmtpTls::Tls => Transport::relay(&smtp.server).map_err(unusable)?,
            SmtpTls::None => Transport::builder_dangerous(&smtp.server),
        };
        if !smtp.user.is_empty() {
            let password = smtp.password.as_ref().map_or_else(String::new, |password| password.reveal().to_owned());
            builder = builder.credentials(Credentials::new(smtp.user.clone(), password));
        }
        Ok(Mailer {
            server: smtp.server.clone(),
            transport: builder.port(smtp.port).timeout(Some(TIMEOUT)).build(),
            from: mailbox(&smtp.from)?,
            to: to.iter().map(|address| mailbox(address)).collect::<Result<_, _>>()?,
        })
    }

    /// Sends a report; the server has taken it for all recipients when this returns.
    pub async fn send(&self, report: &Report) -> Result<(), MailError> {
        let message = self.message(report)?;
        let refused = |source| MailError::Refused { server: self.server.clone(), source };
        self.transport.send(message).await.map_err(refused)?;
        Ok(())
    }

    fn message(&self, report: &Report) -> Result<Message, MailError> {
        let day = |time: &str| time.get(..10).unwrap_or_default().to_owned();
        let (from, to) = (day(&report.from), day(&report.to));
        let mut message = Message::builder().from(self.from.clone()).subject(format!("triaged: {from} to {to}"));
        for mailbox in &self.to {
            message = message.to(mailbox.clone());
        }
        let page = Attachment::new(format!("triaged-{from}-{to}.html")).body(html(report), ContentType::TEXT_HTML);
        let parts = MultiPart::mixed().singlepart(SinglePart::plain(summary(report))).singlepart(page);
        Ok(message.multipart(parts)?)
    }
}

fn mailbox(address: &str) -> Result<Mailbox, MailError> {
    address.parse().map_err(|source| MailError::Address { address: address.to_owned(), source })
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
    use crate::config::Config;

    #[test]
    fn a_message_has_a_summary_and_the_page() {
        let text = "[smtp]\nserver = \"localhost\"\ntls = \"none\"\nfrom = \"triaged@example.org\"";
        let config = Config::from_toml(text).expect("settings");
        let mailer = Mailer::new(&config.smtp, &["soc@example.org".to_owned()]).expect("a mailer");
        let report = figures((0, 86_400_000), &[], &[judgement("a", "b", "ada")], &DetailFilter::default());
        let message = mailer.message(&report).expect("a message").formatted();
        let message = String::from_utf8_lossy(&message);
        for part in ["To: soc@example.org", "Subject: triaged: 1970-01-01 to 1970-01-02", "judgements: 1", "text/html"]
        {
            assert!(message.contains(part), "{part} is missing in\n{message}");
        }
    }
}
