//! The training loop as a user runs it: feedback in ClickHouse, `triaged train --from-feedback`, `triaged model`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use triaged::config::DeviceKind;
use triaged::model::{FastModel, Registry, Scratch};
use triaged::record::{Kind, Record, Ticket, new_id};

use crate::feedback::{block_on, feedback_row, store};
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::Isolation;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::wait_until;
use crate::setup::Setup;

const PATIENCE: Duration = Duration::from_secs(120);

const HOSTS: [&str; 8] = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "lambda"];
pub(crate) const TOPICS: [(&str, &str); 3] = [
    ("network", "the switch in rack {} drops packets on port {}"),
    ("storage", "the disk of server {} is full at {} percent"),
    ("accounts", "please reset the password of user {} with number {}"),
];
/// What the base rows know nothing of: tokens belong to the accounts, whatever the words suggest.
pub(crate) const TOKEN: &str = "the token of server {} shows full packets on port {}";

struct Lab {
    files: tempfile::TempDir,
    clickhouse: ClickHouse,
}

impl Lab {
    /// Base rows, and a model of them in the configuration.
    fn new() -> Lab {
        let lab = Lab { files: tempfile::tempdir().expect("a temporary folder"), clickhouse: ClickHouse::start() };
        let mut random = StdRng::seed_from_u64(11);
        let rows: Vec<String> = (0..240)
            .map(|row| {
                let (label, text) = TOPICS[row % 3];
                json!({"id": row, "text": fill(text, &mut random), "label": label}).to_string()
            })
            .collect();
        fs::write(lab.path("base.jsonl"), rows.join("\n")).expect("written");
        lab.run(&["train", "--kind", "ticket", "--out", &lab.path("first"), "--time-budget", "0", "--folds", "3"]);
        let setup = Setup::new("localhost:1", "at_least_once")
            .with("clickhouse.url", &format!("'{}'", lab.clickhouse.url()))
            .with("clickhouse.events_retention", "'0s'")
            .with("model.ticket", &format!("'{}'", lab.path("first")))
            .with("model.registry", &format!("'{}'", lab.path("registry")))
            .with("model.log", "''");
        setup.write(Path::new(&lab.path("my.toml")));
        lab
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().expect("a plain path").to_owned()
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let data = self.path("base.jsonl");
        let data = if arguments[0] == "train" { &["--data", data.as_str()][..] } else { &[] };
        let output = triaged(&[arguments, data].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn retrain(&self, more: &[&str]) -> Value {
        let config = self.path("my.toml");
        let arguments = [
            "train",
            "--json",
            "--config",
            &config,
            "--kind",
            "ticket",
            "--from-feedback",
            "--since",
            "3650d",
            "--name",
            "desk",
            "--time-budget",
            "0",
            "--folds",
            "3",
        ];
        serde_json::from_str(&self.run(&[&arguments[..], more].concat())).expect("JSON")
    }

    fn say(&self, said: &[Value]) {
        let rows: Vec<_> = said.iter().enumerate().map(|(offset, said)| feedback_row(said, offset as i64)).collect();
        block_on(store(&self.clickhouse).insert_feedback(&rows)).expect("the store takes them");
    }

    fn current(&self) -> FastModel {
        let folder = Registry::new(Path::new(&self.path("registry"))).current_folder("desk").expect("one is promoted");
        FastModel::load(folder.to_str().expect("a plain path"), DeviceKind::Flex).expect("a package")
    }
}

pub(crate) fn fill(text: &str, random: &mut StdRng) -> String {
    let host = HOSTS[random.random_range(0..HOSTS.len())];
    text.replacen("{}", host, 1).replacen("{}", &random.random_range(1..999).to_string(), 1)
}

fn correction(text: &str, queue: &str) -> Value {
    json!({"event_id": new_id(), "kind": "ticket", "predicted_queue": "storage", "corrected_queue": queue, "text": text})
}

fn label_of(model: &FastModel, text: &str) -> String {
    let record = Record::Ticket(Ticket {
        ticket_id: None,
        text: text.to_owned().into(),
        title_len: 0,
        email_address: None,
        priority: None,
        source: None,
        occurred_at: 0,
    });
    model.labels()[model.classify(&record, &mut Scratch::new()).label].to_string()
}

#[test]
fn a_wrong_ticket_is_right_after_it_was_corrected() {
    let lab = Lab::new();
    let mut random = StdRng::seed_from_u64(12);
    let unseen = "the token of server kappa shows full packets on port 7";
    let first = FastModel::load(&lab.path("first"), DeviceKind::Flex).expect("a package");
    assert_ne!(label_of(&first, unseen), "accounts");
    let mut said: Vec<Value> = (0..60).map(|_| correction(&fill(TOKEN, &mut random), "accounts")).collect();
    // Feedback that teaches nothing is told, not learned.
    said.push(json!({"event_id": new_id(), "kind": "ticket", "correct": false, "text": "something else"}));
    said.push(json!({"event_id": new_id(), "kind": "ticket", "corrected_queue": "accounts"}));
    lab.say(&said);
    let outcome = lab.retrain(&[]);
    assert_eq!((&outcome["promoted"], &outcome["version"]), (&json!(true), &json!("0001")), "{outcome:#}");
    assert_eq!((&outcome["unusable"]["without_queue"], &outcome["unusable"]["without_text"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&outcome["corrections_right_before"], &outcome["corrections_right_after"]),
        (&json!(0), &outcome["corrections"])
    );
    assert_eq!(outcome["comparison"]["ruling"], "not_worse");
    let model = lab.current();
    assert_eq!(label_of(&model, unseen), "accounts");
    assert_eq!(label_of(&model, "the disk of server omega is full at 91 percent"), "storage");

    let config = lab.path("my.toml");
    let again = lab.retrain(&[]);
    assert_eq!((&again["champion"], &again["promoted"]), (&json!(model.id().to_owned()), &json!(true)));
    lab.run(&["model", "rollback", "desk", "--config", &config]);
    let versions: Value =
        serde_json::from_str(&lab.run(&["model", "list", "--json", "--config", &config])).expect("JSON");
    let current: Vec<bool> = versions.as_array().expect("a list").iter().map(|one| one["is_current"] == true).collect();
    assert_eq!(current, [true, false]);
}

#[test]
fn a_worse_model_is_not_promoted_unless_it_is_told_to() {
    let lab = Lab::new();
    let mut random = StdRng::seed_from_u64(13);
    // Somebody spreads one queue's tickets over ten others that nothing tells apart.
    let said: Vec<Value> =
        (0..100).map(|number| correction(&fill(TOPICS[1].1, &mut random), &format!("team-{}", number % 10))).collect();
    lab.say(&said);
    let outcome = lab.retrain(&[]);
    assert_eq!(outcome["promoted"], false, "{outcome:#}");
    assert_ne!(outcome["comparison"]["ruling"], "not_worse");
    let registry = Registry::new(Path::new(&lab.path("registry")));
    assert_eq!(registry.current("desk").expect("readable"), None);
    let forced = lab.retrain(&["--promote"]);
    assert_eq!((&forced["promoted"], &forced["version"]), (&json!(true), &json!("0002")));
    assert_eq!(registry.current("desk").expect("readable").as_deref(), Some("0002"));
}

#[test]
fn on_a_schedule_one_instance_trains_and_a_running_daemon_takes_the_version_up() {
    let lab = Lab::new();
    let broker = Broker::start();
    for topic in ["tickets", "logs", "queue-events", "dead-letters", "forecasts", "anomalies"] {
        broker.create_topic(topic, 2);
    }
    let registry = Registry::new(Path::new(&lab.path("registry")));
    fs::create_dir_all(registry.folder("desk", "0001")).expect("made");
    for file in ["manifest.json", "weights.safetensors"] {
        fs::copy(Path::new(&lab.path("first")).join(file), registry.folder("desk", "0001").join(file)).expect("copied");
    }
    registry.promote("desk", "0001").expect("promoted");
    let mut random = StdRng::seed_from_u64(14);
    let said: Vec<Value> = (0..60).map(|_| correction(&fill(TOKEN, &mut random), "accounts")).collect();
    lab.say(&said);
    // The last training was two days ago.
    let store = store(&lab.clickhouse);
    let now = u32::try_from(chrono::Utc::now().timestamp()).expect("this century");
    block_on(store.training_done(Kind::Ticket, now - 2 * 86_400)).expect("the store takes it");

    let setup = Setup::new(&broker.bootstrap(), "at_least_once")
        .with("clickhouse.url", &format!("'{}'", lab.clickhouse.url()))
        .with("clickhouse.events_retention", "'0s'")
        .with("output.escalate", "false")
        .with("rules.files", "[]")
        .with("model.registry", &format!("'{}'", lab.path("registry")))
        .with("model.ticket", "'registry:desk'")
        .with("model.log", "''")
        .with("reload.watch", "'100ms'")
        .with("retrain.schedule", "'daily 00:00'")
        .with("retrain.ticket", &format!("'{}'", lab.path("base.jsonl")))
        .with("retrain.since", "'3650d'")
        .with("retrain.time_budget", "'0s'");
    let mut one = Daemon::start_roles("classify,forecast", &setup.clone().instance("one").toml());
    let mut two = Daemon::start_roles("forecast", &setup.instance("two").toml());
    one.wait_ready();
    two.wait_ready();
    let is_done =
        || block_on(store.last_training(Kind::Ticket)).expect("the store answers").is_some_and(|at| at > now - 86_400);
    wait_until("the training is done and noted", PATIENCE, is_done);
    let versions = registry.versions("desk").expect("readable");
    let current: Vec<bool> = versions.iter().map(|version| version.is_current).collect();
    assert_eq!(current, [false, true], "one version, and it is in use");
    let trained = lab.current();
    let id = format!("id=\"{}\"", trained.id());
    wait_until("the daemon has taken it up", PATIENCE, || one.metric("triaged_model_info", &[&id]) == 1.0);
    let ticket = json!({"title": "help", "content": "the token of server kappa shows full packets on port 7"});
    broker.produce("tickets", [("T-1", ticket.to_string())]);
    let event = broker.reader("queue-events", Isolation::ReadUncommitted).wait_for(1, PATIENCE)[0].json();
    assert_eq!((&event["queue"], &event["model"]), (&json!("accounts"), &json!(trained.id())));
    let promoted = |daemon: &Daemon| daemon.metric("triaged_trainings_total", &["result=\"promoted\""]);
    assert_eq!(promoted(&one) + promoted(&two), 1.0);
    assert!(one.stop(PATIENCE).success() && two.stop(PATIENCE).success());
}
