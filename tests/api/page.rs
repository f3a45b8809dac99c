//! The review page where what it needs is away: it says so, loses no answer, and goes on by itself.

use std::time::{Duration, Instant};

use serde_json::json;

use super::reviews::unsure;
use super::server::Api;
use crate::peers::broker::Broker;
use crate::peers::browser::Browser;
use crate::peers::client::Isolation;
use crate::peers::free_port;

const PATIENCE: Duration = Duration::from_secs(60);
const SAYS_SO: &str =
    "document.querySelector('#state.bad')?.textContent.includes('the store or Kafka does not answer')";

#[test]
fn without_a_store_the_page_and_its_api_say_so() {
    let api = Api::start(&format!(
        "volumes.store = \"clickhouse\"\nclickhouse.url = \"http://127.0.0.1:{}\"\nclickhouse.retry_deadline = \"1s\"",
        free_port()
    ));
    let asked = Instant::now();
    let problem = api.get("/v1/reviews").problem(503, "desk_unavailable");
    assert!(asked.elapsed() < Duration::from_secs(20), "after {:?}", asked.elapsed());
    assert!(!problem.to_string().contains("127.0.0.1"), "where the store lies is nobody's business: {problem}");
    let browser = Browser::start();
    browser.open(&api.url("/review"));
    browser.wait(SAYS_SO);
    assert_eq!(browser.value("return document.getElementById('accept').disabled"), true);
    browser.picture("no-store");
    // Keys do no harm, and `r` asks again.
    browser.keys("as1");
    browser.keys("r");
    browser.wait(SAYS_SO);
    assert_eq!(browser.refused(), json!([]));
}

#[test]
fn without_kafka_an_answer_is_not_lost() {
    let mut broker = Broker::start();
    broker.create_topic("feedback", 1);
    broker.wait_written();
    broker.stop();
    // Where there are no keys, none is asked for.
    let api = Api::start(&format!("kafka.brokers = {:?}\nfeedback.send_deadline = \"1s\"", broker.bootstrap()));
    api.insert(&unsure(2));
    let browser = Browser::start();
    browser.open(&api.url("/review"));
    let shown = "document.getElementById('text').textContent.startsWith('line')";
    browser.wait(shown);
    let before = browser.text("text");
    browser.keys("a");
    browser.wait(SAYS_SO);
    assert_eq!(browser.text("text"), before, "it is still there to be judged");
    broker.restart();
    crate::peers::wait_until("the answer is taken", PATIENCE, || {
        browser.keys("a");
        browser.text("text") != before
    });
    let mut feedback = broker.reader("feedback", Isolation::ReadUncommitted);
    let first = feedback.wait_for(1, PATIENCE)[0].json();
    assert_eq!((&first["correct"], &first["given_by"]), (&json!(true), &json!("local")));
    assert_eq!(first["text"], before.as_str());
}
