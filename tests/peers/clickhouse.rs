//! A ClickHouse server in a process of its own, on a free port, with data that live as long as the value: ClickHouse's
//! engine behind an HTTP front (`clickhouse.py`) that also fails on demand. Inserts are on disk once acknowledged.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{fetch, free_port, signal, tail, wait_until};

const FRONT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/clickhouse.py");
/// The engine is a library of several hundred megabytes, which may have to come from the disk first.
const START: Duration = Duration::from_secs(60);
/// Longer than the front waits for statements that still run.
const STOP: Duration = Duration::from_secs(15);
const REQUEST: Duration = Duration::from_secs(60);

pub(crate) struct ClickHouse {
    port: u16,
    /// The only user who is let in, with the password; without it everyone is.
    user: Option<(String, String)>,
    cluster: Option<String>,
    files: tempfile::TempDir,
    client: ureq::Agent,
    child: Option<Child>,
}

impl ClickHouse {
    pub(crate) fn start() -> ClickHouse {
        ClickHouse::launch(None, None)
    }

    /// A server that lets only this user in.
    pub(crate) fn start_for(user: &str, password: &str) -> ClickHouse {
        ClickHouse::launch(Some((user.to_owned(), password.to_owned())), None)
    }

    /// The only node of a cluster. Distributed tables work; without a Keeper, `ON CLUSTER` and `Replicated` are taken
    /// out of what is asked.
    pub(crate) fn start_cluster(name: &str) -> ClickHouse {
        ClickHouse::launch(None, Some(name.to_owned()))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs one statement; its rows as TabSeparated text, without the last line's end. Panics with what the server
    /// says when it fails.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> String {
        let mut request = self.client.post(self.url());
        if let Some((user, password)) = &self.user {
            request = request.header("X-ClickHouse-User", user).header("X-ClickHouse-Key", password);
        }
        let mut response = request.send(sql).expect("the server answers");
        let text = response.body_mut().read_to_string().expect("the answer is text");
        assert_eq!(response.status(), 200, "{sql}: {text}");
        text.trim_end_matches('\n').to_owned()
    }

    /// Makes statements fail from now on, in the place of what was set before. `clickhouse.py` lists the kinds:
    /// `json!([{"match": "INSERT INTO queue_events", "kind": "error", "code": 252, "times": 2}])`.
    #[track_caller]
    pub(crate) fn faults(&self, faults: Value) {
        let mut response =
            self.client.post(self.control()).send_json(json!({ "faults": faults })).expect("the server answers");
        let text = response.body_mut().read_to_string().expect("the answer is text");
        assert_eq!(response.status(), 200, "{text}");
    }

    #[track_caller]
    pub(crate) fn clear_faults(&self) {
        self.faults(json!([]));
    }

    /// What has been asked since the start: `queries`, `inserts`, `written_rows` (with those that materialized views
    /// made), `bytes`, `errors`; under `tables` the same for each table that was inserted into, and the `settings` of
    /// the last insert; and the `faults`, each with how often it was `used`.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        let mut response = self.client.get(self.control()).call().expect("the server answers");
        response.body_mut().read_json().expect("the report is JSON")
    }

    /// Stops the server in order; its data stay, its faults and counts do not.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), "TERM");
        wait_until("ClickHouse stops", STOP, || child.try_wait().expect("the child is ours").is_some());
    }

    /// Starts it again on the same port and data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.spawn();
    }

    fn launch(user: Option<(String, String)>, cluster: Option<String>) -> ClickHouse {
        let files = tempfile::tempdir().expect("the system has a temporary folder");
        let client =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST)).build().into();
        let mut server = ClickHouse { port: free_port(), user, cluster, files, client, child: None };
        server.spawn();
        server
    }

    fn spawn(&mut self) {
        let library = fetch::clickhouse_library();
        let log = File::create(self.log()).expect("the data folder can be written");
        let mut command = Command::new("python3");
        command.arg(FRONT).args(["--port", &self.port.to_string()]).arg("--data").arg(self.files.path().join("data"));
        if let Some((user, password)) = &self.user {
            command.args(["--user", user, "--password", password]);
        }
        if let Some(name) = &self.cluster {
            command.args(["--cluster", name]);
        }
        let child = command
            .env("PYTHONPATH", library)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("tests need python3 to run ClickHouse's engine");
        self.child = Some(child);
        let ping = format!("{}/ping", self.url());
        wait_until("ClickHouse answers", START, || {
            let child = self.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait().expect("the child is ours") {
                panic!("ClickHouse ended with {status}:\n{}", tail(&self.log(), 20));
            }
            self.client.get(&ping).call().is_ok_and(|response| response.status() == 200)
        });
    }

    fn control(&self) -> String {
        format!("{}/control", self.url())
    }

    fn log(&self) -> PathBuf {
        self.files.path().join("log")
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        // No waiting for an orderly stop: the data go with the value.
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if thread::panicking() {
            eprintln!("--- ClickHouse's log ends with\n{}\n---", tail(&self.log(), 20));
        }
    }
}
