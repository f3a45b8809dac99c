//! What SIEM pipelines are told to do: rsyslog, syslog-ng and kcat, each with its file of config/siem, produce to the real
//! broker, and the daemon reads it as it was meant.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::deployment::path;
use crate::peers::broker::Broker;
use crate::peers::client::{Isolation, Read};
use crate::peers::program::Program;
use crate::peers::{fetch, free_port};
use crate::setup::Setup;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where the files of config/siem look for Kafka, which is where docker-compose.yml offers it.
const KAFKA: &str = "localhost:9094";

/// A line as a device sends it, and what is read of it.
struct Line {
    sent: &'static str,
    origin: &'static str,
    occurred_at: &'static str,
    text: &'static str,
}

const SSH: Line = Line {
    sent: "<38>1 2026-11-21T10:00:00Z web-1 sshd 4242 - - Failed password for root from 203.0.113.9 port 22 ssh2",
    origin: "sshd",
    occurred_at: "2026-11-21T10:00:00.000Z",
    text: "Failed password for root from 203.0.113.9 port 22 ssh2",
};
const UNICODE: Line = Line {
    sent: "<34>1 2026-11-21T10:00:01.500+01:00 db-1 postgres - - - disk failure on \"volume\" ünïcode",
    origin: "postgres",
    occurred_at: "2026-11-21T09:00:01.500Z",
    text: "disk failure on \"volume\" ünïcode",
};
/// The old format, whose times have no year: only what comes after is compared.
const CEF: Line = Line {
    sent: "<134>Nov 21 10:00:02 fw-1 CEF:0|Acme|Firewall|1.0|100|Port scan detected|7|src=203.0.113.7 dst=10.0.0.1",
    origin: "Acme/Firewall",
    occurred_at: "-11-21T10:00:02.000Z",
    text: "Port scan detected src=203.0.113.7 dst=10.0.0.1",
};

fn broker() -> Broker {
    let broker = Broker::start();
    for topic in ["tickets", "logs", "queue-events", "dead-letters"] {
        broker.create_topic(topic, 1);
    }
    broker
}

/// A program of the SIEM packages, which finds its own libraries first.
fn siem(program: &str) -> Command {
    let root = fetch::siem();
    let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/syslog-ng"];
    let folders: Vec<String> = folders.iter().map(|folder| root.join(folder).display().to_string()).collect();
    let mut command = Command::new(root.join(program));
    // The old syslog format names no zone.
    command.env("LD_LIBRARY_PATH", folders.join(":")).env("TZ", "UTC");
    command
}

/// A shipped file with what differs here; each of the replaced parts must be there.
fn shipped(name: &str, replacements: &[(&str, String)]) -> String {
    let mut text = std::fs::read_to_string(path("config/siem").join(name)).expect("the file is shipped");
    for (part, with) in replacements {
        assert!(text.contains(part), "{name} holds {part}");
        text = text.replace(part, with);
    }
    text
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Sends the lines by TCP and the last by UDP.
fn send(port: u16) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.write_all(format!("{}\n{}\n", SSH.sent, UNICODE.sent).as_bytes()).expect("it reads");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.send_to(CEF.sent.as_bytes(), (Ipv4Addr::LOCALHOST, port)).expect("it is sent");
}

fn setup(broker: &Broker) -> Setup {
    Setup::new(&broker.bootstrap(), "at_least_once").with("output.escalate", "false")
}

/// The events that the daemon makes of the topics; none of the records may be unreadable.
fn events(broker: &Broker, setup: &Setup, count: usize) -> Vec<serde_json::Value> {
    let mut daemon = setup.start_ready();
    let mut reader = broker.reader("queue-events", Isolation::ReadCommitted);
    let events = reader.wait_for(count, PATIENCE).iter().map(Read::json).collect();
    assert!(daemon.stop(PATIENCE).success());
    assert_eq!(broker.watch("dead-letters").high_watermark(), 0);
    events
}

#[track_caller]
fn assert_read(events: &[serde_json::Value], lines: &[Line]) {
    for line in lines {
        let event = events.iter().find(|event| event["text"] == line.text);
        let event = event.unwrap_or_else(|| panic!("no event has the text {:?}: {events:#?}", line.text));
        assert_eq!(event["origin"], line.origin, "{event:#}");
        let occurred_at = event["occurred_at"].as_str().expect("a time");
        assert!(occurred_at.ends_with(line.occurred_at), "{occurred_at} is {}", line.occurred_at);
    }
    assert_eq!(events.len(), lines.len());
}

fn assert_keyed_by_host(broker: &Broker) {
    let mut reader = broker.reader("logs", Isolation::ReadCommitted);
    let records = reader.drain();
    let mut keys: Vec<&[u8]> = records.iter().filter_map(|record| record.key.as_deref()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [&b"db-1"[..], b"fw-1", b"web-1"]);
}

#[test]
fn what_rsyslog_sends_is_read() {
    let broker = broker();
    let mut rsyslog = Program::new("rsyslog");
    let port = free_port();
    let spool = rsyslog.folder().display().to_string();
    let replacements =
        [(KAFKA, broker.bootstrap()), ("port=\"1514\"", format!("port=\"{port}\"")), ("/var/spool/rsyslog", spool)];
    let config = rsyslog.write("rsyslog.conf", &shipped("rsyslog.conf", &replacements));
    let modules = fetch::siem().join("usr/lib/x86_64-linux-gnu/rsyslog");
    let mut command = siem("usr/sbin/rsyslogd");
    command.arg("-n").arg("-i").arg(rsyslog.folder().join("pid")).arg("-M").arg(modules).arg("-f").arg(config);
    rsyslog.start(&mut command);
    rsyslog.wait_until("it listens", || listens(port));
    send(port);
    let logs = broker.watch("logs");
    rsyslog.wait_until("all is produced", || logs.high_watermark() == 3);
    assert_keyed_by_host(&broker);
    assert_read(&events(&broker, &setup(&broker), 3), &[SSH, UNICODE, CEF]);
}

#[test]
fn what_syslog_ng_sends_is_read() {
    let broker = broker();
    let mut syslog_ng = Program::new("syslog-ng");
    let port = free_port();
    let replacements = [(KAFKA, broker.bootstrap()), ("port(1514)", format!("port({port})"))];
    let config = syslog_ng.write("syslog-ng.conf", &shipped("syslog-ng.conf", &replacements));
    let modules = fetch::siem().join("usr/lib/syslog-ng/3.38");
    let file = |name: &str| syslog_ng.folder().join(name);
    let mut command = siem("usr/sbin/syslog-ng");
    command.args(["--foreground", "--no-caps"]).arg("--cfgfile").arg(config).arg("--module-path").arg(modules);
    command
        .arg("--persist-file")
        .arg(file("persist"))
        .arg("--pidfile")
        .arg(file("pid"))
        .arg("--control")
        .arg(file("control"));
    syslog_ng.start(&mut command);
    syslog_ng.wait_until("it listens", || listens(port));
    send(port);
    let logs = broker.watch("logs");
    syslog_ng.wait_until("all is produced", || logs.high_watermark() == 3);
    assert_keyed_by_host(&broker);
    assert_read(&events(&broker, &setup(&broker), 3), &[SSH, UNICODE, CEF]);
}

#[test]
fn what_kcat_sends_is_read() {
    let broker = broker();
    let produce = |arguments: &[&str], lines: &str| {
        let kcat = siem("usr/bin/kcat");
        let found = Path::new(kcat.get_program()).parent().expect("a folder").display().to_string();
        let search = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("sh")
            .arg(path("config/siem/kcat.sh"))
            .args(arguments)
            .env("KAFKA", broker.bootstrap())
            .env("PATH", format!("{found}:{search}"))
            .envs(kcat.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut input = child.stdin.take().expect("it was piped");
        input.write_all(lines.as_bytes()).expect("it reads");
        drop(input);
        assert!(child.wait().expect("the child is ours").success(), "{arguments:?}");
    };
    produce(
        &["logs", "gateway"],
        "Port scan detected from 10.0.0.7\n{\"message\":\"disk full\",\"source\":\"db-1\"}\n",
    );
    produce(&["tickets"], "{\"ticket_id\":\"T-1\",\"title\":\"Phishing\",\"content\":\"a mail with a link\"}\n");
    let mut reader = broker.reader("logs", Isolation::ReadCommitted);
    assert!(reader.wait_for(2, PATIENCE).iter().all(|record| record.key.as_deref() == Some(&b"gateway"[..])));
    let events = events(&broker, &setup(&broker), 3);
    let of = |key: &str, value: &str| events.iter().find(|event| event[key] == value);
    assert_eq!(of("text", "Port scan detected from 10.0.0.7").expect("the plain line")["kind"], "log");
    assert_eq!(of("origin", "db-1").expect("the JSON line")["text"], "disk full");
    assert_eq!(of("ticket_id", "T-1").expect("the ticket")["kind"], "ticket");
}

/// What the README's recipes for other programs write; the programs themselves are not run.
#[test]
fn the_shapes_of_vector_filebeat_and_fluent_bit_are_read() {
    let broker = broker();
    let lines = [
        r#"{"host":"web-1","message":"disk full","source_type":"journald","timestamp":"2026-11-21T10:00:00.123456Z"}"#,
        r#"{"@timestamp":"2026-11-21T10:00:00.123Z","message":"disk full","host":{"name":"web-1"},"agent":{"type":"filebeat"}}"#,
        r#"{"timestamp":"2026-11-21T10:00:00.123456Z","log":"disk full","host":"web-1"}"#,
    ];
    broker.produce("logs", lines.map(|line| ("", line)));
    let inputs =
        "[{topic = 'tickets', kind = 'ticket', format = 'json'}, {topic = 'logs', kind = 'log', format = 'auto',
         fields = {text = ['message', 'log'], source = ['host.name', 'host']}}]";
    let events = events(&broker, &setup(&broker).with("input", inputs), 3);
    for event in &events {
        assert_eq!((&event["text"], &event["origin"]), (&"disk full".into(), &"web-1".into()), "{event:#}");
        assert_eq!(event["occurred_at"], "2026-11-21T10:00:00.123Z", "{event:#}");
    }
}

/// Every shipped file is used by a test above.
#[test]
fn no_recipe_is_left_out() {
    let files = std::fs::read_dir(path("config/siem")).expect("the folder is shipped");
    let mut names: Vec<String> =
        files.map(|file| file.expect("it can be listed").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, ["kcat.sh", "rsyslog.conf", "syslog-ng.conf"]);
}
