//! From urgent events to incidents that somebody is told of, acknowledges and resolves: the incidents role against the real
//! broker and ClickHouse's engine, with receivers of webhooks and mail in the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sha2::Sha256;
use triaged::ops::{KeysFile, Permission};
use triaged::record::{IncidentStatus, Priority, rfc3339};
use triaged::volumes::{
    EventCursor, IncidentEventRow, IncidentNotificationRow, IncidentQuery, IncidentRow, IncidentUpdateRow, MemoryStore,
    VolumeStore,
};
use uuid::Uuid;

use crate::feedback::{block_on, store};
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::{Isolation, Read, Reader};
use crate::peers::daemon::Daemon;
use crate::peers::receiver::{Post, WebhookReceiver, smtp_server};
use crate::peers::{free_port, wait_until};
use crate::setup::{Setup, seed};

const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const MINUTE: i64 = 60_000;
const GROUP: &str = "triaged-incidents";

struct World {
    broker: Broker,
    clickhouse: ClickHouse,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let broker = Broker::start();
        broker.create_topic("queue-events", 4);
        for topic in ["incidents", "incident-updates", "dead-letters", "feedback"] {
            broker.create_topic(topic, 1);
        }
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), SECRET).expect("written");
        World { broker, clickhouse: ClickHouse::start(), folder }
    }

    fn setup(&self) -> Setup {
        Setup::new(&self.broker.bootstrap(), "at_least_once")
            .with("clickhouse.url", &format!("'{}'", self.clickhouse.url()))
            .with("tally.batch_age", "'100ms'")
            .with("incidents.batch_age", "'50ms'")
            .with("incidents.batch_records", "100")
    }

    /// A file that holds a secret, as a setting.
    fn secret(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        format!("{{ file = {path:?} }}")
    }

    fn webhook(&self, name: &str, url: &str, rest: &str) -> String {
        let secret = self.secret("secret", SECRET);
        format!(
            "{{ name = '{name}', kind = 'webhook', url = '{url}', secret = {secret}, retry_backoff = '50ms'{rest} }}"
        )
    }

    fn produce(&self, events: &[Value]) {
        let keyed = events.iter().enumerate().map(|(key, event)| (key.to_string(), event.to_string()));
        self.broker.produce("queue-events", keyed);
    }

    fn update(&self, update: &Value) {
        self.broker.produce("incident-updates", [("", update.to_string())]);
    }

    /// Incidents as the store has them: id, events, status.
    fn incidents(&self) -> Vec<(String, u64, String)> {
        let text =
            self.clickhouse.query("SELECT incident_id, events, status FROM incidents FINAL ORDER BY events DESC");
        text.lines()
            .map(|line| {
                let cells: Vec<&str> = line.split('\t').collect();
                (cells[0].to_owned(), cells[1].parse().expect("a number"), cells[2].to_owned())
            })
            .collect()
    }

    fn topic(&self) -> Reader {
        self.broker.reader("incidents", Isolation::ReadCommitted)
    }
}

fn event(offset: i64, at: i64, priority: &str, ips: &[String]) -> Value {
    json!({
        "event_id": format!("00000000-0000-5000-8000-{offset:012x}"),
        "source": {"topic": "logs", "partition": offset % 3, "offset": offset},
        "kind": "log",
        "occurred_at": rfc3339(at),
        "decided_at": rfc3339(at),
        "queue": "soc",
        "category": "Security Alert",
        "priority": priority,
        "confidence": 0.9,
        "routing": "auto_route",
        "decided_by": "fast",
        "indicators": {"ips": ips},
        "text": "the words of the ticket",
    })
}

fn now() -> i64 {
    Utc::now().timestamp_millis()
}

fn ip(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

/// Every record of the topic conforms to the published schema.
#[track_caller]
fn conforms(schema: &str, values: &[Value]) {
    let schema: Value = serde_json::from_str(schema).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for value in values {
        let faults: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {value}");
    }
}

/// The newest record of each incident, and every change that was announced for it.
fn newest(reader: &mut Reader) -> BTreeMap<String, (Value, Vec<String>)> {
    // A reader that finds nothing new may read again what it has read.
    let records: BTreeMap<i64, Read> = reader.drain().iter().map(|record| (record.offset, record.clone())).collect();
    let values: Vec<Value> = records.values().map(Read::json).collect();
    conforms(include_str!("../schemas/incident.json"), &values);
    let mut newest: BTreeMap<String, (Value, Vec<String>)> = BTreeMap::new();
    for (record, value) in records.values().zip(values) {
        let id = value["incident_id"].as_str().expect("an id").to_owned();
        assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
        let entry = newest.entry(id).or_insert_with(|| (Value::Null, Vec::new()));
        entry.1.extend(record.header("change").expect("it says what has changed").split(',').map(str::to_owned));
        entry.0 = value;
    }
    newest
}

#[test]
fn a_burst_is_one_incident_whatever_happens_on_the_way() {
    let world = World::new();
    let seed = seed("a_burst_is_one_incident_whatever_happens_on_the_way");
    let mut random = StdRng::seed_from_u64(seed);
    let at = now();
    // Each has an address of its own and one that they share.
    let mut sent: Vec<Value> = (0..500)
        .map(|offset| event(offset, at - 1_000 + offset, "high", &["203.0.113.7".into(), format!("10.0.{offset}.1")]))
        .collect();
    sent.push(event(900, at, "critical", &ip("198.51.100.9")));
    // The same address, long before: another window.
    sent.push(event(901, at - 40 * MINUTE, "high", &ip("203.0.113.7")));
    sent.push(event(902, at, "medium", &ip("203.0.113.7")));
    sent.push(event(903, at - 3 * 24 * 60 * MINUTE, "critical", &ip("192.0.2.1")));
    let mut twice: Vec<Value> = sent.iter().chain(&sent).cloned().collect();
    twice.shuffle(&mut random);
    let mut daemon = Daemon::start_roles("incidents", &world.setup().static_member().toml());
    daemon.wait_ready();
    for part in twice.chunks(twice.len().div_ceil(3)) {
        world.produce(part);
        let some = f64::from(random.random_range(1..200_u32));
        wait_until("the role is in the middle", PATIENCE, || {
            daemon.metric("triaged_outcomes_total", &["outcome=\"stored\"", "role=\"incidents\""]) > some
        });
        daemon.kill();
        daemon.restart();
    }
    let watch = world.broker.watch_group("queue-events", GROUP);
    wait_until("all is committed", PATIENCE, || watch.committed() >= twice.len() as i64);
    let expected = [500, 1, 1];
    let counts = || world.incidents().iter().map(|(_, events, _)| *events).collect::<Vec<u64>>();
    wait_until("all is counted", PATIENCE, || counts() == expected);
    let mut reader = world.topic();
    let burst = world.incidents()[0].0.clone();
    wait_until("the topic says so too", PATIENCE, || {
        newest(&mut reader).get(&burst).is_some_and(|(value, _)| value["events"] == 500)
    });
    let seen = newest(&mut reader);
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        world.incidents().iter().map(|(id, ..)| id).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(seen[&burst].0["severity"], "high");
    assert_eq!(world.clickhouse.query("SELECT uniqExact(incident_id), count() FROM incident_events FINAL"), "3\t502");
    assert!(!daemon.log().contains("the words of the ticket"), "no text in the log");
    assert!(daemon.stop(PATIENCE).success());
}

/// The HMAC as a receiver computes it.
#[track_caller]
fn check_signature(post: &Post) {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(format!("{}.{}", post.header("x-triaged-timestamp"), post.body).as_bytes());
    let expected = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
    assert_eq!(post.header("x-triaged-signature"), format!("sha256={expected}"));
    let age = now() / 1000 - post.header("x-triaged-timestamp").parse::<i64>().expect("seconds");
    assert!((-5..600).contains(&age), "{age}");
}

#[test]
fn every_way_is_told_and_a_receiver_that_refuses_is_told_again() {
    let world = World::new();
    let webhook = WebhookReceiver::start(&[(500, ""), (429, "retry-after: 1\r\n")]);
    let wrong = WebhookReceiver::start(&[(302, "location: http://127.0.0.1:1/\r\n"), (302, "")]);
    let slack = WebhookReceiver::start(&[]);
    let (port, mail_rx) = smtp_server();
    let slack_url = world.secret("slack", &slack.url("/services/T/B/x"));
    let channels = [
        world.webhook("soc", &webhook.url("/hook"), ""),
        world.webhook("wrong", &wrong.url("/hook"), ""),
        format!(
            "{{ name = 'chat', kind = 'slack', url = {slack_url}, template = '<!here> {{{{severity}}}} in {{{{queue}}}}: {{{{events}}}}' }}"
        ),
        "{ name = 'mail', kind = 'email', to = ['soc@example.org'], subject = 'incident in {{queue}}' }".to_owned(),
        // Of critical ones alone.
        world.webhook("boss", &webhook.url("/boss"), ", from = 'critical'"),
    ];
    let setup = world
        .setup()
        .with("incidents.channel", &format!("[{}]", channels.join(", ")))
        .with("incidents.notify", "['soc', 'wrong', 'chat', 'mail', 'boss']")
        .with("smtp.server", "'127.0.0.1'")
        .with("smtp.port", &port.to_string())
        .with("smtp.tls", "'none'")
        .with("smtp.from", "'triaged@example.org'");
    let mut daemon = Daemon::start_roles("incidents", &setup.toml());
    daemon.wait_ready();
    let mut sent = event(1, now(), "high", &ip("203.0.113.7"));
    sent["queue"] = "<soc & co>".into();
    world.produce(&[sent]);
    wait_until("the third attempt is taken", PATIENCE, || webhook.posts().len() == 3);
    let posts = webhook.posts();
    let waited = posts[2].header("x-triaged-timestamp").parse::<i64>().expect("seconds")
        - posts[1].header("x-triaged-timestamp").parse::<i64>().expect("seconds");
    assert!(waited >= 1, "Retry-After is kept to: {waited}");
    for post in &posts {
        check_signature(post);
        assert_eq!(post.path, "/hook");
        assert_eq!(post.header("x-triaged-delivery"), posts[0].header("x-triaged-delivery"), "one message");
    }
    let bodies: Vec<Value> = posts.iter().map(Post::json).collect();
    conforms(include_str!("../schemas/incident-notification.json"), &bodies);
    assert_eq!((&bodies[2]["changes"], &bodies[2]["incident"]["events"]), (&json!(["opened"]), &json!(1)));
    wait_until("Slack is told", PATIENCE, || !slack.posts().is_empty());
    let told = slack.posts()[0].clone();
    assert_eq!(
        (&*told.path, told.json()),
        ("/services/T/B/x", json!({"text": "<!here> high in &lt;soc &amp; co&gt;: 1"}))
    );
    let mail = mail_rx.recv_timeout(PATIENCE).expect("a mail");
    for part in ["RCPT TO:<soc@example.org>", "Subject: incident in <soc & co>", "1 events", "Message-ID: <"] {
        assert!(mail.contains(part), "{part} is missing in\n{mail}");
    }
    let count = |channel: &str, outcome: &str| {
        let labels = [format!("channel=\"{channel}\""), format!("outcome=\"{outcome}\"")];
        daemon.metric("triaged_incident_notifications_total", &[&labels[0], &labels[1]])
    };
    wait_until("all is counted", PATIENCE, || {
        ["soc", "chat", "mail"].iter().all(|channel| count(channel, "sent") == 1.0) && count("wrong", "failed") == 1.0
    });
    assert_eq!((count("soc", "retried"), wrong.posts().len()), (2.0, 1), "a redirect is neither followed nor repeated");
    let noted = || {
        world.clickhouse.query("SELECT channel, outcome, attempts FROM incident_notifications FINAL ORDER BY channel")
    };
    wait_until("all is noted", PATIENCE, || noted() == "chat\tsent\t1\nmail\tsent\t1\nsoc\tsent\t3\nwrong\tfailed\t1");
    let everything: String = posts.iter().map(|post| post.body.clone()).collect::<String>() + &told.body + &mail;
    for part in ["the words of the ticket", "203.0.113.7"] {
        assert!(!everything.contains(part), "{part} was told");
    }
    assert!(!daemon.log().contains(SECRET) && !daemon.log().contains("/services/T/B/x"), "a secret is logged");
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn two_instances_tell_once_and_the_second_goes_on() {
    let world = World::new();
    let webhook = WebhookReceiver::start(&[]);
    let setup = world
        .setup()
        .with("incidents.channel", &format!("[{}]", world.webhook("soc", &webhook.url("/"), ", cooldown = '0s'")))
        .with("incidents.notify", "['soc']");
    let mut one = Daemon::start_roles("incidents", &setup.clone().instance("one").toml());
    let mut two = Daemon::start_roles("incidents", &setup.instance("two").toml());
    one.wait_ready();
    two.wait_ready();
    let at = now();
    let sent: Vec<Value> = (0..200).map(|offset| event(offset, at, "high", &ip("203.0.113.7"))).collect();
    world.produce(&sent);
    wait_until("it is told", PATIENCE, || !webhook.posts().is_empty());
    wait_until("all is counted", PATIENCE, || world.incidents().first().is_some_and(|(_, events, _)| *events == 200));
    assert_eq!(world.incidents().len(), 1);
    let led = one.metric("triaged_incident_leader", &[]) + two.metric("triaged_incident_leader", &[]);
    assert_eq!((webhook.posts().len(), led), (1, 1.0));
    // The one that leads ends; the other tells what comes, and nothing of what was told.
    let (leader, other) = match one.metric("triaged_incident_leader", &[]) {
        1.0 => (&mut one, &mut two),
        _ => (&mut two, &mut one),
    };
    assert!(leader.stop(PATIENCE).success());
    wait_until("the other leads", PATIENCE, || other.metric("triaged_incident_leader", &[]) == 1.0);
    let id = world.incidents()[0].0.clone();
    world.update(&json!({"action": "acknowledge", "incident_id": id, "by": "a chat bot"}));
    wait_until("it is told", PATIENCE, || webhook.posts().len() == 2);
    let told = webhook.posts()[1].json();
    assert_eq!(
        (&told["changes"], &told["incident"]["acknowledged_by"]),
        (&json!(["acknowledged"]), &json!("a chat bot"))
    );
    world.update(&json!({"action": "resolve", "incident_id": id}));
    wait_until("it is told", PATIENCE, || webhook.posts().len() == 3);
    assert_eq!(world.incidents()[0].2, "resolved");
    // What comes after the resolution is another incident.
    world.produce(&[event(1_000, now(), "high", &ip("203.0.113.7"))]);
    wait_until("another one is told", PATIENCE, || webhook.posts().len() == 4);
    assert_eq!(world.incidents().len(), 2);
    assert!(other.stop(PATIENCE).success());
}

#[test]
fn what_is_late_is_a_breach_and_climbs() {
    let world = World::new();
    let (first, second) = (WebhookReceiver::start(&[]), WebhookReceiver::start(&[]));
    let channels = [
        world.webhook("first", &first.url("/"), ", cooldown = '8s'"),
        world.webhook("second", &second.url("/"), ", cooldown = '0s'"),
    ];
    let setup = world
        .setup()
        .with("incidents.channel", &format!("[{}]", channels.join(", ")))
        .with("incidents.notify", "['first']")
        .with("incidents.escalation", "[{ after = '2s', notify = ['second'] }]")
        .with("incidents.sla.high", "{ acknowledge = '1s', resolve = '3s' }");
    let mut daemon = Daemon::start_roles("incidents", &setup.toml());
    daemon.wait_ready();
    world.produce(&[event(1, now(), "high", &ip("203.0.113.7"))]);
    let mut reader = world.topic();
    let changes = ["opened", "acknowledge_breached", "escalated", "resolve_breached"];
    wait_until("all that is late is announced", PATIENCE, || {
        newest(&mut reader)
            .values()
            .next()
            .is_some_and(|(_, seen)| seen.iter().filter(|seen| *seen != "grown").eq(changes))
    });
    let (incident, _) = newest(&mut reader).into_values().next().expect("one");
    assert_eq!((&incident["step"], &incident["status"]), (&json!(1), &json!("open")));
    assert!(incident["acknowledge_breached_at"].is_string() && incident["resolve_breached_at"].is_string());
    let breaches = |deadline: &str| daemon.metric("triaged_incident_breaches_total", &[deadline, "severity=\"high\""]);
    wait_until("both are counted", PATIENCE, || {
        (breaches("deadline=\"acknowledge\""), breaches("deadline=\"resolve\"")) == (1.0, 1.0)
    });
    let open = || daemon.metric("triaged_open_incidents", &["severity=\"high\"", "status=\"open\""]);
    wait_until("it is shown as open", PATIENCE, || open() == 1.0);
    let told = |receiver: &WebhookReceiver| -> Vec<String> {
        let changes = receiver.posts().into_iter().flat_map(|post| post.json()["changes"].as_array().cloned());
        changes.flatten().map(|change| change.as_str().expect("a name").to_owned()).collect()
    };
    wait_until("the first is told all", PATIENCE, || told(&first) == changes);
    // Three changes came within its cool-down: they are one message.
    assert_eq!(first.posts().len(), 2, "{:?}", first.posts());
    wait_until("the second is told from its step on", PATIENCE, || told(&second) == changes[2..]);
    assert!(daemon.stop(PATIENCE).success());
}

/// A request to the daemon's API with a key; the status and the body.
fn call(method: &str, url: &str, key: &str, body: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let key = format!("Bearer {key}");
    let sent = match method {
        "GET" => agent.get(url).header("authorization", key).call(),
        _ => agent.post(url).header("authorization", key).header("content-type", "application/json").send(body),
    };
    let mut response = sent.expect("the API answers");
    let text = response.body_mut().read_to_string().expect("text");
    (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[test]
fn an_incident_is_worked_on_over_http() {
    let world = World::new();
    let port = free_port();
    let file = KeysFile::at(&world.folder.path().join("keys.json"));
    let [read, write, admin] =
        Permission::ALL.map(|role| file.create(role.as_str(), role, None).expect("a key").text.reveal().to_owned());
    let setup = world
        .setup()
        .with("api.listen", &format!("'127.0.0.1:{port}'"))
        .with("api.keys_file", &format!("{:?}", file.path()))
        .with("incidents.escalation", "[{ after = '1h', notify = [] }]");
    let mut daemon = Daemon::start_roles("tally,incidents", &setup.toml());
    daemon.wait_ready();
    let url = |path: &str| format!("http://127.0.0.1:{port}/v1/incidents{path}");
    let id_of = |offset: i64| format!("00000000-0000-5000-8000-{offset:012x}");
    let at = now();
    let sent: Vec<Value> = vec![
        event(1, at, "high", &ip("203.0.113.7")),
        event(2, at, "high", &ip("203.0.113.7")),
        event(3, at, "critical", &ip("198.51.100.9")),
        event(4, at, "low", &ip("203.0.113.7")),
    ];
    world.produce(&sent);
    let list = |query: &str| {
        let (status, page) = call("GET", &url(query), &read, "");
        assert_eq!(status, 200, "{page}");
        page["incidents"].as_array().expect("a list").clone()
    };
    wait_until("both are open", PATIENCE, || {
        list("").iter().map(|incident| incident["events"].as_u64()).collect::<BTreeSet<_>>()
            == [Some(1), Some(2)].into()
    });
    let all = list("");
    conforms(include_str!("../schemas/incident.json"), &all);
    assert_eq!((list("?severity=critical").len(), list("?queue=none").len(), list("?status=open").len()), (1, 0, 2));
    let (_, page) = call("GET", &url("?limit=1"), &read, "");
    let rest = list(&format!("?limit=1&cursor={}", page["next"].as_str().expect("more")));
    assert_eq!(rest[0]["incident_id"], all[1]["incident_id"]);
    let high = list("?severity=high")[0]["incident_id"].as_str().expect("an id").to_owned();

    // Nobody without a key, nobody without the role, nothing that is not there.
    assert_eq!(call("GET", &url(""), "", "").0, 401);
    assert_eq!(call("POST", &url(&format!("/{high}/acknowledge")), "", "").0, 401);
    for path in [format!("/{high}/acknowledge"), format!("/{high}/resolve"), format!("/{}", id_of(1))] {
        assert_eq!(call("POST", &url(&path), &read, "").0, 403, "{path}");
    }
    assert_eq!(call("GET", &url(&format!("/{}", id_of(1))), &read, "").0, 404, "an event is no incident");
    assert_eq!(call("POST", &url(&format!("/{}", id_of(77))), &write, "").1["code"], "unknown_event");
    assert_eq!(call("POST", &url(&format!("/{}/resolve", id_of(1))), &write, "").1["code"], "unknown_incident");
    assert_eq!(call("POST", &url(&format!("/{high}/resolve")), &write, "{\"why\":1}").1["code"], "invalid_note");

    let show = |id: &str| call("GET", &url(&format!("/{id}")), &read, "").1;
    let (status, receipt) = call("POST", &url(&format!("/{high}/acknowledge")), &write, "{\"note\":\"mine\"}");
    assert_eq!((status, &receipt["incident_id"]), (202, &json!(high)), "{receipt}");
    wait_until("it is acknowledged", PATIENCE, || show(&high)["status"] == "acknowledged");
    assert!(show(&high)["acknowledged_by"].as_str().is_some_and(|by| by.starts_with("write (")));
    assert_eq!(show(&high)["history"][1]["note"], "mine");

    // By hand: the incident of an event climbs, and an event without one opens one.
    wait_until("the events are stored", PATIENCE, || {
        call("GET", &format!("http://127.0.0.1:{port}/v1/events/{}", id_of(4)), &read, "").0 == 200
    });
    let (status, receipt) = call("POST", &url(&format!("/{}", id_of(2))), &write, "");
    assert_eq!((status, &receipt["incident_id"]), (202, &json!(high)), "{receipt}");
    wait_until("it climbs", PATIENCE, || show(&high)["step"] == 1);
    let (status, receipt) = call("POST", &url(&format!("/{}", id_of(4))), &write, "{\"note\":\"look closer\"}");
    assert_eq!(status, 202, "{receipt}");
    let by_hand = receipt["incident_id"].as_str().expect("an id").to_owned();
    wait_until("it is opened", PATIENCE, || show(&by_hand)["status"] == "open");
    let opened = show(&by_hand);
    assert_eq!(
        (&opened["severity"], &opened["events"], &opened["event_id"]),
        (&json!("high"), &json!(1), &json!(id_of(4)))
    );
    assert_eq!(opened["history"].as_array().map(Vec::len), Some(2), "{opened}");

    assert_eq!(call("POST", &url(&format!("/{high}/resolve")), &write, "").0, 202);
    wait_until("it is resolved", PATIENCE, || show(&high)["status"] == "resolved");
    for path in [format!("/{high}/acknowledge"), format!("/{high}/resolve"), format!("/{}", id_of(1))] {
        assert_eq!(call("POST", &url(&path), &write, "").1["code"], "resolved", "{path}");
    }
    let audit = call("GET", &format!("http://127.0.0.1:{port}/v1/audit"), &admin, "").1.to_string();
    for action in ["incident.acknowledged", "incident.escalated", "incident.resolved"] {
        assert!(audit.contains(action), "{action} is missing in {audit}");
    }
    // By topic too, and what is no update goes to the dead letters.
    world.update(&json!({"action": "resolve", "incident_id": by_hand, "by": "a chat bot", "at": rfc3339(now())}));
    world.update(&json!({"action": "resolve", "event_id": id_of(1)}));
    wait_until("it is resolved", PATIENCE, || show(&by_hand)["resolved_by"] == "a chat bot");
    let mut letters = world.broker.reader("dead-letters", Isolation::ReadCommitted);
    let letter = &letters.wait_for(1, PATIENCE)[0];
    assert_eq!(letter.header("triaged-reason"), Some("invalid_incident_update"));
    assert!(daemon.stop(PATIENCE).success());
}

fn id(random: &mut StdRng, of: u128) -> Uuid {
    Uuid::from_u128(random.random_range(0..of) + 1)
}

/// Random rows: both stores answer the same.
#[test]
fn both_stores_answer_the_same_about_incidents() {
    let clickhouse = ClickHouse::start();
    let server = store(&clickhouse);
    let memory = VolumeStore::Memory(MemoryStore::new(1_000).into());
    let seed = seed("both_stores_answer_the_same_about_incidents");
    let mut random = StdRng::seed_from_u64(seed);
    let start = now();
    let events: Vec<IncidentEventRow> = (0..300)
        .map(|offset| {
            let placed = random.random_bool(0.7);
            IncidentEventRow {
                source_topic: "logs".to_owned(),
                source_partition: offset % 3,
                source_offset: offset as u64 / 2,
                event_id: Uuid::from_u128(offset as u128),
                incident_id: if placed { Uuid::from_u128(1 + offset as u128 / 2 % 10) } else { Uuid::nil() },
                // What lies at one place in Kafka is one event.
                occurred_at: start - 1_000 * i64::from(offset / 2 * 3 + offset % 3),
                seen_at: start,
                queue: "soc".to_owned(),
                category: String::new(),
                priority: 1 + (offset / 2 % 4) as i8,
                tokens: vec![format!("ip:{}", offset / 2 % 7), "template:a".to_owned()],
                version: u8::from(placed),
            }
        })
        .collect();
    let incidents: Vec<IncidentRow> = (0..60_i64)
        .map(|number| IncidentRow {
            incident_id: Uuid::from_u128(1 + number as u128 % 40),
            version: 1 + number as u64 / 40,
            event_id: Uuid::from_u128(7),
            status: random.random_range(1..=3),
            severity: random.random_range(1..=4),
            queue: ["soc", "identity"][number as usize % 2].to_owned(),
            category: String::new(),
            opened_at: start - number % 40 / 2 * 1_000,
            first_seen: start,
            last_seen: start,
            events: number as u64,
            tokens: vec!["ip:1".to_owned()],
            step: 1,
            acknowledge_by: start,
            resolve_by: start,
            acknowledged_at: 0,
            acknowledged_by: String::new(),
            resolved_at: 0,
            resolved_by: "ada".to_owned(),
            acknowledge_breached_at: 0,
            resolve_breached_at: start,
            updated_at: start - random.random_range(0..1_000) * 100,
            history: vec![(start, "opened".to_owned(), "ünï".to_owned(), 0, "a\n'b'".to_owned(), String::new())],
        })
        .collect();
    let updates: Vec<IncidentUpdateRow> = (0..60_i64)
        .map(|number| IncidentUpdateRow {
            update_id: Uuid::from_u128(number as u128 % 40),
            incident_id: id(&mut random, 40),
            event_id: Uuid::nil(),
            action: 1 + (number % 3) as i8,
            given_by: "ada".to_owned(),
            given_at: start - number % 40 / 2,
            note: String::new(),
            outcome: if number >= 40 { "applied".to_owned() } else { String::new() },
            version: u8::from(number >= 40),
        })
        .collect();
    let notifications: Vec<IncidentNotificationRow> = (0..100_i64)
        .map(|number| IncidentNotificationRow {
            incident_id: id(&mut random, 40),
            channel: ["soc", "chat"][number as usize % 2].to_owned(),
            sequence: random.random_range(1..5),
            delivery_id: Uuid::from_u128(number as u128),
            sent_at: start + number,
            attempts: 1,
            outcome: 1 + (number % 2) as i8,
        })
        .collect();
    for store in [&server, &memory] {
        block_on(async {
            let again: Vec<IncidentEventRow> = events[..100]
                .iter()
                .map(|row| IncidentEventRow { incident_id: Uuid::nil(), version: 0, ..row.clone() })
                .collect();
            for rows in [&events[..], &again] {
                store.insert_incident_events(rows).await.expect("the store takes them");
            }
            store.insert_incidents(&incidents).await.expect("the store takes them");
            store.insert_incident_updates(&updates).await.expect("the store takes them");
            store.insert_incident_notifications(&notifications).await.expect("the store takes them");
        });
    }
    let ids: Vec<Uuid> = (1..=45).map(Uuid::from_u128).collect();
    block_on(async {
        for (from, limit) in [(0, 1_000), (start - 100_000, 1_000), (0, 7)] {
            let (found, expected) =
                (server.events_to_place(from, limit).await, memory.events_to_place(from, limit).await);
            assert_eq!(found.expect("an answer"), expected.expect("an answer"), "{from} {limit}");
        }
        assert!(!memory.events_to_place(0, 1_000).await.expect("an answer").is_empty());
        for ids in [&ids[..], &ids[3..5], &[]] {
            let (found, expected) = (server.incident_members(ids).await, memory.incident_members(ids).await);
            assert_eq!(found.expect("an answer"), expected.expect("an answer"));
            let (found, expected) =
                (server.incident_notifications(ids).await, memory.incident_notifications(ids).await);
            assert_eq!(found.expect("an answer"), expected.expect("an answer"));
        }
        for id in &ids {
            let (found, expected) = (server.incident(*id).await, memory.incident(*id).await);
            assert_eq!(found.expect("an answer"), expected.expect("an answer"));
        }
        for offset in 0..300 {
            let event_id = Uuid::from_u128(offset);
            let (found, expected) =
                (server.incident_of_event(event_id).await, memory.incident_of_event(event_id).await);
            assert_eq!(found.expect("an answer"), expected.expect("an answer"), "{event_id}");
        }
        for (from, limit) in [(0, 100), (start - 50_000, 100), (start + 1, 5)] {
            let (found, expected) =
                (server.live_incidents(from, limit).await, memory.live_incidents(from, limit).await);
            assert_eq!(found.expect("an answer"), expected.expect("an answer"), "{from} {limit}");
        }
        for limit in [100, 3] {
            let (found, expected) =
                (server.pending_incident_updates(limit).await, memory.pending_incident_updates(limit).await);
            assert_eq!(found.expect("an answer"), expected.expect("an answer"), "{limit}");
        }
        let all =
            IncidentQuery { status: None, severity: None, queue: None, from: 0, to: start + 1, after: None, limit: 7 };
        let mut seen = 0;
        for query in [
            all.clone(),
            IncidentQuery { status: Some(IncidentStatus::Open), ..all.clone() },
            IncidentQuery { severity: Some(Priority::High), queue: Some("soc".to_owned()), ..all.clone() },
            IncidentQuery { from: start - 10_000, to: start - 3_000, ..all },
        ] {
            let mut after: Option<EventCursor> = None;
            loop {
                let query = IncidentQuery { after, ..query.clone() };
                let found = server.incidents(&query).await.expect("an answer");
                assert_eq!(found, memory.incidents(&query).await.expect("an answer"), "{query:?}");
                seen += found.len();
                after = found.last().map(IncidentRow::cursor);
                if after.is_none() {
                    break;
                }
            }
        }
        assert!(seen >= 40, "{seen}");
    });
}
