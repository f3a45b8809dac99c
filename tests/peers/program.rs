//! Any other program in a process of its own, with a folder and a log that live as long as the value; and Prometheus,
//! which is one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{fetch, free_port, tail, wait_until};

const START: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(30);

pub(crate) struct Program {
    name: String,
    files: tempfile::TempDir,
    child: Option<Child>,
}

impl Program {
    /// A folder for the program's files; nothing runs yet.
    pub(crate) fn new(name: &str) -> Program {
        let files = tempfile::tempdir().expect("the system has a temporary folder");
        Program { name: name.to_owned(), files, child: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.files.path()
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("the folder can be written");
        path
    }

    pub(crate) fn start(&mut self, command: &mut Command) {
        let log = File::create(self.log()).expect("the folder can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        self.child = Some(child);
    }

    /// Waits until `condition` holds; panics when the program ends before.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let log = self.log();
        wait_until(&format!("{}: {what}", self.name), START, || {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("the child is ours") {
                panic!("{} ended with {status}:\n{}", self.name, tail(&log, 20));
            }
            condition()
        });
    }

    fn log(&self) -> PathBuf {
        self.folder().join("program.log")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if thread::panicking() {
            eprintln!("--- the log of {} ends with\n{}\n---", self.name, tail(&self.log(), 20));
        }
    }
}

/// A Prometheus that scrapes every second, with rule files of the test's choice.
pub(crate) struct Prometheus {
    program: Program,
    port: u16,
    client: ureq::Agent,
}

impl Prometheus {
    /// `targets`: `host:port` of what is scraped under the job name `triaged`.
    pub(crate) fn start(targets: &[String], rules: &[PathBuf]) -> Prometheus {
        let mut program = Program::new("Prometheus");
        let port = free_port();
        let scrape = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [{"job_name": "triaged", "static_configs": [{"targets": targets}]}],
        });
        // JSON is YAML.
        let config = program.write("prometheus.yml", &scrape.to_string());
        let data = program.folder().join("data");
        program.start(
            Command::new(fetch::prometheus())
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        );
        let client = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST)).build();
        let client: ureq::Agent = client.into();
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        program.wait_until("it is ready", || client.get(&ready).call().is_ok_and(|answer| answer.status() == 200));
        Prometheus { program, port, client }
    }

    /// The series that an expression gives now. Panics with Prometheus' own words when it is no expression.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let mut response =
            self.client.get(self.url("query")).query("query", expression).call().expect("Prometheus answers");
        let answer: Value = response.body_mut().read_json().expect("the answer is JSON");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().expect("a vector").clone()
    }

    /// All rules with their state, as `/api/v1/rules` tells.
    pub(crate) fn rules(&self) -> Vec<Value> {
        let mut response = self.client.get(self.url("rules")).call().expect("Prometheus answers");
        let answer: Value = response.body_mut().read_json().expect("the answer is JSON");
        let groups = answer["data"]["groups"].as_array().expect("groups").iter();
        groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }

    fn url(&self, method: &str) -> String {
        format!("http://127.0.0.1:{}/api/v1/{method}", self.port)
    }
}
