//! `[volumes]`, `[clickhouse]`, `[tally]` and `[forecast]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kafka::referenced_secret;
use super::reader::{Section, read_table};
use super::secret::Secret;
use super::settings::{ClickHouseSettings, ForecastSettings, StoreKind, TallySettings, VolumeSettings, WindowSettings};
use super::tree::{Node, Value};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const CENTURY: Duration = Duration::from_secs(36_525 * 24 * 3600);
/// A year of days, which is the longest that was ever asked for, or a month of hours.
const MOST_STEPS: u64 = 750;
/// Two of them are fetched ahead, and librdkafka fetches at most 2 GiB.
const MOST_BATCH: usize = 512 << 20;
/// Every series of a window is held in memory and fitted again each time.
const MOST_HISTORY: u64 = 20_000;

pub(super) fn read_volumes(section: &mut Section<'_>) -> VolumeSettings {
    VolumeSettings {
        store: section.choice("store", &[("clickhouse", StoreKind::ClickHouse), ("memory", StoreKind::Memory)]),
        memory_sets: section.count("memory_sets", 1000..=100_000_000),
    }
}

pub(super) fn read_clickhouse(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> ClickHouseSettings {
    ClickHouseSettings {
        url: section.parsed("url", String::new(), parse_url),
        database: section.parsed("database", String::new(), parse_identifier),
        user: section.nonempty_text("user"),
        password: read_secret(section, "password", environment),
        cluster: section.parsed("cluster", None, |text| match text {
            "" => Ok(None),
            text => parse_identifier(text).map(Some),
        }),
        migrate: section.flag("migrate"),
        events_retention: section.duration("events_retention", Duration::ZERO..=CENTURY),
        volumes_retention: section.duration("volumes_retention", Duration::ZERO..=CENTURY),
        insert_timeout: section.duration("insert_timeout", 100 * MILLISECOND..=10 * MINUTE),
        query_timeout: section.duration("query_timeout", 100 * MILLISECOND..=10 * MINUTE),
        retry_deadline: section.duration("retry_deadline", Duration::ZERO..=10 * MINUTE),
    }
}

pub(super) fn read_tally(section: &mut Section<'_>) -> TallySettings {
    TallySettings {
        batch_records: section.count("batch_records", 1..=1_000_000),
        batch_bytes: section.size("batch_bytes", 1024..=MOST_BATCH),
        batch_age: section.duration("batch_age", MILLISECOND..=MINUTE),
        workers: section.count("workers", 1..=64),
    }
}

pub(super) fn read_forecast(section: &mut Section<'_>) -> ForecastSettings {
    let settle = section.duration("settle", Duration::ZERO..=DAY);
    let anomaly_cooldown = section.count("anomaly_cooldown", 0..=10_000);
    let items = section.read("window", Vec::new(), Node::into_list);
    let mut windows: Vec<WindowSettings> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = section.key(&format!("window[{index}]"));
        let window = read_table(section.ledger(), &path, Some(item), read_window);
        let key = format!("{path}.name");
        if windows.iter().any(|other| other.name == window.name) && section.ledger().sound(&[&key]) {
            section.ledger().fault(&key, "each name may be used once only");
        }
        windows.push(window);
    }
    ForecastSettings { settle, anomaly_cooldown, windows }
}

fn read_window(section: &mut Section<'_>) -> WindowSettings {
    let name = section.parsed("name", String::new(), parse_identifier);
    let bucket = section.duration("bucket", MINUTE..=7 * DAY);
    let long = SECOND..=CENTURY;
    let lookback = section.duration("lookback", long.clone());
    let horizon = section.duration("horizon", long.clone());
    let every = section.duration("every", long);
    let seasons = section.list("seasons");
    let mut lengths = Vec::new();
    for (_, text) in seasons {
        match super::parse_duration(&text) {
            Ok(season) if !is_multiple(season, bucket) || season <= bucket => {
                section.fault("seasons", format!("{text:?} is not a multiple of the bucket"));
            }
            Ok(season) => lengths.push(season),
            Err(rule) => section.fault("seasons", format!("{text:?}: {rule}")),
        }
    }
    if !bucket.as_secs().is_multiple_of(60) {
        section.fault("bucket", "must be whole minutes: volumes are counted by minute");
    }
    let steps = |duration: Duration| duration.as_secs() / bucket.as_secs().max(1);
    for (key, duration, most) in
        [("lookback", lookback, MOST_HISTORY), ("horizon", horizon, MOST_STEPS), ("every", every, u64::MAX)]
    {
        let path = section.key(key);
        let bucket_path = section.key("bucket");
        if !section.ledger().sound(&[&path, &bucket_path]) {
            continue;
        }
        if !is_multiple(duration, bucket) {
            section.fault(key, "must be a multiple of the bucket");
        } else if steps(duration) > most {
            section.fault(key, format!("must not be more than {most} buckets"));
        }
    }
    WindowSettings { name, bucket, lookback, horizon, seasons: lengths, every }
}

fn is_multiple(duration: Duration, bucket: Duration) -> bool {
    !duration.is_zero() && !bucket.is_zero() && duration.as_nanos().is_multiple_of(bucket.as_nanos())
}

/// A confidential value, which lies in the environment or a file. It is never shown, not even in a fault.
pub(super) fn read_secret(
    section: &mut Section<'_>,
    key: &'static str,
    environment: &BTreeMap<String, String>,
) -> Option<Secret> {
    let node = section.take(key)?;
    let origin = node.origin.clone();
    secret(node, environment).unwrap_or_else(|rule| {
        let key = section.key(key);
        section.ledger().hidden_fault(&origin, &key, rule);
        None
    })
}

fn secret(node: Node, environment: &BTreeMap<String, String>) -> Result<Option<Secret>, String> {
    let from_environment = matches!(node.origin, super::tree::Origin::Environment(_));
    let origin = node.origin;
    match node.value {
        Value::Text(text) if text.is_empty() => Ok(None),
        Value::Text(text) if from_environment => Ok(Some(Secret::new(text))),
        Value::Integer(number) if from_environment => Ok(Some(Secret::new(number.to_string()))),
        Value::Table(reference) => referenced_secret(reference, &origin, environment).map(Secret::new).map(Some),
        _ => Err("is confidential and must not be written here: use { env = \"NAME\" } or \
                  { file = \"/run/secrets/...\" }"
            .to_owned()),
    }
}

fn parse_url(text: &str) -> Result<String, String> {
    let rule = || "expected http://host:port or https://host:port".to_owned();
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(rule)?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err("must not hold a user or password: set clickhouse.user and clickhouse.password".to_owned());
    }
    let valid = !host.is_empty() && rest.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if valid { Ok(text.trim_end_matches('/').to_owned()) } else { Err(rule()) }
}

/// Names that stand in SQL or in keys without quotes.
pub(super) fn parse_identifier(text: &str) -> Result<String, String> {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match text {
        text if starts_well && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            Ok(text.to_owned())
        }
        _ => Err("must begin with a letter and have letters, digits and `_`, at most 64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn faults(text: &str) -> String {
        Config::from_toml(text).expect_err("this configuration is wrong").to_string()
    }

    #[test]
    fn windows_are_checked_against_their_buckets() {
        let config = Config::from_toml("").unwrap();
        let hours = &config.forecast.windows[1];
        assert_eq!((hours.steps(), hours.history(), hours.season_lengths()), (48, 1344, vec![24, 168]));
        let window = |rest: &str| {
            faults(&format!(
                "[[forecast.window]]\nname = \"w\"\nbucket = \"1h\"\nlookback = \"7d\"\nhorizon = \"1d\"\nevery = \"1h\"\n{rest}"
            ))
        };
        assert!(window("seasons = [\"90m\"]").contains("forecast.window[0].seasons"), "not a multiple");
        assert!(window("").contains("forecast.window[0].seasons: is missing"));
        let twice = "[[forecast.window]]\nname = \"w\"\nbucket = \"1h\"\nlookback = \"7d\"\nhorizon = \"90m\"\nevery = \"1h\"\n\
                     seasons = []\n"
            .repeat(2);
        let twice = faults(&twice);
        assert!(twice.contains("forecast.window[0].horizon = \"90m\": must be a multiple of the bucket"), "{twice}");
        assert!(twice.contains("forecast.window[1].name = \"w\": each name may be used once only"), "{twice}");
    }

    #[test]
    fn a_password_lies_elsewhere() {
        assert!(faults("[clickhouse]\npassword = \"hunter2\"").contains("clickhouse.password"));
        assert!(!faults("[clickhouse]\npassword = \"hunter2\"").contains("hunter2"));
        assert!(faults("[clickhouse]\nurl = \"http://a:b@c\"").contains("must not hold a user"));
        assert!(faults("[clickhouse]\nurl = \"tcp://c:9000\"").contains("expected http://host:port"));
        assert!(faults("[clickhouse]\ndatabase = \"a; DROP\"").contains("must begin with a letter"));
    }
}
