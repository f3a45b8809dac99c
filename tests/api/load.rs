//! Many callers at a time, against the daemon as a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::peers::daemon::Daemon;
use crate::peers::{free_port, wait_until};
use crate::setup::Setup;

const CLIENTS: usize = 1_000;
const REQUESTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);
/// What a thousand connections may add: buffers of both directions, and the blocks that the allocator keeps.
const MOST_GROWTH: f64 = 160e6;

/// One request over an open connection; status and length of the body.
fn classify(stream: &mut BufReader<TcpStream>, number: usize) -> std::io::Result<(u16, usize)> {
    let body = format!("[{{\"message\": \"request {number} failed on node-{}\"}}, \"disk full on /var\"]", number % 7);
    let head = format!(
        "POST /v1/classify?kind=log HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all((head + &body).as_bytes())?;
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if let Some(code) = line.strip_prefix("HTTP/1.1 ") {
            status = code[..3].parse().unwrap_or(0);
        }
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" || line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, length))
}

#[test]
fn a_thousand_callers_at_a_time_are_all_answered_and_memory_stays_bounded() {
    let port = free_port();
    // No broker: the API does not need one.
    let setup = Setup::new("127.0.0.1:1", "at_least_once")
        .with("api.listen", &format!("\"127.0.0.1:{port}\""))
        .with("api.key_rate", "0")
        .with("api.address_rate", "0")
        .with("log.filter", "'warn'");
    let daemon = Daemon::start_roles("classify", &setup.toml());
    wait_until("the API answers", PATIENCE, || {
        TcpStream::connect(("127.0.0.1", port))
            .is_ok_and(|stream| classify(&mut BufReader::new(stream), 0).is_ok_and(|(status, _)| status == 200))
    });
    let resident = || daemon.metric("process_resident_memory_bytes", &[]);
    let before = resident();
    let (ready, answered) = (Barrier::new(CLIENTS + 1), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (ready, answered) = (&ready, &answered);
            let call = move || {
                let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
                stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
                let mut stream = BufReader::new(stream);
                // All are connected before the first one asks.
                ready.wait();
                for request in 0..REQUESTS {
                    let (status, length) = classify(&mut stream, client * REQUESTS + request).expect("it is answered");
                    assert!(status == 200 && length > 100, "client {client}: {status}, {length} bytes");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, call).expect("a thread");
        }
        ready.wait();
    });
    assert_eq!(answered.into_inner(), CLIENTS * REQUESTS);
    let growth = resident() - before;
    assert!(before > 0.0 && growth < MOST_GROWTH, "from {before} bytes by {growth}");
    let counted = daemon.metric("triaged_http_requests_total", &["route=\"/v1/classify\"", "status=\"200\""]);
    assert!(counted >= (CLIENTS * REQUESTS) as f64, "{counted}");
}
