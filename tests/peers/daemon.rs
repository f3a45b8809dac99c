//! The `triaged` binary in a process of its own, with a configuration file of the test's making, and its HTTP side.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{free_port, signal, tail, wait_until};

const READY: Duration = Duration::from_secs(60);
const HTTP: Duration = Duration::from_secs(5);

pub(crate) struct Daemon {
    child: Child,
    files: tempfile::TempDir,
    port: u16,
    /// What `[ops]` and `[log]` were completed to, so that `restart` starts the same.
    config: PathBuf,
    roles: String,
}

impl Daemon {
    /// Starts the classify role with `config`, to which a free HTTP port is added. It may not be ready yet.
    pub(crate) fn start(config: &str) -> Daemon {
        Daemon::start_roles("classify", config)
    }

    /// Starts `triaged run` with these roles, separated by commas.
    pub(crate) fn start_roles(roles: &str, config: &str) -> Daemon {
        let files = tempfile::tempdir().expect("the system has a temporary folder");
        let port = free_port();
        let path = files.path().join("triaged.toml");
        fs::write(&path, format!("{config}\n[ops]\nlisten = \"127.0.0.1:{port}\"\n")).expect("it can be written");
        let child = spawn(&path, roles, &files.path().join("log"), false);
        Daemon { child, files, port, config: path, roles: roles.to_owned() }
    }

    /// Starts it and waits until it reports that it is ready.
    pub(crate) fn start_ready(config: &str) -> Daemon {
        let mut daemon = Daemon::start(config);
        daemon.wait_ready();
        daemon
    }

    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        wait_until("the daemon is ready", READY, || {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                panic!("the daemon ended with {status}:\n{}", self.log_tail());
            }
            self.ready()
        });
    }

    /// Whether `/health/ready` answers 200 now.
    pub(crate) fn ready(&self) -> bool {
        self.get("/health/ready").is_some_and(|(status, _)| status == 200)
    }

    /// Status and body of a GET; `None` when nothing answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(HTTP)).http_status_as_error(false).build().into();
        let mut response = agent.get(format!("http://127.0.0.1:{}{path}", self.port)).call().ok()?;
        let body = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), body))
    }

    /// The sum of a metric's samples whose labels contain all of `labels`, each written `name="value"`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let Some((200, body)) = self.get("/metrics") else { return 0.0 };
        let sample = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with(['{', ' ']) || !labels.iter().all(|label| rest.contains(label)) {
                return None;
            }
            rest.rsplit(' ').next()?.parse().ok()
        };
        body.lines().filter_map(sample).sum()
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// Starts it again with the same configuration. It must have ended.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.try_wait().expect("the child is ours").is_some(), "the daemon still runs");
        self.child = spawn(&self.config, &self.roles, &self.files.path().join("log"), true);
    }

    /// Writes its configuration file anew, as an editor does: another file is moved into its place.
    pub(crate) fn write_config(&self, config: &str) {
        let fresh = self.config.with_extension("new");
        let text = format!("{config}\n[ops]\nlisten = \"127.0.0.1:{}\"\n", self.port);
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.config)).expect("it can be written");
    }

    /// Asks it to take up its configuration anew.
    pub(crate) fn hang_up(&self) {
        signal(self.child.id(), "HUP");
    }

    /// Where its HTTP side listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Holds all its threads still, as a stopped virtual machine would.
    pub(crate) fn pause(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on after `pause`.
    pub(crate) fn resume(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Asks it to stop and waits until it has ended.
    #[track_caller]
    pub(crate) fn stop(&mut self, deadline: Duration) -> ExitStatus {
        self.terminate();
        self.wait(deadline)
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        signal(self.child.id(), "TERM");
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(Instant::now() < end, "the daemon still runs after {deadline:?}");
            thread::sleep(super::POLL);
        }
    }

    /// All that it has written to its log so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.files.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        tail(&self.files.path().join("log"), 40)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            eprintln!("--- the daemon's log ends with\n{}\n---", self.log_tail());
        }
    }
}

fn spawn(config: &std::path::Path, roles: &str, log: &std::path::Path, append: bool) -> Child {
    let log = File::options().create(true).write(true).append(append).open(log).expect("the log can be written");
    command()
        .args(["run", "--role", roles, "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file handle can be copied"))
        .stderr(log)
        .spawn()
        .expect("the daemon's binary starts")
}

/// Runs `triaged` with arguments to its end.
pub(crate) fn triaged(args: &[&str]) -> Output {
    triaged_with(args, &[])
}

/// Runs `triaged` with arguments and variables to its end.
pub(crate) fn triaged_with(args: &[&str], variables: &[(String, String)]) -> Output {
    let variables = variables.iter().map(|(name, value)| (name, value));
    command().args(args).envs(variables).stdin(Stdio::null()).output().expect("the daemon's binary starts")
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triaged"));
    // Settings of the one who runs the tests must not reach the daemon under test.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRIAGED_") {
            command.env_remove(name);
        }
    }
    command
}
