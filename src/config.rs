//! The only reader of the environment and of configuration files: default.toml, then the user's file, then
//! `TRIAGED_*` variables, checked as a whole into a `Config`.
//!
//! Checking is pure: no connection is made, and only files that hold a secret are opened. All faults are reported at
//! once, each with the line or the variable that it comes from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

mod api;
mod change;
mod checked;
mod environment;
mod escalate;
mod fault;
mod feedback;
mod incidents;
mod kafka;
mod layers;
pub mod llm;
mod reader;
mod secret;
mod settings;
mod tree;
mod units;
mod volumes;

pub use fault::{ConfigFaults, Fault};
pub use secret::Secret;
pub use settings::*;
pub(crate) use units::parse_duration;

use change::Source;
use layers::Layers;
use reader::Ledger;
use tree::{Document, Node, Origin, Table, Value};

/// Every setting with its default and its description.
pub const DEFAULT_TOML: &str = include_str!("../config/default.toml");

impl Config {
    /// Reads the user's file, when there is one, and the environment over the defaults.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigFaults> {
        let environment = environment();
        match path {
            None => Config::from_layers(None, &environment),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| ConfigFaults::unreadable(path, &error))?;
                Config::from_layers(Some((path, &text)), &environment)
            }
        }
    }

    /// Reads a TOML text over the defaults; the environment is left alone.
    pub fn from_toml(text: &str) -> Result<Config, ConfigFaults> {
        Config::from_layers(Some((Path::new("config.toml"), text)), &BTreeMap::new())
    }

    fn from_layers(
        file: Option<(&Path, &str)>,
        environment: &BTreeMap<String, String>,
    ) -> Result<Config, ConfigFaults> {
        let mut ledger = Ledger::default();
        let mut layers = Layers::default();
        layers.add(tree::parse(&Document::Default, DEFAULT_TOML).expect("a test loads default.toml"));
        if let Some((path, text)) = file {
            match tree::parse(&Document::File(Arc::from(path)), text) {
                Ok(layer) => layers.add(layer),
                Err((place, why)) => ledger.hidden_fault(&place, "TOML", why),
            }
        }
        for (name, value) in environment {
            if let Some(layer) = environment::layer(name, value, &mut ledger) {
                layers.add(layer);
            }
        }
        let config = Config::from_tree(layers.merged(), environment, ledger)?;
        Ok(Config { source: config.source.of_file(file), ..config })
    }

    /// Checks a whole tree; the ledger may hold faults already.
    fn from_tree(
        tree: Table,
        environment: &BTreeMap<String, String>,
        mut ledger: Ledger,
    ) -> Result<Config, ConfigFaults> {
        let root = Node { value: Value::Table(tree.clone()), origin: Origin::Default };
        let config = checked::read_config(root, environment, &mut ledger);
        match ledger.into_faults() {
            faults if faults.is_empty() => Ok(Config { source: Source::of_tree(tree), ..config }),
            faults => Err(ConfigFaults::new(faults)),
        }
    }

    /// What is allowed but most likely not meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let property = |name: &str| self.kafka.properties.get(name).map(|value| value.reveal().to_ascii_lowercase());
        let protocol = property("security.protocol");
        let has_sasl = self.kafka.oauth_token_file.is_some() || property("sasl.password").is_some();
        match protocol.as_deref() {
            Some("sasl_plaintext") => warnings.push(
                "kafka.properties.\"security.protocol\" is SASL_PLAINTEXT: the password and all records travel \
                 unencrypted; SASL_SSL protects them"
                    .to_owned(),
            ),
            Some("sasl_ssl") => {}
            _ if has_sasl => warnings.push(
                "SASL credentials are set but kafka.properties.\"security.protocol\" is neither SASL_SSL nor \
                 SASL_PLAINTEXT: they are not used"
                    .to_owned(),
            ),
            _ => {}
        }
        if property("enable.ssl.certificate.verification").as_deref() == Some("false") {
            warnings.push("the brokers' certificates are not verified: anybody in between can read the records".into());
        }
        if matches!(property("auto.offset.reset").as_deref(), Some("latest" | "largest" | "end")) {
            warnings.push(
                "kafka.properties.\"auto.offset.reset\" is latest: records are skipped wherever no offset is committed"
                    .to_owned(),
            );
        }
        if self.smtp.tls == SmtpTls::None && !self.smtp.user.is_empty() {
            warnings.push("smtp.tls is none: the password and all reports travel unencrypted".to_owned());
        }
        for channel in incidents::plain_channels(&self.incidents) {
            warnings
                .push(format!("incidents.channel {channel:?} is told over http://: anybody in between can read it"));
        }
        warnings
    }
}

/// The variables of this process that are text.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{Kind, Priority};

    fn faults(text: &str) -> String {
        Config::from_toml(text).expect_err("this configuration is wrong").to_string()
    }

    fn with_environment(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Config::from_layers(Some((Path::new("my.toml"), text)), &environment)
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = Config::from_toml("").unwrap();
        assert_eq!(config.kafka.brokers, "localhost:9092");
        assert_eq!(config.stream.batch_age, Duration::from_millis(10));
        assert_eq!(config.stream.batch_bytes, 1 << 20);
        assert!(config.stream.workers > 0 && !config.kafka.instance.is_empty());
        let topics: Vec<(&str, Kind)> = config.inputs.iter().map(|input| (&*input.topic, input.decode.kind)).collect();
        assert_eq!(topics, [("tickets", Kind::Ticket), ("logs", Kind::Log)]);
        assert_eq!(config.inputs[0].decode.fields.text, ["content", "description", "body"]);
        assert_eq!(config.inputs[1].decode.fields.level, ["level", "severity"]);
        assert!(config.inputs[1].decode.fields.title.is_empty(), "a log line has no title");
        assert_eq!(config.decide.priorities["Critical Error"], Priority::Critical);
        assert_eq!(config.warnings(), Vec::<String>::new());
        assert_eq!(config.ops.listen, Some("127.0.0.1:9464".parse().unwrap()));
        assert_eq!(config.api.listen, Some("127.0.0.1:9465".parse().unwrap()));
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let text = r#"
[kafka]
brokers = "kafka:99999"
delivery = "exactly-once"
broker = "kafka:9092"

[stream]
batch_age = 50
batch_bytes = "128MiB"
workers = -1
retry_backoff = "20s"

[[input]]
topic = "tick ets"
kind = "tickets"

[[input]]
topic = "queue-events"
kind = "log"

[cache]
masks = ["number", "ipv4"]

[decide]
human_verify = 0.9

[nonsense]
a = 1
"#;
        assert_eq!(
            faults(text),
            r#"the configuration has 13 faults
  config.toml:3: kafka.brokers = "kafka:99999": expected host:port, several separated by commas
  config.toml:4: kafka.delivery = "exactly-once": expected one of at_least_once, exactly_once
  config.toml:5: kafka.broker: there is no such setting; did you mean `brokers`?
  config.toml:8: stream.batch_age = 50: expected a duration such as "500ms" or "2s"
  config.toml:9: stream.batch_bytes = "128MiB": must not be larger than stream.max_in_flight_bytes: it could never be taken
  config.toml:10: stream.workers = -1: must be from 0 to 1024
  config.toml:11: stream.retry_backoff = "20s": must not be longer than stream.retry_backoff_max
  config.toml:14: input[0].topic = "tick ets": a topic name has letters, digits, `.`, `_` and `-`, at most 249
  config.toml:15: input[0].kind = "tickets": expected one of ticket, log
  config.toml:18: input[1].topic = "queue-events": is the same topic as output.events: events would be classified for ever
  config.toml:22: cache.masks = [...]: "ipv4": expected one of number, hex, ip, uuid, path, email, url, quoted
  config.toml:25: decide.human_verify = 0.9: must not be above decide.auto_route, which is 0.85
  config.toml:27: nonsense: there is no such setting; known here: decode, kafka, stream, input, rules, model, cache, decide, output, volumes, clickhouse, tally, forecast, escalate, drift, feedback, incidents, reports, smtp, retrain, ops, api, reload, log"#
        );
    }

    #[test]
    fn a_topic_that_is_read_cannot_be_written() {
        let faults_of_output = faults("[output]\ndead_letters = \"logs\"");
        assert!(
            faults_of_output.contains("config.toml:2: output.dead_letters = \"logs\": is the same topic as input[1]")
        );
        let text = "[output]\nescalations = \"queue-events\"\n[output.topics]\nsoc = \"dead-letters\"\n";
        let faults = faults(text);
        assert!(
            faults.contains("config.toml:2: output.escalations = \"queue-events\": is the same topic as output.events")
        );
        assert!(faults.contains("config.toml:4: output.topics.soc = \"dead-letters\": must differ from"));
    }

    #[test]
    fn text_that_is_not_toml_is_told_with_its_line() {
        assert!(faults("[kafka]\nbrokers = \n").starts_with("the configuration has 1 fault\n  config.toml:2: TOML: "));
    }

    #[test]
    fn an_input_list_replaces_the_default_one_and_fields_replace_by_meaning() {
        let text = r#"
[[input]]
topic = "siem"
kind = "log"
[input.fields]
text = ["event.original"]
"#;
        let config = Config::from_toml(text).unwrap();
        assert_eq!(config.inputs.len(), 1);
        let fields = &config.inputs[0].decode.fields;
        assert_eq!(fields.text, ["event.original"]);
        assert_eq!(fields.timestamp, ["timestamp", "@timestamp", "time"]);
        assert!(faults("input = []").contains("at least one topic must be read"));
        assert!(faults("[[input]]\nkind = \"log\"").contains("config.toml:1: input[0].topic: is missing"));
        let twice = "[[input]]\ntopic = \"a\"\nkind = \"log\"\n".repeat(2);
        assert!(faults(&twice).contains("config.toml:5: input[1].topic = \"a\": each topic may be read once only"));
    }

    /// Puts `wrong` in the place of every setting in turn: whatever it is, the answer is a configuration or a fault
    /// that names the setting or the table around it.
    #[test]
    fn a_wrong_value_anywhere_is_a_fault_that_names_its_key() {
        fn paths(table: &Table, path: &[String], into: &mut Vec<Vec<String>>) {
            for (key, node) in table {
                let path = [path, std::slice::from_ref(key)].concat();
                if let Value::Table(inner) = &node.value {
                    paths(inner, &path, into);
                }
                into.push(path);
            }
        }
        let defaults = tree::parse(&Document::Default, DEFAULT_TOML).unwrap();
        let mut all = Vec::new();
        paths(&defaults, &[], &mut all);
        assert!(all.len() > 60, "{} settings", all.len());
        for path in &all {
            let mut refused = 0;
            let wrong = [
                "-1",
                "1e300",
                "nan",
                "true",
                "'\u{1f980}'",
                "''",
                "[]",
                "[[]]",
                "[{}]",
                "{}",
                "{ x = {} }",
                "1979-05-27",
            ];
            for value in wrong {
                let quoted: Vec<String> = path.iter().map(|part| format!("{part:?}")).collect();
                let Err(ConfigFaults(faults)) = Config::from_toml(&format!("{} = {value}", quoted.join("."))) else {
                    continue;
                };
                refused += 1;
                let named = faults.iter().any(|fault| fault.key.starts_with(path.join(".").as_str()));
                let of_the_file = faults.iter().all(|fault| fault.place == "config.toml:1");
                assert!(named && of_the_file, "{} = {value} gives {faults:?}", path.join("."));
            }
            assert!(refused >= 6, "{} takes nearly everything", path.join("."));
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = with_environment(
            "[kafka]\nbrokers = \"file:9092\"",
            &[
                ("TRIAGED_KAFKA__BROKERS", "env:9092"),
                ("TRIAGED_KAFKA__INSTANCE", "007"),
                ("TRIAGED_STREAM__BATCH_RECORDS", "17"),
                ("TRIAGED_OUTPUT__ESCALATE", "true"),
                ("TRIAGED_CACHE__MASKS", "ip, number"),
                ("TRIAGED_RULES__FILES", r#"["builtin:keywords"]"#),
                ("TRIAGED_DECIDE__QUEUES", r#"{ "User Action" = "iam" }"#),
                ("TRIAGED_INPUT", r#"[{ topic = "one", kind = "log" }]"#),
                ("TRIAGED_SERVICE_HOST", "10.0.0.1"),
                ("TRIAGED_KAFKA_SERVICE_HOST", "10.0.0.2"),
                ("TRIAGED_CLICKHOUSE_PORT_8123_TCP_ADDR", "10.0.0.3"),
                ("TRIAGED_CLICKHOUSE_PORT", "tcp://10.0.0.3:8123"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!((&*config.kafka.brokers, &*config.kafka.instance), ("env:9092", "007"));
        assert_eq!((config.stream.batch_records, config.output.escalate), (17, true));
        assert_eq!(config.cache.masks, [Mask::Ip, Mask::Number]);
        assert_eq!(config.rules.files, ["builtin:keywords"]);
        assert_eq!(&*config.decide.queues["User Action"], "iam");
        assert_eq!(&*config.inputs[0].topic, "one");
    }

    #[test]
    fn a_mistyped_variable_is_known_for_every_table() {
        let defaults: toml::Table = toml::from_str(DEFAULT_TOML).unwrap();
        for table in defaults.keys() {
            assert!(environment::SECTIONS.contains(&&**table), "{table}");
        }
    }

    #[test]
    fn faults_name_the_variable() {
        let faults = with_environment(
            "",
            &[("TRIAGED_STREAM__WORKERS", "many"), ("TRIAGED_KAFKA_BROKERS", "a:1"), ("TRIAGED_KAFKA__BROKER", "a:1")],
        )
        .unwrap_err()
        .to_string();
        for expected in [
            "TRIAGED_STREAM__WORKERS: stream.workers = \"many\": expected a whole number",
            "TRIAGED_KAFKA_BROKERS: kafka: parts are separated by two underscores: TRIAGED_KAFKA__BROKERS",
            "TRIAGED_KAFKA__BROKER: kafka.broker: there is no such setting; did you mean `brokers`?",
        ] {
            assert!(faults.contains(expected), "{expected} is missing in {faults}");
        }
    }

    #[test]
    fn secrets_come_from_variables_and_files_only_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "from-file\n").unwrap();
        let path = folder.path().join("my.toml");
        let text = r#"
[kafka.properties]
"sasl.password" = { env = "KAFKA_PASSWORD" }
"ssl.key.password" = { file = "key" }
"linger.ms" = 5
"#;
        let environment = [
            ("KAFKA_PASSWORD".to_owned(), "hunter2".to_owned()),
            ("TRIAGED_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD".to_owned(), "0123".to_owned()),
        ];
        let config = Config::from_layers(Some((&path, text)), &environment.into()).unwrap();
        let property = |name: &str| config.kafka.properties[name].reveal();
        assert_eq!((property("sasl.password"), property("ssl.key.password")), ("hunter2", "from-file"));
        assert_eq!((property("ssl.keystore.password"), property("linger.ms")), ("0123", "5"));
        assert!(!format!("{config:?}").contains("hunter2"));

        let text = "[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n\"ssl.key.pem\" = { env = \"NO_SUCH\" }\n\
                    \"sasl.username\" = [\"hunter2\"]\n[kafka]\npassword = \"hunter2\"";
        let faults = faults(text);
        assert!(faults.contains("config.toml:2: kafka.properties.\"sasl.password\": is confidential"), "{faults}");
        assert!(faults.contains("the variable NO_SUCH is not set"), "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }

    #[test]
    fn properties_that_delivery_depends_on_are_refused() {
        for property in ["acks = 1", "\"enable.idempotence\" = false", "\"enable.auto.commit\" = true"] {
            let faults = faults(&format!("[kafka.properties]\n{property}"));
            assert!(faults.contains("delivery depends on this property"), "{faults}");
        }
        let faults = faults("[kafka.properties]\n\"group.id\" = \"mine\"\n\"statistics.interval.ms\" = 1000");
        assert!(faults.contains("set kafka.group_prefix") && faults.contains("at least 10000"), "{faults}");
    }

    #[test]
    fn uncommitted_input_and_exactly_once_exclude_each_other() {
        let text = "[kafka]\ndelivery = \"DELIVERY\"\n[kafka.properties]\n\"isolation.level\" = \"read_uncommitted\"";
        assert!(Config::from_toml(&text.replace("DELIVERY", "at_least_once")).is_ok());
        assert!(
            faults(&text.replace("DELIVERY", "exactly_once")).contains("needs kafka.properties.\"isolation.level\"")
        );
    }

    #[test]
    fn an_unprotected_password_is_warned_about() {
        let warnings = |protocol: &str| {
            let text = format!(
                "[kafka.properties]\n\"security.protocol\" = \"{protocol}\"\n\"sasl.password\" = {{ env = \"P\" }}"
            );
            with_environment(&text, &[("P", "x")]).unwrap().warnings()
        };
        assert!(warnings("SASL_PLAINTEXT")[0].contains("unencrypted"));
        assert!(warnings("SSL")[0].contains("not used"));
        assert!(warnings("SASL_SSL").is_empty());
    }

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        let text = "[rules]\nfiles = [\"rules/own.toml\", \"builtin:keywords\"]\n[model]\nlog = \"\"";
        let config = Config::from_layers(Some((Path::new("/etc/triaged/my.toml"), text)), &BTreeMap::new()).unwrap();
        assert_eq!(config.rules.files, ["/etc/triaged/rules/own.toml", "builtin:keywords"]);
        assert_eq!((config.model.ticket.as_deref(), config.model.log), (Some("builtin:tickets"), None));
    }
}
