//! Reviews, feedback and reports over HTTP, with feedback on its way through a real broker.

use serde_json::{Value, json};
use triaged::record::rfc3339;

use super::server::{Answer, Api, answer};
use crate::peers::broker::Broker;
use crate::peers::client::Isolation;
use crate::volumes::event;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn post(api: &Api, key: &str, path: &str, body: &Value) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent
        .post(api.url(path))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json");
    answer(request.send(body.to_string()))
}

/// Events of a minute ago, all of them unsure; the highest offset is the least sure.
pub(super) fn unsure(count: i64) -> Vec<String> {
    let now = chrono::Utc::now().timestamp_millis() - 60_000;
    let of = |offset: i64| {
        let mut event: Value = serde_json::from_str(&event(offset, "soc", now)).expect("an event");
        event["confidence"] = (0.8 - 0.01 * offset as f64).into();
        event["decided_at"] = rfc3339(now + 1).into();
        event.to_string()
    };
    (0..count).map(of).collect()
}

#[test]
fn an_unsure_event_is_claimed_judged_and_on_its_way_to_the_store() {
    let broker = Broker::start();
    broker.create_topic("feedback", 1);
    let (api, [read, write, admin]) = Api::with_keys(&format!("kafka.brokers = {:?}", broker.bootstrap()));
    api.insert(&unsure(5));

    let page = api.get_as(&write, "/v1/reviews?limit=2").json();
    let events = page["events"].as_array().expect("events");
    assert_eq!((events.len(), &events[0]["source"]["offset"]), (2, &4.into()), "the least confident first: {page}");
    assert!(page["next_cursor"].is_string());
    let id = events[0]["event_id"].as_str().expect("an id").to_owned();
    assert_eq!(api.get_as(&read, "/v1/reviews").status, 403);

    // Two people do not take the same one.
    assert_eq!(post(&api, &write, &format!("/v1/reviews/{id}/claim"), &json!({})).status, 200);
    post(&api, &admin, &format!("/v1/reviews/{id}/claim"), &json!({})).problem(409, "taken");
    let others = api.get_as(&admin, "/v1/reviews").json();
    assert!(others["events"].as_array().expect("events").iter().all(|event| event["event_id"] != id.as_str()));
    assert_eq!(post(&api, &write, &format!("/v1/reviews/{id}/release"), &json!({})).status, 204);
    assert_eq!(post(&api, &admin, &format!("/v1/reviews/{id}/claim"), &json!({})).status, 200);

    let queues = api.get_as(&write, "/v1/reviews/queues").json();
    let known = queues["queues"].as_array().expect("queues").iter().any(|queue| queue == "identity");
    assert!(known, "a rule's queue: {queues}");
    let wrong = json!({"event_id": id, "corrected_queue": "no such queue"});
    post(&api, &write, "/v1/feedback", &wrong).problem(422, "unknown_queue");
    post(&api, &write, "/v1/feedback", &json!({"event_id": id})).problem(422, "invalid_feedback");
    let nobody = json!({"event_id": "00000000-0000-5000-8000-0000000000ff", "correct": true});
    post(&api, &write, "/v1/feedback", &nobody).problem(404, "unknown_event");
    let right = json!({"event_id": id, "corrected_queue": "identity", "difficulty": 2, "keywords": ["login"]});
    let receipt = post(&api, &write, "/v1/feedback", &right);
    assert_eq!((receipt.status, &receipt.json()["queue"]), (200, &"identity".into()), "{}", receipt.body);
    let bulk = json!({"feedback": [{"event_id": events[1]["event_id"], "correct": true}, wrong]});
    let bulk = post(&api, &write, "/v1/feedback/bulk", &bulk).json();
    assert_eq!((&bulk["accepted"], bulk["results"].as_array().map(Vec::len)), (&1.into(), Some(2)), "{bulk}");

    let mut feedback = broker.reader("feedback", Isolation::ReadUncommitted);
    let read_back: Vec<Value> = feedback.wait_for(2, PATIENCE).iter().map(|read| read.json()).collect();
    assert_eq!(
        (&read_back[0]["corrected_queue"], &read_back[0]["predicted_queue"]),
        (&"identity".into(), &"soc".into())
    );
    assert!(read_back[0]["given_by"].as_str().is_some_and(|who| who.starts_with("write (")), "{}", read_back[0]);
    let audit = api.get_as(&admin, "/v1/audit").json().to_string();
    assert!(audit.contains("feedback.given") && audit.contains(&id), "{audit}");
}

#[test]
fn reports_come_in_every_format_and_mail_needs_a_server() {
    let (api, [read, _, admin]) = Api::with_keys("");
    api.insert(&unsure(3));
    assert_eq!(api.get_as(&read, "/v1/reports").json()["confidence"]["events"], 3);
    let csv = api.get_as(&read, "/v1/reports?format=csv&part=confidence");
    assert!(csv.header("content-type").starts_with("text/csv") && csv.body.lines().count() > 1, "{}", csv.body);
    let html = api.get_as(&read, "/v1/reports?format=html");
    assert!(html.body.contains("<svg") && html.header("content-security-policy").contains("default-src 'none'"));
    api.get_as(&read, "/v1/reports?from=yesterday").problem(422, "invalid_parameter");
    post(&api, &admin, "/v1/reports/email", &json!({})).problem(422, "no_mail");
    assert_eq!(post(&api, &read, "/v1/reports/email", &json!({})).status, 403);
}

#[test]
fn the_review_page_is_served_with_a_strict_policy() {
    let (api, _) = Api::with_keys("");
    for path in ["/review", "/review/page.css", "/review/page.js", "/review/charts.js", "/review/text.js"] {
        let page = api.get(path);
        assert_eq!(page.status, 200, "{path}");
        let policy = page.header("content-security-policy");
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    }
}
