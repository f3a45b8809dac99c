//! `TRIAGED_*` variables as a layer of the configuration.

use std::sync::Arc;

use super::reader::Ledger;
use super::tree::{self, Node, Origin, Table, Value};

const ENVIRONMENT_PREFIX: &str = "TRIAGED_";
/// Parts of a setting's name are separated by this in a variable's name.
const PART_SEPARATOR: &str = "__";
/// Tables of the configuration, to tell a mistyped variable from a foreign one such as Kubernetes' own
/// `TRIAGED_SERVICE_HOST`.
pub(super) const SECTIONS: [&str; 24] = [
    "kafka",
    "stream",
    "input",
    "decode",
    "rules",
    "model",
    "cache",
    "decide",
    "output",
    "volumes",
    "clickhouse",
    "tally",
    "forecast",
    "escalate",
    "drift",
    "feedback",
    "incidents",
    "reports",
    "smtp",
    "retrain",
    "ops",
    "api",
    "reload",
    "log",
];

/// The tree of one variable; `None` when it is not one of ours.
pub(super) fn layer(name: &str, value: &str, ledger: &mut Ledger) -> Option<Table> {
    let setting = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_ascii_lowercase();
    let origin = Origin::Environment(Arc::from(name));
    if !setting.contains(PART_SEPARATOR) && setting != "input" {
        if is_service_link(&setting) {
            return None;
        }
        let section = SECTIONS
            .into_iter()
            .find(|section| setting.strip_prefix(section).is_some_and(|rest| rest.starts_with('_')))?;
        let rest = &setting[section.len() + 1..];
        let meant = format!("{ENVIRONMENT_PREFIX}{section}{PART_SEPARATOR}{rest}").to_ascii_uppercase();
        ledger.hidden_fault(&origin, section, format!("parts are separated by two underscores: {meant}"));
        return None;
    }
    let mut path: Vec<String> = setting.split(PART_SEPARATOR).map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        ledger.hidden_fault(&origin, &setting, "expected a setting such as TRIAGED_KAFKA__BROKERS");
        return None;
    }
    // Shells allow no dots in a variable's name, and no librdkafka property has an underscore.
    if let [section, table, property] = path.as_mut_slice()
        && section == "kafka"
        && table == "properties"
    {
        *property = property.replace('_', ".");
    }
    Some(tree::nested(&path, Node { value: Value::Text(value.to_owned()), origin }))
}

/// Kubernetes describes every Service to every pod: one called `triaged-kafka` gives `TRIAGED_KAFKA_SERVICE_HOST`,
/// `TRIAGED_KAFKA_PORT_9092_TCP_ADDR` and their like.
fn is_service_link(setting: &str) -> bool {
    setting.ends_with("_service_host")
        || setting.contains("_service_port")
        || setting.ends_with("_port")
        || setting.contains("_port_")
}
