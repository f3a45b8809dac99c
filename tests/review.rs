//! The review page in a real Chromium, served by the daemon at work on a real broker and ClickHouse's engine: what
//! reviewers see, what hostile tickets cannot do, and what becomes of an answer, up to a model that has learned it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use triaged::ops::{KeysFile, Permission};

use crate::outcomes::{schema, valid};
use crate::peers::broker::Broker;
use crate::peers::browser::{Browser, ENTER, ESCAPE, TAB};
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::{Isolation, Reader};
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::{free_port, wait_until};
use crate::retrain::{TOKEN, TOPICS, fill};
use crate::setup::Setup;

const PATIENCE: Duration = Duration::from_secs(120);
const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 740);
const SHOWN: &str =
    "document.getElementById('text').textContent.length > 0 && !document.getElementById('accept').disabled";

/// The daemon with all that a reviewer needs, and a key for them.
struct Desk {
    broker: Broker,
    clickhouse: ClickHouse,
    folder: tempfile::TempDir,
    key: String,
    origin: String,
}

impl Desk {
    fn new() -> Desk {
        let broker = Broker::start();
        for topic in ["tickets", "logs", "queue-events", "feedback", "dead-letters", "forecasts", "anomalies"] {
            broker.create_topic(topic, 1);
        }
        let folder = tempfile::tempdir().expect("the system has a temporary folder");
        let keys = KeysFile::at(&folder.path().join("keys.json"));
        let key = keys.create("ada", Permission::Write, None).expect("a key").text.reveal().to_owned();
        let origin = format!("http://127.0.0.1:{}", free_port());
        Desk { broker, clickhouse: ClickHouse::start(), folder, key, origin }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain path").to_owned()
    }

    fn setup(&self) -> Setup {
        Setup::new(&self.broker.bootstrap(), "at_least_once")
            .with("clickhouse.url", &format!("'{}'", self.clickhouse.url()))
            .with("api.listen", &format!("'{}'", self.origin.trim_start_matches("http://")))
            .with("api.keys_file", &format!("'{}'", self.path("keys.json")))
            .with("output.escalate", "false")
            .with("output.explain", "8")
            .with("tally.batch_age", "'100ms'")
    }

    fn send(&self, tickets: &[Value]) {
        self.broker.produce("tickets", tickets.iter().map(|ticket| ("", ticket.to_string())));
    }

    /// Events that ClickHouse holds.
    fn counted(&self) -> usize {
        self.clickhouse.query("SELECT count() FROM queue_events FINAL").parse().expect("a number")
    }

    /// A browser on the page, with the key typed in.
    fn browser(&self) -> Browser {
        let browser = Browser::start();
        browser.screen(DESKTOP, false);
        browser.open(&format!("{}/review", self.origin));
        browser.wait("document.activeElement.id === 'key'");
        browser.picture("login");
        browser.keys(&format!("{}{ENTER}", self.key));
        browser
    }
}

/// What strangers send. None of it is a ticket that the shipped model is sure of.
fn hostile() -> Vec<Value> {
    let ticket = |id: &str, title: &str, content: &str| json!({"ticket_id": id, "title": title, "content": content});
    vec![
        ticket(
            "script",
            "<script>window.pwned = 1; alert(1)</script>",
            "</pre></main><script src=\"https://evil.example/x.js\"></script>",
        ),
        ticket(
            "image",
            "invoice <img src=x onerror=\"window.pwned = 2; alert(2)\">",
            "<svg onload=alert(3)> <a href=\"javascript:window.pwned=4\">click</a> {{7*7}} ${7*7} <style>*{display:none}</style>",
        ),
        ticket("long", &"A".repeat(3_000), &"words and words ".repeat(600)),
        ticket(
            "right-to-left \u{202e}gpj.exe",
            "مرحبا كيف حالك",
            "שלום עולם with English, and \u{202e}turned\u{202c} round",
        ),
        ticket(
            "plain",
            "the printer on floor 3",
            "it prints nothing but the same page again\nand again\n\n\nand again",
        ),
    ]
}

fn text_of(ticket: &Value) -> String {
    format!("{}\n{}", ticket["title"].as_str().expect("text"), ticket["content"].as_str().expect("text"))
}

/// Text as the page shows it: what turns the direction of writing is named.
fn shown(text: &str) -> String {
    text.replace('\u{202e}', "⟪U+202E⟫").replace('\u{202c}', "⟪U+202C⟫")
}

/// What was fed back, by event id.
fn feedback(reader: &mut Reader, count: usize) -> Vec<Value> {
    let schema = schema("feedback.json");
    let read: Vec<Value> = reader.wait_for(count, PATIENCE).iter().map(|read| read.json()).collect();
    read.iter().for_each(|one| valid(&schema, one));
    assert_eq!(read.len(), count);
    read
}

#[test]
fn hostile_tickets_are_shown_and_judged_by_keyboard_alone() {
    let desk = Desk::new();
    let tickets = hostile();
    // Nothing is sure enough here, so that all of it is to be reviewed.
    let setup = desk.setup().with("decide.auto_route", "1.0");
    let config = desk.path("my.toml");
    setup.write(Path::new(&config));
    let generate = triaged(&["generate", "--kafka", "--count", "400", "--history", "1d", "--config", &config]);
    assert!(generate.status.success(), "{}", String::from_utf8_lossy(&generate.stderr));
    let mut daemon = Daemon::start_roles("classify,tally", &setup.toml());
    daemon.wait_ready();
    let volumes = desk.broker.watch_group("logs", crate::setup::GROUP);
    wait_until("the history is classified", PATIENCE, || volumes.committed() >= volumes.high_watermark());
    let events = desk.broker.watch_group("queue-events", "triaged-tally");
    wait_until("the history is counted", PATIENCE, || events.committed() >= events.high_watermark());
    let history = desk.counted();
    // Only the hostile ones are left to be reviewed.
    desk.clickhouse.query(
        "INSERT INTO feedback (event_id, feedback_id, correct) SELECT event_id, event_id, 'yes' FROM queue_events",
    );
    desk.send(&tickets);
    wait_until("the tickets are counted", PATIENCE, || desk.counted() == history + tickets.len());
    let mut forecasts = Daemon::start_roles(
        "forecast",
        &setup.clone().instance("two").with("api.listen", "''").with("forecast.settle", "'0s'").toml(),
    );
    wait_until("forecasts are made", PATIENCE, || forecasts.metric("triaged_forecasts_total", &[]) > 0.0);

    let browser = desk.browser();
    let mut texts: BTreeMap<String, Value> =
        tickets.iter().map(|ticket| (shown(&text_of(ticket)), ticket.clone())).collect();
    let mut answers: BTreeMap<String, (Value, &str)> = BTreeMap::new();
    let plan = ["accept", "first choice", "named queue", "skip", "accept with a note"];
    for (place, answer) in plan.into_iter().enumerate() {
        browser.wait(SHOWN);
        let text = browser.text("text");
        let ticket = texts.remove(&text).unwrap_or_else(|| panic!("nobody sent, or twice shown: {text:?}"));
        let id = ticket["ticket_id"].as_str().expect("an id").to_owned();
        looks_right(&browser, &format!("ticket-{place}"));
        let facts = browser.text("facts");
        assert!(facts.contains(&shown(&id)) && facts.contains("% sure"), "{facts}");
        let queue = browser.text("predicted");
        let first_choice = browser.value("return document.querySelector('#choices bdi').textContent");
        let expected = match answer {
            "accept" => {
                browser.keys("a");
                json!({"correct": true, "predicted_queue": queue})
            }
            "first choice" => {
                browser.keys("1");
                json!({"correct": false, "predicted_queue": queue, "corrected_queue": first_choice})
            }
            "named queue" => {
                let wanted = if queue == "identity" { "platform" } else { "identity" };
                browser.keys(&format!("/{}", &wanted[..4]));
                browser.wait("document.querySelector('#found .first') !== null");
                browser.picture("picker");
                browser.keys(&ENTER.to_string());
                json!({"correct": false, "corrected_queue": wanted})
            }
            "skip" => {
                browser.keys("s");
                json!(null)
            }
            _ => {
                browser.keys(&format!("n<b>\"seen\" before</b>{ESCAPE}d4{TAB}{ESCAPE}"));
                browser.keys("a");
                json!({"correct": true, "notes": "<b>\"seen\" before</b>", "difficulty": 4})
            }
        };
        answers.insert(id, (expected, answer));
        browser.wait(&format!("document.getElementById('text').textContent !== {}", json!(text)));
    }
    browser.wait("document.getElementById('state').textContent.startsWith('nothing is waiting')");
    browser.picture("empty");

    let mut reader = desk.broker.reader("feedback", Isolation::ReadUncommitted);
    for said in feedback(&mut reader, 4) {
        let text = said["text"].as_str().expect("the text");
        let ticket = tickets.iter().find(|ticket| text_of(ticket) == text).expect("one that was sent");
        let (expected, answer) = answers.remove(ticket["ticket_id"].as_str().expect("an id")).expect("said once");
        for (name, value) in expected.as_object().expect("a skipped one says nothing") {
            assert_eq!(&said[name], value, "{answer}: {said}");
        }
        assert!(said["given_by"].as_str().is_some_and(|who| who.starts_with("ada (")), "{said}");
    }
    assert_eq!(answers.len(), 1, "one was skipped");

    // What was skipped is somebody else's to take; after a reload it comes again.
    browser.open(&format!("{}/review", desk.origin));
    browser.wait(SHOWN);
    // Charts follow what comes in.
    browser.wait("document.querySelectorAll('#counts .bar').length > 1");
    browser.wait("document.querySelector('#forecast .line, #forecast .note') !== null");
    assert_eq!(
        browser.value("return document.querySelectorAll('#forecast .line').length"),
        1,
        "{}",
        browser.text("forecast")
    );
    let before = browser.text("counts");
    desk.send(&tickets[..3]);
    browser.wait(&format!("document.getElementById('counts').textContent !== {}", json!(before)));
    browser.picture("charts");

    // The help is a dialog; the key can be forgotten.
    browser.keys("?");
    browser.wait("document.getElementById('help').open");
    browser.picture("help");
    browser.keys(&ESCAPE.to_string());
    browser.wait("!document.getElementById('help').open");
    browser.keys("q");
    browser.wait("document.activeElement.id === 'key'");
    assert_eq!(browser.value("return sessionStorage.length"), 0);

    let asked = browser.requests();
    assert!(asked.len() > 20, "{asked:?}");
    let foreign: Vec<&String> = asked.iter().filter(|url| !url.starts_with(&format!("{}/", desk.origin))).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let complaints = browser.complaints();
    let unexpected: Vec<&String> =
        complaints.iter().filter(|one| !(one.contains("status of 401") || one.contains("status of 409"))).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert!(!daemon.log().contains("printer") && !daemon.log().contains("pwned"), "no text in the log");
    assert!(daemon.stop(PATIENCE).success() && forecasts.stop(PATIENCE).success());
}

/// Nothing of a ticket ran or became markup; on each screen and in each scheme all can be read, and nothing lies beside
/// the screen.
#[track_caller]
fn looks_right(browser: &Browser, name: &str) {
    for (scheme, screen, phone) in
        [("dark", PHONE, true), ("light", PHONE, true), ("dark", DESKTOP, false), ("light", DESKTOP, false)]
    {
        browser.prefer(scheme);
        browser.screen(screen, phone);
        browser.wait(&format!("innerWidth === {}", screen.0));
        browser.picture(&format!("{name}-{scheme}-{}", screen.0));
        assert_eq!(browser.unreadable(), (json!([]), json!(0)), "{name}, {scheme}, {screen:?}");
    }
    assert!(!browser.has_dialog(), "{name}: a dialog");
    assert_eq!(browser.refused(), json!([]), "{name}: the policy refused something, or there was an error");
    let found = browser.value(
        "return [typeof window.pwned, document.scripts.length, document.querySelectorAll('img, style, iframe, a, svg *:not(rect, text, polygon, polyline)').length]",
    );
    assert_eq!(found, json!(["undefined", 1, 0]), "{name}: what runs, scripts, markup of the ticket's");
}

/// The whole loop: a ticket that the model is not sure of, the page, a person's corrections, training, promotion, and the
/// same ticket again.
#[test]
fn an_unsure_ticket_is_sure_after_a_person_has_corrected_its_like() {
    const CORRECTIONS: usize = 40;
    let desk = Desk::new();
    let setup = desk
        .setup()
        .with("rules.files", "[]")
        .with("model.log", "''")
        .with("model.registry", &format!("'{}'", desk.path("registry")))
        .with("model.ticket", "'registry:desk'")
        .with("reload.watch", "'200ms'");
    let config = desk.path("my.toml");
    setup.write(Path::new(&config));
    let run = |arguments: &[&str]| {
        let output = triaged(&[arguments, &["--config", &config]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let mut random = StdRng::seed_from_u64(21);
    let rows = (0..240).map(|row| {
        let (label, text) = TOPICS[row % 3];
        json!({"id": row, "text": fill(text, &mut random), "label": label}).to_string()
    });
    let base = desk.path("base.jsonl");
    std::fs::write(&base, rows.collect::<Vec<_>>().join("\n")).expect("written");
    let train = || -> Value {
        let fast = ["--time-budget", "0", "--folds", "3", "--json"];
        let arguments = ["train", "--kind", "ticket", "--data", &base, "--from-feedback", "--name", "desk"];
        serde_json::from_str(&run(&[&arguments[..], &fast].concat())).expect("JSON")
    };
    run(&["migrate"]);
    assert_eq!(train()["promoted"], true, "the first version");
    let mut daemon = Daemon::start_roles("classify,tally", &setup.toml());
    daemon.wait_ready();

    // Tokens belong to the accounts, which the rows know nothing of.
    let text = |number: usize| TOKEN.replacen("{}", "kappa", 1).replacen("{}", &number.to_string(), 1);
    let tickets: Vec<Value> =
        (0..CORRECTIONS).map(|number| json!({"ticket_id": format!("T-{number}"), "title": text(number)})).collect();
    desk.send(&tickets);
    let mut events = desk.broker.reader("queue-events", Isolation::ReadUncommitted);
    let unsure: Vec<Value> = events.wait_for(CORRECTIONS, PATIENCE).iter().map(|event| event.json()).collect();
    assert!(unsure.iter().all(|event| event["routing"] != "auto_route" && event["queue"] != "accounts"), "{unsure:#?}");
    wait_until("the tickets are counted", PATIENCE, || desk.counted() == CORRECTIONS);

    let browser = desk.browser();
    for _ in 0..CORRECTIONS {
        browser.wait(SHOWN);
        let shown = browser.text("text");
        browser.keys(&format!("/acc{ENTER}"));
        browser.wait(&format!("document.getElementById('text').textContent !== {}", json!(shown)));
    }
    browser.wait("document.getElementById('state').textContent.startsWith('nothing is waiting')");
    wait_until("the corrections are in the store", PATIENCE, || {
        desk.clickhouse.query("SELECT count() FROM feedback FINAL WHERE corrected_queue = 'accounts'")
            == CORRECTIONS.to_string()
    });
    let outcome = train();
    assert_eq!((&outcome["promoted"], &outcome["version"]), (&json!(true), &json!("0002")), "{outcome:#}");

    wait_until("the daemon takes the promoted version up", PATIENCE, || {
        daemon.metric("triaged_reloads_total", &["result=\"changed\""]) > 0.0
    });
    desk.send(&tickets[..1]);
    let again = events.wait_for(CORRECTIONS + 1, PATIENCE)[CORRECTIONS].json();
    assert_eq!((&again["ticket_id"], &again["text"]), (&unsure[0]["ticket_id"], &unsure[0]["text"]));
    assert_eq!((&again["queue"], &again["routing"]), (&json!("accounts"), &json!("auto_route")), "{again:#}");
    assert_ne!(again["model"], unsure[0]["model"]);
    assert!(daemon.stop(PATIENCE).success());
}
