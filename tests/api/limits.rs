//! Rates, sizes and time: what a caller cannot do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::server::Api;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let (api, [read, write, _]) = Api::with_keys("api.key_rate = 1\napi.key_burst = 3\n");
    let statuses: Vec<u16> = (0..4).map(|_| api.get_as(&read, "/v1/models").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    let refused = api.get_as(&read, "/v1/models");
    refused.problem(429, "too_many_requests");
    let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert_eq!(api.get_as(&write, "/v1/models").status, 200, "another key has a rate of its own");

    let api = Api::start("api.address_rate = 1\napi.address_burst = 2\n");
    let statuses: Vec<u16> = (0..3).map(|_| api.get("/v1/nothing").status).collect();
    assert_eq!(statuses, [404, 404, 429], "also without a key and for what is not there");
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let api = Api::start("api.max_body = \"1KiB\"\napi.max_upload = \"64KiB\"\n");
    let large = format!("\"{}\"", "x".repeat(2000));
    api.post("/v1/classify?kind=log", "application/json", &large).problem(413, "body_too_large");
    let upload = "a line\n".repeat(20_000);
    api.post("/v1/classify?kind=log", "application/x-ndjson", &upload).problem(413, "body_too_large");
    let many = format!("[{}1]", "1,".repeat(10_000));
    let api = Api::start("");
    api.post("/v1/classify?kind=log", "application/json", &many).problem(413, "too_many_records");
}

/// Sends the head of a request and a part of its body, and returns what is answered until the connection ends.
fn talk(api: &Api, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
    stream.write_all(format!("{head}\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).expect("it is sent");
    stream.write_all(body).expect("it is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it is answered");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_client_that_sends_slowly_is_not_waited_for() {
    let api = Api::start("api.request_timeout = \"1s\"\n");
    let started = Instant::now();
    let head = "POST /v1/classify?kind=log HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 100";
    let answer = talk(&api, head, b"\"half a li");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_too_slow"), "{answer}");
    assert!(started.elapsed() < PATIENCE / 2);

    let head = "POST /v1/classify?kind=log HTTP/1.1\r\ncontent-type: application/x-ndjson\r\ncontent-length: 100";
    let answer = talk(&api, head, b"a whole line\nand half a li");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("body_too_slow"), "{answer}");
    assert!(answer.contains("\"line\":1,\"kind\":\"log\""), "what was whole is answered: {answer}");
}

#[test]
fn a_client_that_does_not_finish_its_header_is_cut_off() {
    let api = Api::start("");
    let mut slow = TcpStream::connect(api.address).expect("it listens");
    slow.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
    slow.write_all(b"GET /v1/models HT").expect("it is sent");
    let started = Instant::now();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).expect("the connection ends");
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    let api = Api::start("");
    // More than there may be uploads at a time, each broken off.
    for _ in 0..100 {
        let mut stream = TcpStream::connect(api.address).expect("it listens");
        stream
            .write_all(
                b"POST /v1/classify?kind=log HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
                  content-length: 1000\r\n\r\na line\n",
            )
            .expect("it is sent");
        stream.shutdown(Shutdown::Both).expect("it can go");
    }
    crate::peers::wait_until("uploads are taken again", PATIENCE, || {
        api.post("/v1/classify?kind=log", "application/x-ndjson", "a line\n").status == 200
    });
}

#[test]
fn requests_are_counted_by_the_pattern_of_their_path() {
    let api = Api::start("");
    api.get("/v1/events/00000000-0000-5000-8000-000000000000");
    api.get("/v1/whatever-somebody-thinks-of");
    let text = api.metrics.encode();
    for sample in [
        r#"triaged_http_requests_total{method="GET",route="/v1/events/{id}",status="404"} 1"#,
        r#"triaged_http_requests_total{method="GET",route="none",status="404"} 1"#,
    ] {
        assert!(text.contains(sample), "{sample} is missing in\n{text}");
    }
    assert!(text.contains("triaged_http_request_duration_seconds_count{"), "{text}");
}
