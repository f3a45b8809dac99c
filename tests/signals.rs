//! Signals end the process as they should. A process has its signals to itself, so each case runs in a child: this
//! test binary, called again for one ignored test.

use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::time::Duration;

use triaged::supervisor::{Supervisor, SupervisorError};

use crate::peers::signal;

const LONG: Duration = Duration::from_secs(300);

fn exit_code_of(child: &str) -> Option<i32> {
    let this = std::env::current_exe().expect("the test binary knows itself");
    let mut command = Command::new(this);
    command.args(["--exact", child, "--ignored", "--nocapture"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("the child starts").code()
}

/// Sends this process SIGTERM once the supervisor listens: on one thread a task first runs when `run` waits.
fn run_supervised(signals: usize, role: impl Future<Output = ()> + Send + 'static) -> Result<(), SupervisorError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut supervisor = Supervisor::new();
        let shutdown = supervisor.shutdown();
        supervisor.spawn_role("role", async move {
            for _ in 0..signals {
                signal(std::process::id(), "TERM");
                // Signals of one kind that wait together are one.
                shutdown.requested().await;
            }
            role.await;
            Ok::<_, Infallible>(())
        });
        supervisor.run(LONG).await
    })
}

#[test]
fn the_first_signal_drains() {
    assert_eq!(exit_code_of("signals::child_that_drains"), Some(0));
}

#[test]
fn the_second_signal_exits_at_once_with_the_shell_s_code() {
    assert_eq!(exit_code_of("signals::child_that_is_stuck"), Some(143));
}

#[test]
#[ignore = "a child of the_first_signal_drains"]
fn child_that_drains() {
    run_supervised(1, std::future::ready(())).expect("a drained stop is no error");
}

#[test]
#[ignore = "a child of the_second_signal_exits_at_once_with_the_shell_s_code"]
fn child_that_is_stuck() {
    run_supervised(2, std::future::pending()).expect("it never comes back");
}
