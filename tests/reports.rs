//! Reports from the command line and by mail, the latter taken by a small SMTP server inside the test.

use std::time::Duration;

use chrono::{Timelike, Utc};
use serde_json::{Value, json};

use crate::feedback::{World, block_on, feedback_row, store};
use crate::peers::clickhouse::ClickHouse;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::receiver::smtp_server;
use crate::setup::Setup;
use crate::volumes::{event, insert};

const PATIENCE: Duration = Duration::from_secs(90);
/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

/// Three judged events, and one that nobody judged.
fn fill(clickhouse: &ClickHouse) {
    let store = store(clickhouse);
    let sent: Vec<String> = (0..4).map(|offset| event(offset, "soc", START_MS + offset)).collect();
    insert(&store, &sent, 1);
    let id = |offset: i64| format!("00000000-0000-5000-8000-{offset:012x}");
    let said = [
        json!({"event_id": id(0), "correct": true, "given_by": "ada"}),
        json!({"event_id": id(1), "corrected_queue": "<script>alert(1)</script>", "given_by": "=bob"}),
        json!({"event_id": id(2), "corrected_queue": "soc"}),
    ];
    let rows: Vec<_> = said.iter().enumerate().map(|(offset, said)| feedback_row(said, offset as i64)).collect();
    block_on(store.insert_feedback(&rows)).expect("the store takes them");
}

fn report(setup: &Setup, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("my.toml");
    setup.write(&path);
    let period = ["report", "--from", "2026-01-01", "--to", "2026-01-02", "--config", path.to_str().expect("plain")];
    let output = triaged(&[&period, arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_report_is_json_csv_or_a_page_and_goes_by_mail() {
    let clickhouse = ClickHouse::start();
    fill(&clickhouse);
    let (port, mail_rx) = smtp_server();
    let setup = Setup::new("localhost:1", "at_least_once")
        .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
        .with("smtp.server", "'127.0.0.1'")
        .with("smtp.port", &port.to_string())
        .with("smtp.tls", "'none'")
        .with("smtp.from", "'triaged@example.org'")
        .with("reports.email_to", "['soc@example.org', 'desk@example.org']");
    let json: Value = serde_json::from_str(&report(&setup, &["--format", "json"])).expect("JSON");
    assert_eq!((&json["confidence"]["events"], &json["feedback"]["judged"]), (&json!(4), &json!(3)));
    assert_eq!((&json["feedback"]["right"]["right"], &json["feedback"]["right"]["of"]), (&json!(2), &json!(3)));
    let soc = json["queues"].as_array().expect("a list").iter().find(|queue| queue["queue"] == "soc").expect("soc");
    assert_eq!((&soc["precision"]["of"], &soc["recall"]["of"]), (&json!(3), &json!(2)));
    let queues = report(&setup, &["--format", "csv"]);
    assert!(queues.starts_with("queue,precision_right,") && queues.contains("\nsoc,2,3,0.6667,"), "{queues}");
    let detail = report(&setup, &["--format", "csv", "--part", "detail", "--correct", "false"]);
    assert!(detail.lines().count() == 2 && detail.contains(",'=bob,"), "{detail}");
    let page = report(&setup, &[]);
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script") && page.matches("<svg").count() == 3);
    report(&setup, &["--send"]);
    let mail = mail_rx.recv_timeout(PATIENCE).expect("it was sent");
    for part in [
        "RCPT TO:<soc@example.org>",
        "RCPT TO:<desk@example.org>",
        "judgements: 3",
        "triaged-2026-01-01-2026-01-02.html",
    ] {
        assert!(mail.contains(part), "{part} is missing in\n{mail}");
    }
}

#[test]
fn what_is_scheduled_is_sent_once_by_the_one_that_leads() {
    let world = World::new();
    world.broker.create_topic("forecasts", 1);
    world.broker.create_topic("anomalies", 1);
    store(&world.clickhouse);
    let (port, mail_rx) = smtp_server();
    let now = Utc::now();
    let setup = world
        .setup()
        .with("smtp.server", "'127.0.0.1'")
        .with("smtp.port", &port.to_string())
        .with("smtp.tls", "'none'")
        .with("smtp.from", "'triaged@example.org'")
        .with("reports.email_to", "['soc@example.org']")
        .with("reports.schedule", &format!("'daily {:02}:{:02}'", now.hour(), now.minute()));
    // The report of yesterday went out; today's is due.
    world.clickhouse.query("INSERT INTO report_deliveries SELECT now() - toIntervalDay(1), now64(3)");
    let mut one = Daemon::start_roles("forecast", &setup.clone().instance("one").toml());
    let mut two = Daemon::start_roles("forecast", &setup.instance("two").toml());
    one.wait_ready();
    two.wait_ready();
    let mail = mail_rx.recv_timeout(PATIENCE).expect("the report is due");
    assert!(mail.contains("RCPT TO:<soc@example.org>"), "{mail}");
    let sent = |daemon: &Daemon| daemon.metric("triaged_reports_total", &["result=\"sent\""]);
    crate::peers::wait_until("the leader says so", PATIENCE, || sent(&one) + sent(&two) == 1.0);
    // The next look at the clock finds nothing to do.
    assert!(mail_rx.recv_timeout(Duration::from_secs(8)).is_err(), "it was sent twice");
    assert!(one.stop(PATIENCE).success() && two.stop(PATIENCE).success());
}
