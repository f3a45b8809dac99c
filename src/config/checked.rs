//! The merged tree becomes a `Config`: every setting read with its type, then the rules that concern several.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Kind, Priority};

use super::api::read_api;
use super::change::Source;
use super::escalate::read_escalate;
use super::feedback::{check_mail, check_retrain, read_drift, read_feedback, read_reports, read_retrain, read_smtp};
use super::incidents::{check_incidents, read_incidents};
use super::kafka::read_kafka;
use super::reader::{Ledger, Section, choose, read_table};
use super::settings::*;
use super::tree::{Node, Origin};
use super::units::parse_utc_offset;
use super::volumes::{read_clickhouse, read_forecast, read_tally, read_volumes};

const LEAST_WATCH: Duration = Duration::from_millis(100);
const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Half of the transaction time-out, so that the outputs of a full interval can still be acknowledged.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(30);
/// librdkafka takes its fetch queue's limit in KiB, at most 2 GiB.
const MOST_PREFETCH: usize = (2 << 30) - 1024;
/// A dead letter carries the whole record and must still fit into a message.
const MOST_RECORD: usize = 8 << 20;
const FORMATS: [(&str, Format); 5] = [
    ("auto", Format::Auto),
    ("json", Format::Json),
    ("text", Format::Text),
    ("syslog", Format::Syslog),
    ("cef", Format::Cef),
];
const MASKS: [(&str, Mask); 8] = [
    ("number", Mask::Number),
    ("hex", Mask::Hex),
    ("ip", Mask::Ip),
    ("uuid", Mask::Uuid),
    ("path", Mask::Path),
    ("email", Mask::Email),
    ("url", Mask::Url),
    ("quoted", Mask::Quoted),
];

/// Reads the whole tree. The result is only worth something when the ledger has no fault afterwards.
pub(super) fn read_config(root: Node, environment: &BTreeMap<String, String>, ledger: &mut Ledger) -> Config {
    let config = read_table(ledger, "", Some(root), |root| {
        let decode = root.table("decode", read_decode);
        Config {
            kafka: root.table("kafka", |section| read_kafka(section, environment)),
            stream: root.table("stream", read_stream),
            inputs: read_inputs(root, &decode),
            rules: root.table("rules", |section| RuleSettings { files: read_paths(section) }),
            model: root.table("model", read_model),
            cache: root.table("cache", read_cache),
            decide: root.table("decide", read_decide),
            output: root.table("output", read_output),
            volumes: root.table("volumes", read_volumes),
            clickhouse: root.table("clickhouse", |section| read_clickhouse(section, environment)),
            tally: root.table("tally", read_tally),
            forecast: root.table("forecast", read_forecast),
            escalate: root.table("escalate", |section| read_escalate(section, environment)),
            drift: root.table("drift", read_drift),
            feedback: root.table("feedback", read_feedback),
            incidents: root.table("incidents", |section| read_incidents(section, environment)),
            reports: root.table("reports", read_reports),
            smtp: root.table("smtp", |section| read_smtp(section, environment)),
            retrain: root.table("retrain", read_retrain),
            ops: root.table("ops", |section| OpsSettings { listen: section.parsed("listen", None, parse_listen) }),
            api: root.table("api", read_api),
            reload: root.table("reload", read_reload),
            log: root.table("log", read_log),
            source: Source::default(),
        }
    });
    check_topics(&config, ledger);
    check_transactions(&config, ledger);
    check_sizes(&config, ledger);
    check_escalation(&config, ledger);
    check_mail(&config, ledger);
    check_challenger(&config, ledger);
    check_retrain(&config, ledger);
    check_incidents(&config, ledger);
    config
}

fn read_stream(section: &mut Section<'_>) -> StreamSettings {
    let settings = StreamSettings {
        batch_records: section.count("batch_records", 1..=1_000_000),
        batch_bytes: section.size("batch_bytes", 1024..=(1 << 30)),
        batch_age: section.duration("batch_age", MILLISECOND..=MINUTE),
        max_in_flight_bytes: section.size("max_in_flight_bytes", 1024..=(64 << 30)),
        max_prefetch_bytes: section.size("max_prefetch_bytes", 1024..=MOST_PREFETCH),
        commit_interval: section.duration("commit_interval", MILLISECOND..=MINUTE),
        workers: match section.count("workers", 0..=1024) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        },
        drain_deadline: section.duration("drain_deadline", MILLISECOND..=60 * MINUTE),
        retry_backoff: section.duration("retry_backoff", MILLISECOND..=MINUTE),
        retry_backoff_max: section.duration("retry_backoff_max", MILLISECOND..=10 * MINUTE),
    };
    if settings.retry_backoff > settings.retry_backoff_max {
        section.ledger().conflict(
            ("stream.retry_backoff", "must not be longer than stream.retry_backoff_max".to_owned()),
            ("stream.retry_backoff_max", "must not be shorter than stream.retry_backoff".to_owned()),
        );
    }
    settings
}

/// What all inputs share until one of them says otherwise.
struct DecodeDefaults {
    max_record_bytes: usize,
    max_json_depth: usize,
    default_utc_offset: i32,
    ticket_fields: FieldNames,
    log_fields: FieldNames,
}

fn read_decode(section: &mut Section<'_>) -> DecodeDefaults {
    DecodeDefaults {
        max_record_bytes: section.size("max_record_bytes", 64..=MOST_RECORD),
        // serde_json itself stops at 128; the rest is room for its own frames.
        max_json_depth: section.count("max_json_depth", 1..=120),
        default_utc_offset: section.parsed("default_utc_offset", 0, parse_utc_offset),
        ticket_fields: section
            .table("ticket_fields", |fields| read_fields(fields, Kind::Ticket, &FieldNames::default())),
        log_fields: section.table("log_fields", |fields| read_fields(fields, Kind::Log, &FieldNames::default())),
    }
}

/// Reads the field names that apply to a kind; those that are not given stay as they are in `base`.
fn read_fields(section: &mut Section<'_>, kind: Kind, base: &FieldNames) -> FieldNames {
    let mut fields = base.clone();
    let mut meanings: Vec<(&'static str, &mut Vec<String>)> =
        vec![("text", &mut fields.text), ("timestamp", &mut fields.timestamp), ("source", &mut fields.source)];
    match kind {
        Kind::Ticket => meanings.extend([
            ("ticket_id", &mut fields.ticket_id),
            ("title", &mut fields.title),
            ("email_address", &mut fields.email_address),
            ("priority", &mut fields.priority),
        ]),
        Kind::Log => meanings.push(("level", &mut fields.level)),
    }
    for (meaning, names) in meanings {
        let Some(node) = section.take(meaning) else {
            continue;
        };
        match node.into_list().and_then(|items| items.iter().map(field_name).collect()) {
            Ok(given) => *names = given,
            Err(rule) => section.fault(meaning, rule),
        }
    }
    fields
}

fn field_name(node: &Node) -> Result<String, String> {
    match node.as_text() {
        Ok(text) if !text.is_empty() && text.split('.').all(|part| !part.is_empty()) => Ok(text.to_owned()),
        _ => Err("expected a list of field names in quotes, a dot between the parts of a nested one".to_owned()),
    }
}

fn read_inputs(root: &mut Section<'_>, decode: &DecodeDefaults) -> Vec<InputSettings> {
    let items = root.read("input", Vec::new(), Node::into_list);
    let mut inputs: Vec<InputSettings> = Vec::with_capacity(items.len());
    let mut read_any = false;
    for (index, item) in items.into_iter().enumerate() {
        read_any = true;
        let path = format!("input[{index}]");
        let input = read_table(root.ledger(), &path, Some(item), |section| read_input(section, decode));
        if inputs.iter().any(|other| other.topic == input.topic) && root.ledger().sound(&[&format!("{path}.topic")]) {
            root.ledger().fault(&format!("{path}.topic"), "each topic may be read once only");
        }
        inputs.push(input);
    }
    if !read_any && root.ledger().sound(&["input"]) {
        root.fault("input", "at least one topic must be read");
    }
    inputs
}

fn read_input(section: &mut Section<'_>, decode: &DecodeDefaults) -> InputSettings {
    let topic = Arc::from(section.parsed("topic", String::new(), parse_topic));
    let kind = section.choice("kind", &[("ticket", Kind::Ticket), ("log", Kind::Log)]);
    let format = match section.take("format") {
        None => Format::Auto,
        Some(node) => node.as_text().and_then(|text| choose(text, &FORMATS)).unwrap_or_else(|rule| {
            section.fault("format", rule);
            Format::Auto
        }),
    };
    let base = match kind {
        Kind::Ticket => &decode.ticket_fields,
        Kind::Log => &decode.log_fields,
    };
    let fields = section.table("fields", |fields| read_fields(fields, kind, base));
    let decode = DecodeSettings {
        kind,
        format,
        fields,
        max_record_bytes: decode.max_record_bytes,
        max_json_depth: decode.max_json_depth,
        default_utc_offset: decode.default_utc_offset,
    };
    InputSettings { topic, decode }
}

/// Rule files: `builtin:NAME` as it is, paths relative to the file that names them.
fn read_paths(section: &mut Section<'_>) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for (origin, text) in section.list("files") {
        if text.trim().is_empty() {
            section.fault("files", "must not hold an empty name");
            continue;
        }
        let file = resolve(&origin, &text);
        if files.contains(&file) {
            section.fault("files", format!("names {text:?} twice"));
        }
        files.push(file);
    }
    files
}

fn resolve(origin: &Origin, text: &str) -> String {
    if text.starts_with("builtin:") || text.starts_with("registry:") {
        text.to_owned()
    } else {
        origin.resolve(text).to_string_lossy().into_owned()
    }
}

fn read_model(section: &mut Section<'_>) -> ModelSettings {
    let package = |node: Node| match node.as_text()?.trim() {
        "" => Ok(None),
        text => Ok(Some(resolve(&node.origin, text))),
    };
    ModelSettings {
        device: section.choice("device", &[("flex", DeviceKind::Flex), ("ndarray", DeviceKind::NdArray)]),
        ticket: section.read("ticket", None, package),
        log: section.read("log", None, package),
        registry: section.read("registry", None, |node| match node.as_text()?.trim() {
            "" => Ok(None),
            text => Ok(Some(node.origin.resolve(text))),
        }),
        challenger: section.table("challenger", |section| ChallengerSettings {
            ticket: section.read("ticket", None, package),
            log: section.read("log", None, package),
            mode: section.choice("mode", &[("shadow", ChallengerMode::Shadow), ("split", ChallengerMode::Split)]),
            share: section.share("share"),
        }),
    }
}

/// Zero is never; less than the least would keep the disk busy.
fn read_reload(section: &mut Section<'_>) -> ReloadSettings {
    let watch = section.duration("watch", Duration::ZERO..=60 * MINUTE);
    if !watch.is_zero() && watch < LEAST_WATCH {
        section.fault("watch", "must be \"0s\", which switches it off, or at least \"100ms\"");
    }
    ReloadSettings { watch: (!watch.is_zero()).then_some(watch) }
}

/// A challenger beside nothing has nobody to be compared with.
fn check_challenger(config: &Config, ledger: &mut Ledger) {
    let (model, challenger) = (&config.model, &config.model.challenger);
    for (kind, champion, challenger) in
        [("ticket", &model.ticket, &challenger.ticket), ("log", &model.log, &challenger.log)]
    {
        let key = format!("model.challenger.{kind}");
        if challenger.is_some() && champion.is_none() && ledger.sound(&[&key]) {
            ledger.fault(&key, format!("needs model.{kind}, the champion that it is compared with"));
        }
    }
}

fn read_cache(section: &mut Section<'_>) -> CacheSettings {
    let capacity = section.count("capacity", 0..=100_000_000);
    let recheck_share = section.share("recheck_share");
    let mut masks = Vec::new();
    for (_, name) in section.list("masks") {
        match choose(&name, &MASKS) {
            Ok(mask) if masks.contains(&mask) => section.fault("masks", format!("names {name:?} twice")),
            Ok(mask) => masks.push(mask),
            Err(rule) => section.fault("masks", format!("{name:?}: {rule}")),
        }
    }
    CacheSettings { capacity, recheck_share, masks }
}

fn read_decide(section: &mut Section<'_>) -> DecideSettings {
    let auto_route = section.share("auto_route") as f32;
    let human_verify = section.share("human_verify") as f32;
    if human_verify > auto_route {
        section.ledger().conflict(
            ("decide.human_verify", format!("must not be above decide.auto_route, which is {auto_route}")),
            ("decide.auto_route", format!("must not be below decide.human_verify, which is {human_verify}")),
        );
    }
    DecideSettings {
        auto_route,
        human_verify,
        fallback_queue: Arc::from(section.nonempty_text("fallback_queue")),
        default_priority: section.parsed("default_priority", Priority::Low, str::parse),
        priorities: section.map("priorities", str::parse),
        queues: section.map("queues", |queue| match queue.trim() {
            "" => Err("must not be empty".to_owned()),
            queue => Ok(Arc::from(queue)),
        }),
    }
}

fn read_output(section: &mut Section<'_>) -> OutputSettings {
    OutputSettings {
        events: section.parsed("events", String::new(), parse_topic),
        escalations: section.parsed("escalations", String::new(), parse_topic),
        dead_letters: section.parsed("dead_letters", String::new(), parse_topic),
        escalate: section.flag("escalate"),
        include_text: section.choice(
            "include_text",
            &[("never", IncludeText::Never), ("unsure", IncludeText::Unsure), ("always", IncludeText::Always)],
        ),
        alternatives: section.count("alternatives", 0..=100),
        explain: section.count("explain", 0..=100),
        indicators: section.flag("indicators"),
        topics: section.map("topics", parse_topic),
        forecasts: section.parsed("forecasts", String::new(), parse_topic),
        anomalies: section.parsed("anomalies", String::new(), parse_topic),
    }
}

fn read_log(section: &mut Section<'_>) -> LogSettings {
    LogSettings {
        filter: section.parsed("filter", String::new(), |text| {
            tracing_subscriber::EnvFilter::builder()
                .parse(text)
                .map(|_| text.to_owned())
                .map_err(|error| format!("expected a tracing filter such as \"triaged=debug,warn\": {error}"))
        }),
        format: section.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    }
}

pub(super) fn parse_listen(text: &str) -> Result<Option<std::net::SocketAddr>, String> {
    match text.trim() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| "expected an IP address and a port such as \"127.0.0.1:9464\" or \"[::]:9464\"".to_owned()),
    }
}

/// Kafka's own rule for topic names (`org.apache.kafka.common.internals.Topic`).
pub(super) fn parse_topic(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text {
        "" | "." | ".." => Err("is not a topic name".to_owned()),
        text if text.len() <= 249 && text.chars().all(valid) => Ok(text.to_owned()),
        _ => Err("a topic name has letters, digits, `.`, `_` and `-`, at most 249".to_owned()),
    }
}

/// A topic that is both read and written would feed the daemon its own output for ever; outputs that share a topic
/// could not be told apart.
fn check_topics(config: &Config, ledger: &mut Ledger) {
    let output = &config.output;
    let mut outputs = vec![
        ("output.events".to_owned(), &output.events),
        ("output.escalations".to_owned(), &output.escalations),
        ("output.dead_letters".to_owned(), &output.dead_letters),
        ("output.forecasts".to_owned(), &output.forecasts),
        ("output.anomalies".to_owned(), &output.anomalies),
        ("feedback.topic".to_owned(), &config.feedback.topic),
        ("drift.topic".to_owned(), &config.drift.topic),
        ("incidents.topic".to_owned(), &config.incidents.topic),
        ("incidents.updates".to_owned(), &config.incidents.updates),
    ];
    for (position, (key, topic)) in outputs.iter().enumerate() {
        if let Some((other, _)) = outputs[..position].iter().find(|(_, other)| other == topic) {
            let same_as = |other: &str| format!("is the same topic as {other}");
            ledger.conflict((key, same_as(other)), (other, same_as(key)));
        }
    }
    for (queue, topic) in &output.topics {
        let key = format!("output.topics.{queue}");
        let others = [&output.escalations, &output.dead_letters, &output.forecasts, &output.anomalies];
        let roles = [&config.feedback.topic, &config.drift.topic, &config.incidents.topic, &config.incidents.updates];
        if others.contains(&topic) || roles.contains(&topic) {
            let rule = "must differ from feedback.topic, drift.topic, those of [incidents] and the other topics of [output], \
                        except output.events";
            ledger.fault(&key, rule);
        }
        outputs.push((key, topic));
    }
    for (output, topic) in &outputs {
        if let Some(index) = config.inputs.iter().position(|input| *input.topic == ***topic) {
            let input = format!("input[{index}].topic");
            let same_as = |other: &str| format!("is the same topic as {other}: events would be classified for ever");
            ledger.conflict((output, same_as(&input)), (&input, same_as(output)));
        }
    }
}

/// A transaction that is open for longer than the broker allows is aborted, again and again.
fn check_transactions(config: &Config, ledger: &mut Ledger) {
    let key = "stream.commit_interval";
    let exactly_once = config.kafka.delivery == Delivery::ExactlyOnce;
    if exactly_once && config.stream.commit_interval > LONGEST_TRANSACTION && ledger.sound(&[key]) {
        ledger.fault(key, format!("must not be longer than {}s with exactly_once", LONGEST_TRANSACTION.as_secs()));
    }
}

fn check_escalation(config: &Config, ledger: &mut Ledger) {
    let escalate = &config.escalate;
    for fault in escalate.llm.faults(config.decide.human_verify, config.decide.auto_route) {
        let key = format!("escalate.llm.{}", fault.key);
        let needed = format!("needs {key}: {}", fault.rule);
        ledger.conflict((&key, fault.rule.to_owned()), ("escalate.llm.enabled", needed));
    }
    for (key, folder) in [("escalate.ticket", &escalate.ticket), ("escalate.log", &escalate.log)] {
        if folder.is_some() && escalate.encoder.is_none() {
            ledger.fault(key, "needs escalate.encoder: the head was trained over one");
        }
    }
}

fn check_sizes(config: &Config, ledger: &mut Ledger) {
    let limit = "stream.max_in_flight_bytes";
    let sizes = [
        ("stream.batch_bytes", config.stream.batch_bytes),
        ("decode.max_record_bytes", config.inputs.first().map_or(0, |input| input.decode.max_record_bytes)),
    ];
    for (key, bytes) in sizes {
        if bytes > config.stream.max_in_flight_bytes {
            let too_large = format!("must not be larger than {limit}: it could never be taken");
            ledger.conflict((key, too_large), (limit, format!("must not be smaller than {key}")));
        }
    }
}
