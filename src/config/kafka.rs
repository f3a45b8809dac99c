//! `[kafka]`: brokers, delivery, and the librdkafka properties that a user may and may not set.

use std::collections::BTreeMap;

use super::reader::Section;
use super::secret::Secret;
use super::settings::{Delivery, KafkaSettings};
use super::tree::{Node, Origin, Table, Value};

/// librdkafka's statistics, which the consumer lag comes from, are expensive below this interval (librdkafka#2604).
const LEAST_STATISTICS_INTERVAL_MS: i64 = 10_000;
/// A password file is a line; anything larger is the wrong file.
const LARGEST_SECRET_FILE: usize = 64 << 10;

/// Properties that delivery depends on, with what to do instead.
const RESERVED: [(&str, &str); 24] = [
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group_prefix"),
    ("transactional.id", "set kafka.instance and kafka.delivery"),
    ("transaction.timeout.ms", "set stream.commit_interval and stream.drain_deadline"),
    ("acks", "outputs are always acknowledged by all replicas"),
    ("request.required.acks", "outputs are always acknowledged by all replicas"),
    ("enable.idempotence", "the producer is always idempotent"),
    ("enable.gapless.guarantee", "the engine handles gaps itself"),
    ("max.in.flight", "the idempotent producer chooses it"),
    ("max.in.flight.requests.per.connection", "the idempotent producer chooses it"),
    ("retries", "publishing is repeated until the drain deadline"),
    ("message.send.max.retries", "publishing is repeated until the drain deadline"),
    ("message.timeout.ms", "publishing is repeated until the drain deadline"),
    ("delivery.timeout.ms", "publishing is repeated until the drain deadline"),
    ("delivery.report.only.error", "offsets are committed by delivery reports"),
    ("enable.auto.commit", "offsets are committed after the outputs; set stream.commit_interval"),
    ("auto.commit.enable", "offsets are committed after the outputs; set stream.commit_interval"),
    ("auto.commit.interval.ms", "set stream.commit_interval"),
    ("enable.auto.offset.store", "offsets are committed after the outputs"),
    ("offset.store.method", "offsets are kept in Kafka"),
    ("enable.partition.eof", "the engine does not use it"),
    ("queued.max.messages.kbytes", "set stream.max_prefetch_bytes"),
    ("queue.buffering.max.kbytes", "set stream.max_in_flight_bytes"),
];

pub(super) fn read_kafka(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> KafkaSettings {
    let brokers = section.parsed("brokers", String::new(), parse_brokers);
    let group_prefix = section.parsed("group_prefix", String::new(), parse_name);
    let instance = section.parsed("instance", String::new(), |text| match text.trim() {
        "" => host_name(),
        text => parse_name(text),
    });
    let delivery = section
        .choice("delivery", &[("at_least_once", Delivery::AtLeastOnce), ("exactly_once", Delivery::ExactlyOnce)]);
    let properties = section.table("properties", |section| read_properties(section, environment));
    if delivery == Delivery::ExactlyOnce
        && properties.get("isolation.level").is_some_and(|level| level.reveal() != "read_committed")
    {
        section.fault("delivery", "exactly_once needs kafka.properties.\"isolation.level\" to be read_committed");
    }
    let oauth_token_file = section.table("oauth", |section| {
        section.read("token_file", None, |node| match node.as_text()? {
            "" => Ok(None),
            path => Ok(Some(node.origin.resolve(path))),
        })
    });
    KafkaSettings { brokers, group_prefix, instance, delivery, properties, oauth_token_file }
}

/// Values of properties are never shown, not even in faults: any of them may turn out to be confidential.
fn read_properties(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    let mut properties = BTreeMap::new();
    for (name, node) in section.take_rest() {
        let path = format!("{}.\"{name}\"", section.key("").trim_end_matches('.'));
        let origin = node.origin.clone();
        match property_value(&name, node, environment) {
            Ok(value) => {
                properties.insert(name, Secret::new(value));
            }
            Err(rule) => section.ledger().hidden_fault(&origin, &path, rule),
        }
    }
    properties
}

fn property_value(name: &str, node: Node, environment: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return Err(format!("delivery depends on this property, it cannot be set: {instead}"));
    }
    let from_environment = matches!(node.origin, super::tree::Origin::Environment(_));
    let origin = node.origin;
    let value = match node.value {
        Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_)
            if is_confidential(name) && !from_environment =>
        {
            return Err("is confidential and must not be written here: use { env = \"NAME\" } or \
                        { file = \"/run/secrets/...\" }"
                .to_owned());
        }
        Value::Text(text) => text,
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Table(reference) => referenced_secret(reference, &origin, environment)?,
        Value::List(_) => return Err("expected text, a number, true or false".to_owned()),
    };
    if value.is_empty() && is_confidential(name) {
        return Err("must not be empty".to_owned());
    }
    let too_frequent = |interval: i64| interval < LEAST_STATISTICS_INTERVAL_MS;
    if name == "statistics.interval.ms" && value.parse().is_ok_and(too_frequent) {
        return Err(format!("must be at least {LEAST_STATISTICS_INTERVAL_MS}: statistics cost throughput"));
    }
    Ok(value)
}

/// The value of `{ env = "NAME" }` or `{ file = "PATH" }`.
pub(super) fn referenced_secret(
    reference: Table,
    origin: &Origin,
    environment: &BTreeMap<String, String>,
) -> Result<String, String> {
    let mut parts = reference.into_iter();
    match (parts.next(), parts.next()) {
        (Some((key, Node { value: Value::Text(target), .. })), None) if key == "env" => {
            environment.get(&target).cloned().ok_or_else(|| format!("the variable {target} is not set"))
        }
        (Some((key, Node { value: Value::Text(target), .. })), None) if key == "file" => {
            read_secret_file(&origin.resolve(&target))
        }
        _ => Err("expected { env = \"NAME\" } or { file = \"PATH\" }".to_owned()),
    }
}

/// Whether a librdkafka property holds something that must not lie in a configuration file.
fn is_confidential(name: &str) -> bool {
    ["password", "passphrase", "secret"].iter().any(|part| name.contains(part))
        || name.ends_with("key.pem")
        || name == "sasl.oauthbearer.config"
}

fn read_secret_file(path: &std::path::Path) -> Result<String, String> {
    let cannot = |why: String| format!("cannot read {}: {why}", path.display());
    let content = std::fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
    if content.len() > LARGEST_SECRET_FILE {
        return Err(cannot(format!("it is larger than {LARGEST_SECRET_FILE} bytes")));
    }
    // Editors and `echo` end a file with a line feed that is no part of a password.
    Ok(content.trim_end_matches(['\r', '\n']).to_owned())
}

/// Checks `[protocol://]host[:port],...`.
fn parse_brokers(text: &str) -> Result<String, String> {
    let rule = || "expected host:port, several separated by commas".to_owned();
    for broker in text.split(',').map(str::trim) {
        let address = broker.split_once("://").map_or(broker, |(_, address)| address);
        // The last colon of `[::1]` belongs to the address.
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (address, None),
        };
        let valid_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@');
        let valid_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        if !valid_host || !valid_port {
            return Err(rule());
        }
    }
    Ok(text.to_owned())
}

/// Names that become part of group ids, transactional ids and client ids.
fn parse_name(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text {
        "" => Err("must not be empty".to_owned()),
        text if text.len() <= 128 && text.chars().all(valid) => Ok(text.to_owned()),
        _ => Err("may have letters, digits, `.`, `_` and `-`, at most 128".to_owned()),
    }
}

fn host_name() -> Result<String, String> {
    let name = hostname::get().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).ok_or_else(|| "this machine has no host name: set one here".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        for right in ["localhost:9092", "a:1,b:2", "a", "SASL_SSL://a.example:9093", "[::1]:9092", "[::1]", "a:1, b:2"]
        {
            assert!(parse_brokers(right).is_ok(), "{right:?}");
        }
        for wrong in ["", "a:0", "a:70000", "a:", ":9092", "a b:1", "a:1,,b:2", "user@host:1"] {
            assert!(parse_brokers(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn passwords_and_private_keys_are_confidential() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.private.key.pem",
        ] {
            assert!(is_confidential(name), "{name}");
        }
        for name in ["sasl.username", "ssl.certificate.pem", "ssl.ca.location", "ssl.key.location", "linger.ms"] {
            assert!(!is_confidential(name), "{name}");
        }
    }
}
