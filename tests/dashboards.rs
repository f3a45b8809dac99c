//! Each panel, variable and annotation of the dashboards asks the real thing: SQL runs in ClickHouse's engine and PromQL
//! in Prometheus, both filled by the daemon, and each must find something. Macros and variables are expanded as Grafana
//! and its ClickHouse data source do it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regex::{Captures, Regex};
use serde_json::{Value, json};

use crate::deployment::{path, yaml};
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::openai::{OpenAi, Reply};
use crate::peers::program::Prometheus;
use crate::peers::receiver::WebhookReceiver;
use crate::peers::{free_port, wait_until};
use crate::setup::{GROUP, Setup};

const PATIENCE: Duration = Duration::from_secs(120);
const BOARDS: [&str; 4] = ["operations", "queues", "quality", "incidents"];
const RULES: [&str; 2] = ["config/prometheus/rules.yml", "config/prometheus/alerts.yml"];
/// Ten days, so that the daily rhythm is seen often enough to be forecast.
const HISTORY: &str = "10d";
const RECORDS: usize = 20_000;
/// A line that ClickHouse is made to refuse.
const REFUSED: &str = "the line that no table takes";
/// Families that only a fault of the broker brings about; `metrics.rs` has the only way to their names.
const ONLY_AFTER_A_FAULT: [&str; 1] = ["triaged_publish_failures_total"];

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() as i64
}

fn board(name: &str) -> Value {
    let text = fs::read_to_string(path("config/grafana/dashboards").join(format!("{name}.json"))).expect("a dashboard");
    serde_json::from_str(&text).expect("a dashboard is JSON")
}

fn items<'v>(value: &'v Value, key: &str) -> std::slice::Iter<'v, Value> {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is text in {value}"))
}

/// Panels that ask something, with their title.
fn panels(board: &Value) -> Vec<(&str, &Value)> {
    items(board, "panels").filter(|panel| panel["type"] != "row").map(|panel| (text(panel, "title"), panel)).collect()
}

/// Every PromQL expression of the dashboards, with where it stands.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in BOARDS {
        for (title, panel) in panels(&board(name)) {
            for target in items(panel, "targets").filter(|target| target.get("expr").is_some()) {
                found.push((format!("{name}: {title}"), text(target, "expr").to_owned()));
            }
        }
    }
    found
}

/// The metrics that an expression names, histograms by the name of their family.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(?:triaged|process)_[a-z0-9_]+").expect("a pattern");
    let whole = |found: &str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| found.strip_suffix(*suffix));
        family.unwrap_or(found).to_owned()
    };
    // What stands in quotes is a value.
    let quoted = Regex::new(r#""[^"]*""#).expect("a pattern");
    name.find_iter(&quoted.replace_all(expression, "\"\"")).map(|found| whole(found.as_str())).collect()
}

#[test]
fn dashboards_are_whole() {
    let mut uids = BTreeSet::new();
    let named = Regex::new(r"\$\{?([a-z]+)").expect("a pattern");
    for name in BOARDS {
        let board = board(name);
        assert!(uids.insert(text(&board, "uid").to_owned()), "{name} has a uid of its own");
        let mut ids = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for panel in items(&board, "panels") {
            let title = text(panel, "title");
            assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{name}: {title} has an id of its own");
            let place = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
            assert!(place("x") + place("w") <= 24, "{name}: {title} is on the grid");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(cells.insert((x, y)), "{name}: {title} lies on another panel");
                }
            }
        }
        let variables: Vec<&str> = items(&board["templating"], "list").map(|variable| text(variable, "name")).collect();
        let whole = board.to_string();
        for found in named.captures_iter(&whole) {
            assert!(variables.contains(&&found[1]), "{name}: there is no variable {}", &found[1]);
        }
        for (title, panel) in panels(&board) {
            assert!(items(panel, "targets").next().is_some(), "{name}: {title} asks something");
            for target in items(panel, "targets") {
                let source = text(&target["datasource"], "type");
                let asks = if source == "prometheus" { "expr" } else { "rawSql" };
                assert!(target.get(asks).is_some(), "{name}: {title} asks {source} by {asks}");
            }
        }
    }
}

/// A system at work: the daemon's roles with an LLM and the API, real volumes and forecasts, and a Prometheus that watches.
struct World {
    clickhouse: ClickHouse,
    prometheus: Prometheus,
    /// Their metrics at the end, by process.
    exported: Vec<String>,
    _broker: Broker,
    _daemons: Vec<Daemon>,
    _llm: OpenAi,
}

fn world() -> World {
    let (broker, clickhouse) = (Broker::start(), ClickHouse::start());
    let own = ["queue-events", "escalations", "dead-letters", "forecasts", "anomalies", "drift"];
    let people = ["feedback", "incidents", "incident-updates"];
    for topic in ["tickets", "logs"].into_iter().chain(own).chain(people) {
        broker.create_topic(topic, 1);
    }
    let llm = OpenAi::start(Reply::Answer("Trash", 0.9));
    let api = format!("127.0.0.1:{}", free_port());
    clickhouse
        .faults(json!([{"match": "INSERT INTO queue_events", "kind": "reject_rows_containing", "text": REFUSED}]));
    let window = "[{name = 'hours', bucket = '1h', lookback = '8d', horizon = '12h', seasons = ['1d'], every = '1h'}]";
    let setup = Setup::new(&broker.bootstrap(), "at_least_once")
        .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
        .with("escalate.llm.enabled", "true")
        .with("escalate.llm.base_url", &format!("'{}'", llm.url()))
        .with("escalate.llm.model", "'test-model'")
        .with("escalate.llm.requests_per_minute", "0")
        .with("escalate.llm.tokens_per_minute", "0")
        .with("escalate.llm.concurrency", "32")
        .with("escalate.llm.price_per_1k_input", "0.1")
        // So few that some requests are too many, and so little that what is generated is a shift.
        .with("api.address_rate", "5")
        .with("api.address_burst", "5")
        .with("drift.window", "500")
        .with("drift.label_shift", "0.01")
        .with("cache.recheck_share", "0.2")
        .with("tally.batch_age", "'200ms'")
        .with("forecast.settle", "'0s'")
        .with("forecast.window", window);
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let webhook = WebhookReceiver::start(&[]);
    let secret = folder.path().join("secret");
    fs::write(&secret, "0123456789abcdef").expect("it can be written");
    let channel =
        format!("{{ name = 'soc', kind = 'webhook', url = '{}', secret = {{ file = {secret:?} }} }}", webhook.url("/"));
    let setup = setup
        .with("incidents.channel", &format!("[{channel}]"))
        .with("incidents.notify", "['soc']")
        // Nobody acts so fast: what is opened is late.
        .with("incidents.sla.high", "{ acknowledge = '1s', resolve = '2s' }")
        .with("incidents.sla.critical", "{ acknowledge = '1s', resolve = '2s' }");
    let config = folder.path().join("triaged.toml");
    setup.write(&config);
    let config = config.to_str().expect("a plain path");
    let run = |arguments: &[&str]| {
        let output = triaged(&[arguments, &["--config", config]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["migrate"]);
    past_forecasts(&clickhouse);
    run(&["generate", "--kafka", "--count", &RECORDS.to_string(), "--history", HISTORY, "--broken", "0.01"]);
    broker.produce("logs", [("", REFUSED)]);

    let work =
        Daemon::start_roles("classify,escalate,tally", &setup.clone().with("api.listen", &format!("'{api}'")).toml());
    let inputs = ["tickets", "logs"].map(|topic| broker.watch_group(topic, GROUP));
    let classified = || inputs.iter().map(|watch| watch.committed()).sum::<i64>();
    wait_until("all is classified", PATIENCE, || classified() > RECORDS as i64);
    let escalations = broker.watch_group("escalations", "triaged-escalate");
    wait_until("all is decided", PATIENCE, || escalations.committed() >= escalations.high_watermark());
    let events = broker.watch_group("queue-events", "triaged-tally");
    wait_until("all is counted", PATIENCE, || events.committed() >= events.high_watermark());
    judge(&broker, &clickhouse);
    let forecasts = Daemon::start_roles("forecast,incidents", &setup.clone().instance("two").toml());
    wait_until("forecasts are made", PATIENCE, || forecasts.metric("triaged_forecasts_total", &[]) > 0.0);
    wait_until("incidents are late", PATIENCE, || forecasts.metric("triaged_incident_breaches_total", &[]) > 1.0);
    let told = || forecasts.metric("triaged_incident_notifications_total", &["outcome=\"sent\""]);
    wait_until("somebody is told", PATIENCE, || told() > 0.0);
    let some = clickhouse.query("SELECT incident_id FROM incidents FINAL WHERE status = 'open' LIMIT 1");
    for action in ["acknowledge", "resolve"] {
        broker.produce("incident-updates", [("", json!({"action": action, "incident_id": some}).to_string())]);
    }
    let resolved = || clickhouse.query("SELECT count() FROM incidents FINAL WHERE status = 'resolved'");
    wait_until("one is resolved", PATIENCE, || resolved() == "1");

    let rules = RULES.map(path);
    let prometheus = Prometheus::start(&[work.address(), forecasts.address()], &rules);
    // Rates need several scrapes with work between them, and the lag is known every ten seconds.
    let last_to_come = [
        "triaged:consumer_lag_records:sum",
        "triaged:dead_letters:ratio5m",
        "triaged:routing:ratio30m",
        "triaged:cache_disagreement:ratio1h",
        "triaged:record_latency_seconds:p99_5m > 0",
        "rate(triaged_http_requests_total{status=\"429\"}[30s]) > 0",
        "rate(triaged_llm_answers_total{result=\"answer\"}[30s]) > 0",
    ];
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let ask = |path: &str| agent.get(format!("http://{api}{path}")).call().expect("the API answers");
    let mut seed = 1;
    wait_until("Prometheus has seen work", PATIENCE, || {
        // Texts that the LLM has not answered yet.
        seed += 1;
        let seed = seed.to_string();
        run(&[
            "generate",
            "--kafka",
            "--rate",
            "200",
            "--duration",
            "1s",
            "--broken",
            "0.05",
            "--unknown",
            "0.2",
            "--seed",
            &seed,
        ]);
        (0..20).for_each(|_| drop(ask("/v1/stats")));
        last_to_come.iter().all(|series| !prometheus.query(series).is_empty())
    });
    let exported = [&work, &forecasts].map(|daemon| daemon.get("/metrics").expect("it answers").1);
    let _daemons = vec![work, forecasts];
    World { clickhouse, prometheus, exported: exported.to_vec(), _broker: broker, _daemons, _llm: llm }
}

/// Somebody has looked at some events: most were right.
fn judge(broker: &Broker, clickhouse: &ClickHouse) {
    let events = clickhouse.query("SELECT event_id, queue FROM queue_events FINAL ORDER BY occurred_at DESC LIMIT 60");
    let said = events.lines().enumerate().map(|(number, event)| {
        let (event_id, queue) = event.split_once('\t').expect("two columns");
        let mut said = json!({"event_id": event_id, "predicted_queue": queue, "correct": number % 5 != 0});
        if number % 5 == 0 {
            said["corrected_queue"] = json!("another queue");
        }
        ("", said.to_string())
    });
    broker.produce("feedback", said.collect::<Vec<_>>());
    let given = || clickhouse.query("SELECT count() FROM feedback FINAL");
    wait_until("the judgements are stored", PATIENCE, || given() == "60");
}

/// Forecasts of the two hours that have just passed, in which next to nothing was to come: their accuracy will be known, and
/// what came is an anomaly.
fn past_forecasts(clickhouse: &ClickHouse) {
    let start = now() / 3600 * 3600 - 2 * 3600;
    clickhouse.query(&format!(
        "INSERT INTO forecasts SELECT 'hours', '*', toDateTime({start}), now64(3),
             toDateTime({start} + 3600 * arrayJoin([0, 1])), 1, 0, 1, 0, 1, 0, 1"
    ));
    clickhouse.query(&format!(
        "INSERT INTO forecast_totals SELECT 'hours', '*', toDateTime({start}), now64(3), 2, 3600, 2, 0, 2, 0, 2, 0.5,
             'steady', 'test', 2, 1, 1"
    ));
}

/// What Grafana and the data source make of a statement before ClickHouse sees it.
struct Expansion {
    /// Values by variable; one alone for a variable that has one.
    variables: BTreeMap<String, Vec<String>>,
}

impl Expansion {
    /// `from` and `to` in seconds since 1970.
    fn expand(&self, sql: &str, (from, to): (i64, i64)) -> String {
        let time = |seconds: i64| format!("toDateTime({seconds})");
        let date = |seconds: i64| format!("toDate('{}')", &triaged::record::rfc3339(seconds * 1000)[..10]);
        let between = |column: &str, from: String, to: String| format!("{column} >= {from} AND {column} <= {to}");
        let replaced = |sql: &str, pattern: &str, with: &dyn Fn(&str) -> String| {
            let pattern = Regex::new(pattern).expect("a pattern");
            let with = |found: &Captures<'_>| with(found.get(1).map_or("", |group| group.as_str()));
            pattern.replace_all(sql, with).into_owned()
        };
        let quoted = |name: &str| {
            let values = self.values(name).iter().map(|value| format!("'{}'", value.replace('\'', "\\'")));
            values.collect::<Vec<_>>().join(",")
        };
        let sql = replaced(sql, r"\$\{([a-z]+):singlequote\}", &quoted);
        let sql = replaced(&sql, r"\$\{([a-z]+)\}", &|name: &str| self.values(name).join(","));
        let sql = replaced(&sql, r"\$__timeFilter\(([^()]*)\)", &|column: &str| between(column, time(from), time(to)));
        let sql = replaced(&sql, r"\$__dateFilter\(([^()]*)\)", &|column: &str| between(column, date(from), date(to)));
        let interval = |column: &str| format!("toStartOfInterval(toDateTime({column}), INTERVAL 600 second)");
        let sql = replaced(&sql, r"\$__timeInterval\(([^()]*)\)", &interval);
        let sql = replaced(&sql, r"\$__fromTime()", &|_: &str| time(from));
        let sql = replaced(&sql, r"\$__toTime()", &|_: &str| time(to));
        assert!(!sql.contains('$'), "not everything is expanded: {sql}");
        sql
    }

    fn values(&self, name: &str) -> &[String] {
        self.variables.get(name).unwrap_or_else(|| panic!("there is no variable {name}"))
    }
}

/// A relative time such as `now-2d` or `6h`, in seconds.
fn seconds(text: &str) -> i64 {
    let text = text.strip_prefix("now").unwrap_or(text);
    if text.is_empty() {
        return 0;
    }
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        unit => panic!("no unit of time: {unit}"),
    };
    number.parse::<i64>().expect("a number") * unit
}

/// Runs a statement; its answer must hold something.
#[track_caller]
fn finds(clickhouse: &ClickHouse, place: &str, sql: &str) -> String {
    let answer = clickhouse.query(sql);
    assert!(!["", "nan", "\\N"].contains(&answer.as_str()), "{place} finds nothing ({answer}): {sql}");
    answer
}

#[test]
fn every_panel_finds_something() {
    let world = world();
    for name in BOARDS {
        let board = board(name);
        let time = &board["time"];
        // Whole days at least: what was generated lies in the past.
        let range = (now() + seconds(text(time, "from")).min(-2 * 86_400), now() + seconds(text(time, "to")));
        let mut expansion = Expansion { variables: BTreeMap::new() };
        for variable in items(&board["templating"], "list") {
            let (variable_name, kind) = (text(variable, "name"), text(variable, "type"));
            let values: Vec<String> = match (kind, text_or(&variable["datasource"], "type")) {
                ("custom", _) => text(variable, "query").split(',').map(str::to_owned).collect(),
                ("query", "grafana-clickhouse-datasource") => {
                    let sql = expansion.expand(text(variable, "query"), range);
                    let answer = finds(&world.clickhouse, &format!("{name}: variable {variable_name}"), &sql);
                    let several = variable["multi"] == true;
                    answer.lines().take(if several { usize::MAX } else { 1 }).map(str::to_owned).collect()
                }
                _ => continue,
            };
            expansion.variables.insert(variable_name.to_owned(), values);
        }
        for annotation in items(&board["annotations"], "list") {
            let sql = expansion.expand(text(&annotation["target"], "rawSql"), range);
            finds(&world.clickhouse, &format!("{name}: annotation"), &sql);
        }
        for (title, panel) in panels(&board) {
            let range = match panel["timeFrom"].as_str() {
                Some(back) => (now() - seconds(back), now()),
                None => range,
            };
            for target in items(panel, "targets").filter(|target| target.get("rawSql").is_some()) {
                let sql = expansion.expand(text(target, "rawSql"), range);
                let answer = finds(&world.clickhouse, &format!("{name}: {title}"), &sql);
                // A share may be nought, a count may not.
                let share = panel["fieldConfig"]["defaults"]["unit"] == "percentunit";
                assert!(share || answer != "0", "{name}: {title} counts nothing: {sql}");
            }
        }
    }
    prometheus_knows_all(&world);
}

fn text_or<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// Expressions of panels, rules and alerts name what the daemon exports, and Prometheus evaluates them all.
fn prometheus_knows_all(world: &World) {
    let exported: BTreeSet<&str> = world
        .exported
        .iter()
        .flat_map(|metrics| metrics.lines())
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let known = |metric: &str| exported.contains(metric) || ONLY_AFTER_A_FAULT.contains(&metric);
    let variable = Regex::new(r"\$(?:job|instance|role|kind|severity)\b").expect("a pattern");
    for (place, expression) in expressions() {
        let metrics = metrics_of(&expression);
        let unknown: Vec<&String> = metrics.iter().filter(|metric| !known(metric.as_str())).collect();
        assert!(unknown.is_empty(), "{place} names {unknown:?}, which the daemon does not export");
        let expanded = variable.replace_all(&expression, ".*").replace("$__rate_interval", "30s");
        let found = world.prometheus.query(&expanded);
        let optional = metrics.iter().any(|metric| ONLY_AFTER_A_FAULT.contains(&metric.as_str()));
        assert!(!found.is_empty() || optional, "{place} finds nothing: {expanded}");
    }
    for file in RULES {
        for group in items(&yaml(file), "groups") {
            for rule in items(group, "rules") {
                let expression = text(rule, "expr");
                let metrics = metrics_of(expression);
                let unknown: Vec<&String> = metrics.iter().filter(|metric| !known(metric.as_str())).collect();
                assert!(unknown.is_empty(), "{rule} names {unknown:?}, which the daemon does not export");
                if let Some(record) = rule["record"].as_str() {
                    // What waits is worked off at once here, so that nothing has to be caught up with.
                    let idle = record == "triaged:consumer_lag_seconds:estimate";
                    assert!(idle || !world.prometheus.query(record).is_empty(), "{record} gives nothing");
                }
            }
        }
    }
    let rules = world.prometheus.rules();
    assert!(rules.len() > 20, "{} rules", rules.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}
