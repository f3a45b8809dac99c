//! E-mail, for reports and incidents: the server, the sender, the recipients. lettre is named nowhere else.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Attachment as Attached, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::config::{SmtpSettings, SmtpTls};

/// How long one step of the conversation may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a letter was not sent. None of it holds a password.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("{address:?} is no address")]
    Address { address: String, source: lettre::address::AddressError },
    #[error("the message cannot be built")]
    Message(#[from] lettre::error::Error),
    #[error("{server} cannot be used")]
    Server { server: String, source: lettre::transport::smtp::Error },
    #[error("{server} did not take the letter")]
    Refused { server: String, source: lettre::transport::smtp::Error },
}

impl MailError {
    /// Whether the same letter will never be taken: the server says so for good (5xx), or it cannot even be built.
    pub fn is_permanent(&self) -> bool {
        match self {
            MailError::Refused { source, .. } => source.is_permanent(),
            MailError::Address { .. } | MailError::Message(_) => true,
            MailError::Server { .. } => false,
        }
    }
}

/// A page that goes with a letter.
#[derive(Debug)]
pub struct Attachment {
    pub name: String,
    pub html: String,
}

/// What is sent; the library encodes whatever does not fit into a header.
#[derive(Debug)]
pub struct Letter {
    pub subject: String,
    pub text: String,
    pub page: Option<Attachment>,
    /// Of the message, by which a repeated one is recognised; `None`: the server gives it one.
    pub id: Option<String>,
}

/// The mail server, and who gets what from whom.
#[derive(Debug)]
pub struct Postbox {
    server: String,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Postbox {
    /// Nothing is connected before the first letter.
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
        Ok(Postbox {
            server: smtp.server.clone(),
            transport: builder.port(smtp.port).timeout(Some(TIMEOUT)).build(),
            from: mailbox(&smtp.from)?,
            to: to.iter().map(|address| mailbox(address)).collect::<Result<_, _>>()?,
        })
    }

    /// Sends a letter; the server has taken it for all recipients when this returns.
    pub async fn send(&self, letter: Letter) -> Result<(), MailError> {
        let message = self.message(letter)?;
        let refused = |source| MailError::Refused { server: self.server.clone(), source };
        self.transport.send(message).await.map_err(refused)?;
        Ok(())
    }

    fn message(&self, letter: Letter) -> Result<Message, MailError> {
        // A line's end would begin another header.
        let subject: String = letter.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut message = Message::builder().from(self.from.clone()).subject(subject);
        for mailbox in &self.to {
            message = message.to(mailbox.clone());
        }
        if let Some(id) = letter.id {
            message = message.message_id(Some(id));
        }
        Ok(match letter.page {
            None => message.singlepart(SinglePart::plain(letter.text))?,
            Some(page) => {
                let page = Attached::new(page.name).body(page.html, ContentType::TEXT_HTML);
                message.multipart(MultiPart::mixed().singlepart(SinglePart::plain(letter.text)).singlepart(page))?
            }
        })
    }
}

fn mailbox(address: &str) -> Result<Mailbox, MailError> {
    address.parse().map_err(|source| MailError::Address { address: address.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn formatted(letter: Letter) -> String {
        let text = "[smtp]\nserver = \"localhost\"\ntls = \"none\"\nfrom = \"triaged@example.org\"";
        let config = Config::from_toml(text).expect("settings");
        let postbox = Postbox::new(&config.smtp, &["soc@example.org".to_owned()]).expect("a postbox");
        String::from_utf8_lossy(&postbox.message(letter).expect("a message").formatted()).into_owned()
    }

    #[test]
    fn a_letter_has_its_parts() {
        let page = Attachment { name: "a.html".to_owned(), html: "<p>".to_owned() };
        let id = Some("<a@triaged>".to_owned());
        let message = formatted(Letter { subject: "s".to_owned(), text: "t".to_owned(), page: Some(page), id });
        for part in ["To: soc@example.org", "Subject: s", "text/html", "a.html", "Message-ID: <a@triaged>"] {
            assert!(message.contains(part), "{part} is missing in\n{message}");
        }
    }

    #[test]
    fn a_subject_begins_no_header_of_its_own() {
        let subject = "a\r\nBcc: evil@example.org".to_owned();
        let message = formatted(Letter { subject, text: "t".to_owned(), page: None, id: None });
        assert!(!message.lines().any(|line| line.starts_with("Bcc:")), "{message}");
    }
}
