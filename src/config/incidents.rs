//! `[incidents]`: what opens one, what belongs together, until when somebody must act, and who is told by which way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::Priority;

use super::checked::parse_topic;
use super::feedback::parse_address;
use super::reader::{Ledger, Section, choose, read_table};
use super::secret::Secret;
use super::settings::{
    ChannelSettings, ChannelTarget, Config, Correlation, EscalationSettings, IncidentSettings, SlaSettings, Template,
    TemplateField, TemplatePiece,
};
use super::tree::{Node, Value};
use super::volumes::{parse_identifier, read_secret};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const MOST_CHANNELS: usize = 32;
const MOST_STEPS: usize = 20;
const LONGEST_TEMPLATE: usize = 16 << 10;
/// Shorter ones can be guessed from a signature that somebody saw.
const SHORTEST_SECRET: usize = 16;

const CORRELATIONS: [(&str, Correlation); 7] = [
    ("template", Correlation::Template),
    ("url", Correlation::Url),
    ("ip", Correlation::Ip),
    ("domain", Correlation::Domain),
    ("email", Correlation::Email),
    ("cve", Correlation::Cve),
    ("hash", Correlation::Hash),
];

/// The names that stand in `{{…}}`.
const FIELDS: [(&str, TemplateField); 16] = [
    ("incident_id", TemplateField::IncidentId),
    ("event_id", TemplateField::EventId),
    ("status", TemplateField::Status),
    ("severity", TemplateField::Severity),
    ("queue", TemplateField::Queue),
    ("category", TemplateField::Category),
    ("events", TemplateField::Events),
    ("changes", TemplateField::Changes),
    ("step", TemplateField::Step),
    ("opened_at", TemplateField::OpenedAt),
    ("first_seen", TemplateField::FirstSeen),
    ("last_seen", TemplateField::LastSeen),
    ("acknowledge_by", TemplateField::AcknowledgeBy),
    ("resolve_by", TemplateField::ResolveBy),
    ("by", TemplateField::By),
    ("correlated_by", TemplateField::CorrelatedBy),
];

pub(super) fn read_incidents(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> IncidentSettings {
    let topic = section.parsed("topic", String::new(), parse_topic);
    let updates = section.parsed("updates", String::new(), parse_topic);
    let channels = read_channels(section, environment);
    let names: Vec<String> = channels.iter().map(|channel| channel.name.clone()).collect();
    IncidentSettings {
        topic,
        updates,
        from: section.parsed("from", Priority::High, str::parse),
        window: section.duration("window", SECOND..=DAY),
        longest: section.duration("longest", MINUTE..=7 * DAY),
        max_event_age: section.duration("max_event_age", MINUTE..=7 * DAY),
        auto_resolve: section.duration("auto_resolve", Duration::ZERO..=365 * DAY),
        correlate_by: read_correlations(section),
        ignore: section.list("ignore").into_iter().map(|(_, text)| text).collect(),
        batch_records: section.count("batch_records", 1..=100_000),
        batch_age: section.duration("batch_age", Duration::from_millis(1)..=MINUTE),
        send_deadline: section.duration("send_deadline", SECOND..=60 * SECOND),
        // In the order of `Priority::ALL`.
        sla: section
            .table("sla", |section| ["low", "medium", "high", "critical"].map(|key| section.table(key, read_sla))),
        notify: read_names(section, "notify", &names),
        escalation: read_escalation(section, &names),
        channels,
    }
}

fn read_sla(section: &mut Section<'_>) -> SlaSettings {
    SlaSettings {
        acknowledge: section.duration("acknowledge", SECOND..=365 * DAY),
        resolve: section.duration("resolve", SECOND..=365 * DAY),
    }
}

fn read_correlations(section: &mut Section<'_>) -> Vec<Correlation> {
    let mut found = Vec::new();
    for (_, name) in section.list("correlate_by") {
        match choose(&name, &CORRELATIONS) {
            Ok(kind) if found.contains(&kind) => section.fault("correlate_by", format!("names {name:?} twice")),
            Ok(kind) => found.push(kind),
            Err(rule) => section.fault("correlate_by", format!("{name:?}: {rule}")),
        }
    }
    found
}

/// Names of channels, as their places.
fn read_names(section: &mut Section<'_>, key: &'static str, names: &[String]) -> Vec<usize> {
    let mut found = Vec::new();
    for (_, name) in section.list(key) {
        match names.iter().position(|known| *known == name) {
            Some(place) if found.contains(&place) => section.fault(key, format!("names {name:?} twice")),
            Some(place) => found.push(place),
            None => section.fault(key, format!("{name:?}: no incidents.channel has this name")),
        }
    }
    found
}

fn read_escalation(section: &mut Section<'_>, names: &[String]) -> Vec<EscalationSettings> {
    let items = section.read("escalation", Vec::new(), Node::into_list);
    let mut steps: Vec<EscalationSettings> = Vec::with_capacity(items.len());
    if items.len() > MOST_STEPS {
        section.fault("escalation", format!("must not have more than {MOST_STEPS} steps"));
    }
    for (index, item) in items.into_iter().enumerate() {
        let path = section.key(&format!("escalation[{index}]"));
        let step = read_table(section.ledger(), &path, Some(item), |section| EscalationSettings {
            after: section.duration("after", SECOND..=365 * DAY),
            notify: read_names(section, "notify", names),
        });
        let key = format!("{path}.after");
        if steps.last().is_some_and(|before| before.after >= step.after) && section.ledger().sound(&[&key]) {
            section.ledger().fault(&key, "must be longer than that of the step before");
        }
        steps.push(step);
    }
    steps
}

fn read_channels(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> Vec<ChannelSettings> {
    let items = section.read("channel", Vec::new(), Node::into_list);
    if items.len() > MOST_CHANNELS {
        section.fault("channel", format!("must not be more than {MOST_CHANNELS}"));
    }
    let mut channels: Vec<ChannelSettings> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = section.key(&format!("channel[{index}]"));
        let channel = read_table(section.ledger(), &path, Some(item), |section| read_channel(section, environment));
        let key = format!("{path}.name");
        if channels.iter().any(|other| other.name == channel.name) && section.ledger().sound(&[&key]) {
            section.ledger().fault(&key, "each name may be used once only");
        }
        channels.push(channel);
    }
    channels
}

#[derive(Clone, Copy)]
enum Way {
    Webhook,
    Slack,
    Email,
}

fn read_channel(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> ChannelSettings {
    let name = section.parsed("name", String::new(), |text| {
        // Names stand in labels and headers.
        parse_identifier(&text.replace('-', "_")).map(|_| text.to_owned())
    });
    let way = section.choice("kind", &[("webhook", Way::Webhook), ("slack", Way::Slack), ("email", Way::Email)]);
    let target = match way {
        Way::Webhook => {
            let url = read_url(section, environment, true);
            let secret = read_secret(section, "secret", environment);
            let path = section.key("secret");
            match &secret {
                None if section.ledger().sound(&[&path]) => {
                    section.missing("secret", "is missing: what requests are signed with, { env = … } or { file = … }");
                }
                Some(secret) if secret.reveal().len() < SHORTEST_SECRET => {
                    section.fault("secret", format!("must have at least {SHORTEST_SECRET} bytes"));
                }
                _ => {}
            }
            ChannelTarget::Webhook { url, secret: secret.unwrap_or_else(|| Secret::new("")) }
        }
        // Whoever knows the address of a Slack webhook may write there.
        Way::Slack => ChannelTarget::Slack { url: read_url(section, environment, false) },
        Way::Email => ChannelTarget::Email { to: read_recipients(section) },
    };
    let subject = match way {
        Way::Email => read_template(section, "subject"),
        _ => None,
    };
    let template = read_template(section, "template");
    if matches!(way, Way::Webhook) && template.as_ref().is_some_and(|template| !gives_json(template)) {
        section.fault("template", "is no JSON: names stand within quotes, except events and step");
    }
    ChannelSettings {
        name,
        target,
        from: optional(section, "from", Priority::Low, |node| node.as_text()?.parse()),
        cooldown: duration(section, "cooldown", 5 * MINUTE, Duration::ZERO, DAY),
        per_minute: count(section, "per_minute", 30, 1, 10_000),
        attempts: count(section, "attempts", 8, 1, 100),
        timeout: duration(section, "timeout", 10 * SECOND, Duration::from_millis(100), MINUTE),
        retry_backoff: duration(section, "retry_backoff", SECOND, Duration::from_millis(10), MINUTE),
        retry_backoff_max: duration(section, "retry_backoff_max", 5 * MINUTE, Duration::from_millis(10), HOUR),
        template,
        subject,
    }
}

fn optional<T>(
    section: &mut Section<'_>,
    key: &'static str,
    default: T,
    convert: impl FnOnce(&Node) -> Result<T, String>,
) -> T {
    match section.take(key).map(|node| convert(&node)) {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(rule)) => {
            section.fault(key, rule);
            default
        }
    }
}

fn duration(
    section: &mut Section<'_>,
    key: &'static str,
    default: Duration,
    least: Duration,
    most: Duration,
) -> Duration {
    optional(section, key, default, |node| {
        let rule = "expected a duration such as \"500ms\" or \"2s\"";
        let duration = super::parse_duration(node.as_text().map_err(|_| rule)?)?;
        match (least..=most).contains(&duration) {
            true => Ok(duration),
            false => Err(format!("must be from {least:?} to {most:?}")),
        }
    })
}

fn count(section: &mut Section<'_>, key: &'static str, default: u32, least: u32, most: u32) -> u32 {
    optional(section, key, default, |node| {
        let number = u32::try_from(node.as_integer()?).ok();
        number.filter(|number| (least..=most).contains(number)).ok_or(format!("must be from {least} to {most}"))
    })
}

fn read_url(section: &mut Section<'_>, environment: &BTreeMap<String, String>, may_be_plain: bool) -> Secret {
    let plain = match section.peek("url") {
        Some(Node { value: Value::Text(text), .. }) if may_be_plain => Some(text.clone()),
        _ => None,
    };
    let url = match plain {
        Some(text) => {
            section.take("url");
            Some(Secret::new(text))
        }
        None => read_secret(section, "url", environment),
    };
    let path = section.key("url");
    match url {
        Some(url) if is_url(url.reveal()) => return url,
        Some(_) => section.fault("url", "expected https://host/path (or http://), without user and password"),
        None if section.ledger().sound(&[&path]) => section.missing("url", "is missing"),
        None => {}
    }
    Secret::new("")
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !host.is_empty() && !host.contains('@') && text.chars().all(|c| c.is_ascii_graphic())
}

fn read_recipients(section: &mut Section<'_>) -> Vec<String> {
    let mut to = Vec::new();
    for (_, address) in section.list("to") {
        match parse_address(&address) {
            Ok(address) => to.push(address),
            Err(rule) => section.fault("to", format!("{address:?}: {rule}")),
        }
    }
    let path = section.key("to");
    if to.is_empty() && section.ledger().sound(&[&path]) {
        section.fault("to", "must name at least one address");
    }
    to
}

fn read_template(section: &mut Section<'_>, key: &'static str) -> Option<Template> {
    optional(section, key, None, |node| parse_template(node.as_text()?).map(Some))
}

/// `{{name}}` stands for a field, anything else for itself.
fn parse_template(text: &str) -> Result<Template, String> {
    if text.trim().is_empty() || text.len() > LONGEST_TEMPLATE {
        return Err(format!("must not be empty or longer than {LONGEST_TEMPLATE} bytes"));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or_else(|| "a `{{` has no `}}`".to_owned())?;
        let field = choose(name.trim(), &FIELDS).map_err(|rule| format!("{{{{{name}}}}}: {rule}"))?;
        pieces.push(TemplatePiece::Text(before.to_owned()));
        pieces.push(TemplatePiece::Field(field));
        rest = after;
    }
    pieces.push(TemplatePiece::Text(rest.to_owned()));
    Ok(Template(pieces))
}

/// Whether a template is JSON once its names have values.
fn gives_json(template: &Template) -> bool {
    let value = |piece: &TemplatePiece| match piece {
        TemplatePiece::Text(text) => text.clone(),
        // The only ones that are numbers.
        TemplatePiece::Field(TemplateField::Events | TemplateField::Step) => "1".to_owned(),
        TemplatePiece::Field(_) => "x".to_owned(),
    };
    let text: String = template.0.iter().map(value).collect();
    serde_json::from_str::<serde_json::Value>(&text).is_ok()
}

/// A mail that nobody could send would only be noticed when somebody should have got it.
pub(super) fn check_incidents(config: &Config, ledger: &mut Ledger) {
    let mails =
        config.incidents.channels.iter().position(|channel| matches!(channel.target, ChannelTarget::Email { .. }));
    if let Some(index) = mails
        && config.smtp.server.is_empty()
    {
        let key = format!("incidents.channel[{index}].kind");
        ledger.conflict(
            (&key, "needs smtp.server".to_owned()),
            ("smtp.server", format!("must not be empty: {key} is email")),
        );
    }
}

/// Channels whose messages travel unencrypted to another machine.
pub(super) fn plain_channels(settings: &IncidentSettings) -> impl Iterator<Item = &str> {
    let is_plain = |channel: &&ChannelSettings| match &channel.target {
        ChannelTarget::Webhook { url, .. } | ChannelTarget::Slack { url } => {
            let host = url.reveal().strip_prefix("http://").unwrap_or_default();
            let local = ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local));
            !host.is_empty() && !local
        }
        ChannelTarget::Email { .. } => false,
    };
    settings.channels.iter().filter(is_plain).map(|channel| &*channel.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        Config::from_toml(text).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_template_names_fields() {
        let template = parse_template("{\"a\":{\"b\":\"{{ severity }}\"}} {{queue}}").expect("a template");
        let fields: Vec<TemplateField> = template
            .0
            .iter()
            .filter_map(|piece| match piece {
                TemplatePiece::Field(field) => Some(*field),
                TemplatePiece::Text(_) => None,
            })
            .collect();
        assert_eq!(fields, [TemplateField::Severity, TemplateField::Queue]);
        for wrong in ["", " ", "{{text}}", "{{severity", &"x".repeat(LONGEST_TEMPLATE + 1)] {
            assert!(parse_template(wrong).is_err(), "{wrong:.20}");
        }
    }

    #[test]
    fn channels_are_named_and_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "0123456789abcdef\n").expect("written");
        let webhook = |rest: &str| {
            format!(
                "[[incidents.channel]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"https://soc.example.org/hook\"\n\
                 secret = {{ file = {secret:?} }}\n{rest}"
            )
        };
        let config = load(&format!("incidents.notify = [\"soc\"]\n{}", webhook("cooldown = \"1m\""))).expect("right");
        let channel = &config.incidents.channels[0];
        assert_eq!((channel.cooldown, channel.per_minute), (MINUTE, 30));
        assert_eq!(config.incidents.notify, [0]);
        assert!(!format!("{config:?}").contains("0123456789abcdef"), "the secret is not shown");
        for (text, fault) in [
            (webhook("cooldown = 5"), "incidents.channel[0].cooldown = 5: expected a duration"),
            (webhook("per_minute = 0"), "incidents.channel[0].per_minute = 0: must be from 1 to 10000"),
            (webhook("template = \"{{text}}\""), "incidents.channel[0].template"),
            (webhook("template = '{\"severity\":{{severity}}}'"), "is no JSON: names stand within quotes"),
            (webhook("") + &webhook(""), "incidents.channel[1].name = \"soc\": each name may be used once only"),
            ("incidents.notify = [\"soc\"]".to_owned(), "incidents.notify = [...]: \"soc\": no incidents.channel"),
            (
                "[[incidents.channel]]\nname = \"a\"\nkind = \"slack\"\nurl = \"https://hooks.slack.com/x\"".to_owned(),
                "incidents.channel[0].url: is confidential",
            ),
            (
                "[[incidents.channel]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"ftp://x\"".to_owned(),
                "incidents.channel[0].secret",
            ),
            (
                "[[incidents.channel]]\nname = \"a\"\nkind = \"email\"\nto = [\"a@b\"]".to_owned(),
                "incidents.channel[0].kind = \"email\": needs smtp.server",
            ),
            (
                "[[incidents.escalation]]\nafter = \"5m\"\nnotify = []\n[[incidents.escalation]]\nafter = \"5m\"\nnotify = []"
                    .to_owned(),
                "incidents.escalation[1].after = \"5m\": must be longer",
            ),
            ("incidents.topic = \"queue-events\"".to_owned(), "incidents.topic = \"queue-events\": is the same topic"),
        ] {
            let faults = load(&text).expect_err("this configuration is wrong");
            assert!(faults.contains(fault), "{fault} is missing in {faults}");
        }
    }

    #[test]
    fn what_travels_in_the_clear_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "0123456789abcdef").expect("written");
        let warnings = |url: &str| {
            let text = format!(
                "[[incidents.channel]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"{url}\"\nsecret = {{ file = {secret:?} }}"
            );
            load(&text).expect("right").warnings().len()
        };
        assert_eq!((warnings("http://soc.example.org"), warnings("https://soc.example.org")), (1, 0));
        assert_eq!(warnings("http://127.0.0.1:8080/x"), 0);
    }
}
