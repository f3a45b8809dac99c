//! Messages as text: templates with the fields of an incident, escaped as the way needs it.

use crate::config::{Template, TemplateField, TemplatePiece};

use super::message::Message;

/// What would mean something else where the text is going to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Plain text, in which nothing means anything.
    Plain,
    /// Inside a string of JSON.
    Json,
    /// Slack's text: `&`, `<` and `>` would begin links and mentions.
    Slack,
}

pub(super) fn render(template: &Template, message: &Message, escape: Escape) -> String {
    let mut text = String::new();
    for piece in &template.0 {
        match piece {
            TemplatePiece::Text(piece) => text.push_str(piece),
            TemplatePiece::Field(field) => text.push_str(&escaped(&value(*field, message), escape)),
        }
    }
    text
}

/// What a channel says when it has no template of its own.
pub(super) fn usual(message: &Message, escape: Escape) -> String {
    let incident = &message.incident;
    let category = incident.category.as_deref().map_or_else(String::new, |category| format!(" ({category})"));
    let text = format!(
        "{} incident in {}{category}: {}\n{} events, first {}, last {}\nstatus {}, acknowledge by {}, resolve by {}\n\
         incident {}\n",
        incident.severity,
        incident.queue,
        changes(message),
        incident.events,
        incident.first_seen,
        incident.last_seen,
        incident.status.as_str(),
        incident.acknowledge_by,
        incident.resolve_by,
        incident.incident_id
    );
    escaped(&text, escape)
}

/// The subject of an e-mail without a template.
pub(super) fn usual_subject(message: &Message) -> String {
    let incident = &message.incident;
    format!("[triaged] {} incident in {}: {}", incident.severity, incident.queue, changes(message))
}

fn changes(message: &Message) -> String {
    let names: Vec<String> = message.changes.iter().map(|change| change.as_str().replace('_', " ")).collect();
    names.join(", ")
}

fn value(field: TemplateField, message: &Message) -> String {
    let incident = &message.incident;
    match field {
        TemplateField::IncidentId => incident.incident_id.to_string(),
        TemplateField::EventId => incident.event_id.to_string(),
        TemplateField::Status => incident.status.as_str().to_owned(),
        TemplateField::Severity => incident.severity.as_str().to_owned(),
        TemplateField::Queue => incident.queue.clone(),
        TemplateField::Category => incident.category.clone().unwrap_or_default(),
        TemplateField::Events => incident.events.to_string(),
        TemplateField::Changes => changes(message),
        TemplateField::Step => incident.step.to_string(),
        TemplateField::OpenedAt => incident.opened_at.clone(),
        TemplateField::FirstSeen => incident.first_seen.clone(),
        TemplateField::LastSeen => incident.last_seen.clone(),
        TemplateField::AcknowledgeBy => incident.acknowledge_by.clone(),
        TemplateField::ResolveBy => incident.resolve_by.clone(),
        TemplateField::By => incident.history.last().and_then(|entry| entry.by.clone()).unwrap_or_default(),
        TemplateField::CorrelatedBy => incident.correlated_by.join(", "),
    }
}

fn escaped(text: &str, escape: Escape) -> String {
    match escape {
        Escape::Plain => text.to_owned(),
        Escape::Json => {
            let quoted = serde_json::to_string(text).expect("a text becomes JSON");
            quoted[1..quoted.len() - 1].to_owned()
        }
        Escape::Slack => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::sighting::tests::{NOW, event, sightings};
    use super::super::super::state::Incident;
    use super::*;
    use crate::config::Config;
    use crate::record::IncidentChange;
    use uuid::Uuid;

    pub(in crate::incidents::notify) fn message() -> Message {
        let mut first = sightings("").of(&event(1, NOW, &["203.0.113.7"]), NOW).expect("it counts");
        first.queue = "<!channel> \"soc\" & \\co".to_owned();
        let settings = Config::from_toml("").expect("settings").incidents;
        let mut incident = Incident::open(&first, Uuid::from_u128(1), &settings, NOW);
        // It is told after it was written.
        incident.row.version = 1;
        Message::new(&incident.row, vec![IncidentChange::Opened, IncidentChange::AcknowledgeBreached], "soc", 1)
    }

    fn template(text: &str) -> Template {
        let text = format!(
            "smtp.server = \"mx\"\nsmtp.from = \"a@b\"\n[[incidents.channel]]\nname = \"a\"\nkind = \"email\"\nto = [\"a@b\"]\n\
             template = '{text}'"
        );
        Config::from_toml(&text).expect("settings").incidents.channels[0].template.clone().expect("a template")
    }

    #[test]
    fn fields_are_escaped_as_their_place_needs_it() {
        let message = message();
        let body = render(&template("{\"q\":{\"text\":\"{{queue}}\"},\"n\":{{events}}}"), &message, Escape::Json);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((&body["q"]["text"], &body["n"]), (&"<!channel> \"soc\" & \\co".into(), &1.into()));
        let slack = render(&template("<https://example.org|{{ queue }}>"), &message, Escape::Slack);
        assert_eq!(slack, "<https://example.org|&lt;!channel&gt; \"soc\" &amp; \\co>");
        assert_eq!(render(&template("{{changes}}"), &message, Escape::Plain), "opened, acknowledge breached");
        assert!(!usual(&message, Escape::Slack).contains("<!channel>"));
    }

    #[test]
    fn nothing_of_a_text_is_told_unless_a_template_asks() {
        let message = message();
        let usual = usual(&message, Escape::Plain) + &usual_subject(&message);
        let json = serde_json::to_string(&message.notification(NOW)).expect("JSON");
        assert!(!usual.contains("203.0.113.7") && !json.contains("203.0.113.7"), "{usual} {json}");
        assert_eq!(render(&template("{{correlated_by}}"), &message, Escape::Plain), "ip:203.0.113.7");
    }
}
