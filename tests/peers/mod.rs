//! Programs outside this one that tests and the end-to-end bench run against: a Kafka broker and a ClickHouse server as
//! processes of their own (`broker`, `clickhouse`), other programs likewise (`program`), all fetched by `fetch`; the daemon
//! as a process of its own (`daemon`); Chromium without a window (`browser`); and what they need to talk to a cluster
//! (`client`). Whatever is started here is stopped when its value is dropped, also when a test panics.

#![allow(dead_code, reason = "the tests and the end-to-end bench each use a part of it")]

pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod clickhouse;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod fetch;
pub(crate) mod mock;
pub(crate) mod openai;
pub(crate) mod program;
pub(crate) mod receiver;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at while a test waits for it.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; panics with `what` when it does not within `deadline`.
#[track_caller]
pub(crate) fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "gave up after {deadline:?} waiting until {what}");
        thread::sleep(POLL);
    }
}

/// A port that nothing listens on.
///
/// Below the range from which the system takes ports for outgoing connections: a client that keeps dialling a broker
/// that is down would else one day be given the broker's own port and connect to itself.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side start at different places.
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// `target/peers`, where fetched programs are kept between runs.
fn peers_dir() -> PathBuf {
    let tmp = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("cargo puts tmp below target").join("peers")
}

/// Sends a signal by name, such as `TERM`, to a child that this process has not yet waited for.
fn signal(pid: u32, name: &str) {
    // The shell's own kill: a bare container has no /bin/kill.
    let status =
        std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("sh starts");
    assert!(status.success(), "kill -{name} {pid}: {status}");
}

/// The last lines of a process's output, for the message of a test that failed.
fn tail(path: &std::path::Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
