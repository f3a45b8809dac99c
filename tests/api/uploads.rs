//! Lines and CSV that are worked through while they come.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::server::Api;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn each_line_of_an_upload_has_a_line_in_the_answer() {
    let api = Api::start("");
    let lines = "Failed password for root from 203.0.113.7\n\n{\"nothing\": 1}\n{\"message\": \"disk full\"}";
    let answer = api.post("/v1/classify?kind=log", "application/x-ndjson", lines);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let decisions: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let numbers: Vec<&Value> = decisions.iter().map(|decision| &decision["line"]).collect();
    assert_eq!(numbers, [1, 3, 4]);
    assert_eq!(decisions[0]["indicators"]["ips"][0], "203.0.113.7");
    assert_eq!((&decisions[1]["error"]["reason"], &decisions[2]["kind"]), (&"missing_text".into(), &"log".into()));
}

#[test]
fn csv_in_gives_csv_out() {
    let api = Api::start("");
    let csv = "ticket_id,title,content\nT-1,VPN,\"I cannot\nlog in\"\nT-2,,\n";
    let answer = api.post("/v1/classify?topic=tickets", "text/csv; charset=utf-8", csv);
    assert!(answer.header("content-type").starts_with("text/csv"), "{answer:?}");
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.len(), 3, "{answer:?}");
    assert_eq!(
        lines[0],
        "line,kind,ticket_id,queue,category,priority,confidence,routing,decided_by,action,reason,error"
    );
    assert!(lines[1].starts_with("2,ticket,T-1,") && lines[2].starts_with("4,,,"), "{answer:?}");
    assert!(lines[2].contains("missing_text"), "{answer:?}");
}

/// The answer to a line is there before the next one is sent: nothing is collected.
#[test]
fn answers_come_while_the_upload_is_still_under_way() {
    let api = Api::start("");
    let mut stream = TcpStream::connect(api.address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
    stream
        .write_all(
            b"POST /v1/classify?kind=log HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
              transfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        )
        .expect("it is sent");
    let mut answers = BufReader::new(stream.try_clone().expect("a handle can be copied"));
    let mut send =
        |text: &str| stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).expect("it is sent");
    for number in 1..=3 {
        send(&format!("line number {number}\n"));
        let wanted = format!("\"line\":{number},");
        let mut line = String::new();
        while !line.contains(&wanted) {
            line.clear();
            assert!(answers.read_line(&mut line).expect("it is answered") > 0, "the answer ended early");
        }
    }
    stream.write_all(b"0\r\n\r\n").expect("it is sent");
    let mut rest = String::new();
    answers.read_to_string(&mut rest).expect("the answer ends");
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
}

/// Some megabytes, in two directions at a time, with memory that does not grow with them.
#[test]
fn a_long_upload_is_answered_whole() {
    const LINES: usize = 40_000;
    let api = Api::start("");
    let mut stream = TcpStream::connect(api.address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
    let mut sender = stream.try_clone().expect("a handle can be copied");
    let writer = std::thread::spawn(move || {
        let line = |number: usize| {
            format!("{{\"message\": \"request {number} took {} ms on node-{}\"}}\n", number * 7, number % 9)
        };
        let body: String = (0..LINES).map(line).collect();
        let head = format!(
            "POST /v1/classify?kind=log HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        sender.write_all(head.as_bytes()).and_then(|()| sender.write_all(body.as_bytes())).expect("it is sent");
    });
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    writer.join().expect("it was sent");
    assert_eq!(answer.matches("{\"line\":").count(), LINES);
    assert!(answer.contains(&format!("{{\"line\":{LINES},")), "the last one is there");
}
