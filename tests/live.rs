//! A daemon that changes while it runs: its configuration, rules and models, by each of the ways to ask for it; and two
//! models that are compared on the stream.

mod arms;
mod models;
mod reload;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::peers::broker::Broker;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::{free_port, wait_until};
use crate::setup::Setup;

const PATIENCE: Duration = Duration::from_secs(120);

/// A broker, a folder for rules and models, and the API of the daemon under test.
struct World {
    broker: Broker,
    files: tempfile::TempDir,
    api: String,
    agent: ureq::Agent,
}

impl World {
    fn new(partitions: i32) -> World {
        let broker = Broker::start();
        for topic in ["tickets", "logs", "queue-events", "dead-letters"] {
            broker.create_topic(topic, partitions);
        }
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into();
        let files = tempfile::tempdir().expect("the system has a temporary folder");
        World { broker, files, api: format!("127.0.0.1:{}", free_port()), agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the file can be written");
    }

    /// Files are not watched unless a test says so.
    fn setup(&self) -> Setup {
        Setup::new(&self.broker.bootstrap(), "at_least_once")
            .with("api.listen", &format!("'{}'", self.api))
            .with("volumes.store", "'memory'")
            .with("output.escalate", "false")
            .with("reload.watch", "'0s'")
    }

    fn get(&self, path: &str) -> Value {
        let mut response = self.agent.get(format!("http://{}{path}", self.api)).call().expect("the API answers");
        response.body_mut().read_json().expect("JSON")
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.agent.post(format!("http://{}{path}", self.api)).header("content-type", "application/json");
        let mut response = request.send(body.to_string()).expect("the API answers");
        (response.status().as_u16(), response.body_mut().read_json().expect("JSON"))
    }

    #[track_caller]
    fn reload(&self) -> Value {
        let (status, answer) = self.post("/v1/reload", &json!({}));
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

/// The configuration's version, as the metrics state it.
fn version(daemon: &Daemon) -> String {
    label_of_one(daemon, "triaged_config_info{", "version")
}

/// A label of the only sample whose line begins so; there is none for an instant while it is exchanged.
fn label_of_one(daemon: &Daemon, start: &str, label: &str) -> String {
    let mut found = Vec::new();
    wait_until(&format!("there is one {start}"), PATIENCE, || {
        let (_, metrics) = daemon.get("/metrics").expect("the daemon answers");
        found = metrics.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect();
        found.len() == 1
    });
    let (_, rest) = found[0].split_once(&format!("{label}=\"")).expect("it has the label");
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// Trains a model of log lines that knows these labels; a word each gives them away.
fn train(folder: &Path, words: [(&str, &str); 2]) {
    let data = tempfile::NamedTempFile::with_suffix(".jsonl").expect("a temporary file");
    let rows: Vec<String> = (0..120)
        .map(|row| {
            let (word, label) = words[row % 2];
            json!({"id": row, "text": format!("{word} in unit {} of hall {}", row % 7, row % 5), "label": label})
                .to_string()
        })
        .collect();
    fs::write(data.path(), rows.join("\n")).expect("written");
    let (data, out) = (data.path().display().to_string(), folder.display().to_string());
    let arguments = ["train", "--kind", "log", "--data", &data, "--out", &out, "--time-budget", "0", "--folds", "3"];
    let output = triaged(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
