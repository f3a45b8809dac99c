//! What each path answers, over both stores.

use serde_json::{Value, json};
use triaged::config::Config;
use triaged::volumes::{AuditEntry, VolumeStore};

use super::server::Api;
use crate::outcomes::{schema, valid};
use crate::peers::clickhouse::ClickHouse;
use crate::volumes::event;

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;
const SPAN: &str = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";

/// Runs a test over the store in memory, then over ClickHouse's engine.
fn over_both_stores(test: impl Fn(&Api)) {
    test(&Api::start(""));
    let clickhouse = ClickHouse::start();
    let config = format!(
        "volumes.store = \"clickhouse\"\nclickhouse.url = \"{}\"\nclickhouse.events_retention = \"0s\"\n",
        clickhouse.url()
    );
    let store = VolumeStore::new(&Config::from_toml(&config).expect("a configuration"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(store.prepare(true)).expect("the tables");
    test(&Api::start(&config));
}

/// Ten events of two queues, one each ten minutes; the last was decided for `platform` first.
fn fill(api: &Api) {
    let queue = |number: i64| if number % 3 == 0 { "soc" } else { "identity" };
    let at = |number: i64| (START + number * 600) * 1000;
    api.insert(&[event(9, "platform", at(9) - 1)]);
    let events: Vec<String> = (0..10).map(|number| event(number, queue(number), at(number))).collect();
    api.insert(&events);
}

#[test]
fn volumes_queues_and_stats_count_each_event_once() {
    over_both_stores(|api| {
        fill(api);
        let stats = api.get(&format!("/v1/stats?{SPAN}")).json();
        assert_eq!((&stats["events"], &stats["queues"]), (&10.into(), &3.into()), "{stats}");
        assert_eq!(stats["by_routing"], json!({"human_verify": 10}), "{stats}");
        assert_eq!(stats["by_tier"], json!({"fast": 10}), "{stats}");
        assert_eq!(stats["by_kind"]["ticket"], 2, "{stats}");

        let queues = api.get(&format!("/v1/queues?{SPAN}")).json();
        let names: Vec<&Value> =
            queues["queues"].as_array().expect("a list").iter().map(|queue| &queue["queue"]).collect();
        assert_eq!(names, ["identity", "platform", "soc"]);
        assert_eq!(queues["queues"][0]["events"], 6);
        assert_eq!(queues["queues"][2]["newest"], "2026-01-01T01:30:00.000Z");

        let volumes = api.get(&format!("/v1/volumes?bucket=1h&queue=soc&{SPAN}")).json();
        assert_eq!(
            volumes["volumes"],
            json!([{"queue": "soc", "points": [
                {"at": "2026-01-01T00:00:00.000Z", "events": 2},
                {"at": "2026-01-01T01:00:00.000Z", "events": 2},
            ]}]),
            "{volumes}"
        );
        let all = api.get(&format!("/v1/volumes?window=hours&{SPAN}")).json();
        assert_eq!((&all["bucket_seconds"], &all["volumes"][0]["queue"]), (&3600.into(), &"*".into()), "{all}");
        let total = api.get(&format!("/v1/volumes?bucket=1d&queue=*&{SPAN}")).json();
        assert_eq!(total["volumes"][0]["points"][0]["events"], 10, "{total}");
        let nothing = api.get("/v1/volumes?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z").json();
        assert_eq!(nothing["volumes"], json!([]));
    });
}

#[test]
fn events_come_in_pages_and_by_id() {
    let schema = schema("queue-event.json");
    over_both_stores(|api| {
        fill(api);
        let mut seen = Vec::new();
        let mut path = format!("/v1/events?limit=4&{SPAN}");
        for size in [4, 4, 2] {
            let page = api.get(&path).json();
            let events = page["events"].as_array().expect("a list");
            assert_eq!(events.len(), size, "{page}");
            events.iter().for_each(|event| valid(&schema, event));
            seen.extend(events.iter().map(|event| event["source"]["offset"].as_i64().expect("a number")));
            path = format!("/v1/events?limit=4&{SPAN}&cursor={}", page["next"].as_str().unwrap_or_default());
        }
        assert_eq!(seen, (0..10).rev().collect::<Vec<i64>>(), "the newest first, each once");

        let of =
            |filter: &str| api.get(&format!("/v1/events?{SPAN}&{filter}")).json()["events"].as_array().map(Vec::len);
        assert_eq!((of("queue=soc"), of("queue=platform"), of("routing=human_verify")), (Some(4), Some(0), Some(10)));
        assert_eq!(of("routing=auto_route"), Some(0));

        let id = "00000000-0000-5000-8000-000000000009";
        let found = api.get(&format!("/v1/events/{id}")).json();
        valid(&schema, &found);
        assert_eq!((&found["event_id"], &found["queue"]), (&id.into(), &"soc".into()), "as it was decided last");
        assert_eq!(found["text"], "line \"9\"\twith ünïcode");
        api.get("/v1/events/00000000-0000-5000-8000-00000000ffff").problem(404, "not_found");
        api.get("/v1/events/nine").problem(422, "invalid_parameter");
    });
}

#[test]
fn the_newest_forecast_of_a_window_is_shown_in_three_ways() {
    let schema = schema("forecast.json");
    over_both_stores(|api| {
        fill(api);
        assert_eq!(api.get("/v1/forecasts").json(), json!({"forecasts": []}));
        let start = (START + 7200) as u32;
        api.insert_forecast(start - 3600, &["*", "soc"]);
        api.insert_forecast(start, &["*", "soc"]);
        let forecasts = api.get("/v1/forecasts?window=hours&queue=soc").json();
        let [forecast] = forecasts["forecasts"].as_array().expect("a list").as_slice() else { panic!("{forecasts}") };
        valid(&schema, forecast);
        assert_eq!((&forecast["from"], &forecast["trend"]), (&"2026-01-01T02:00:00.000Z".into(), &"rising".into()));
        assert_eq!(forecast["backtest"], json!({"mase": 0.75}));
        assert_eq!(forecast["points"][1]["at"], "2026-01-01T03:00:00.000Z");

        let csv = api.get("/v1/forecasts.csv?queue=soc");
        assert!(csv.header("content-type").starts_with("text/csv"), "{csv:?}");
        assert_eq!(
            csv.body.lines().nth(1),
            Some("hours,soc,2026-01-01T02:00:20.000Z,2026-01-01T02:00:00.000Z,2026-01-01T02:00:00.000Z,6,4,8,3,10")
        );

        let trends = api.get("/v1/trends").json();
        let [total, soc] = trends["trends"].as_array().expect("a list").as_slice() else { panic!("{trends}") };
        assert_eq!((&total["queue"], &total["previous"], &soc["previous"]), (&"*".into(), &10.into(), &4.into()));
        assert_eq!((&soc["change"], &soc["expected"]["mean"]), (&2.0.into(), &12.0.into()));
        api.get("/v1/trends?window=fortnights").problem(422, "invalid_parameter");
    });
}

#[test]
fn a_change_is_in_the_audit_log_once() {
    over_both_stores(|api| {
        let at = START * 1000;
        let entry =
            |at, subject| AuditEntry::at(at, "ann (1a)", "192.0.2.1", "label.changed", subject, &json!({"to": "soc"}));
        for entry in [entry(at, "one"), entry(at, "one"), entry(at + 1, "two")] {
            api.runtime.block_on(api.store.audit(&entry)).expect("the store takes it");
        }
        let log = api.get(&format!("/v1/audit?{SPAN}")).json();
        let subjects: Vec<&Value> =
            log["entries"].as_array().expect("a list").iter().map(|entry| &entry["subject"]).collect();
        assert_eq!(subjects, ["two", "one"], "{log}");
        assert_eq!(log["entries"][0]["detail"], json!({"to": "soc"}));
        assert_eq!(api.get(&format!("/v1/audit?limit=1&{SPAN}")).json()["entries"].as_array().map(Vec::len), Some(1));
    });
}

#[test]
fn a_store_that_is_away_is_told_and_nothing_of_it_is_shown() {
    let config = "volumes.store = \"clickhouse\"\nclickhouse.url = \"http://secret.invalid:1\"\n";
    let api = Api::start(config);
    for path in ["/v1/stats", "/v1/queues", "/v1/volumes", "/v1/forecasts", "/v1/trends", "/v1/events", "/v1/audit"] {
        let answer = api.get(path);
        answer.problem(503, "store_unavailable");
        assert!(!answer.body.contains("secret") && !answer.header("retry-after").is_empty(), "{answer:?}");
    }
    assert_eq!(api.get("/v1/models").status, 200, "what needs no store goes on");
}

#[test]
fn the_models_say_what_they_are_worth() {
    let api = Api::start("");
    let models = api.get("/v1/models").json();
    let kinds: Vec<&Value> = models["models"].as_array().expect("a list").iter().map(|model| &model["kind"]).collect();
    assert_eq!(kinds, ["ticket", "log"]);
    let tickets = &models["models"][0];
    assert!(tickets["id"].as_str().is_some_and(|id| id.starts_with("tickets@")), "{tickets}");
    assert!(tickets["held_out"]["accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.9), "{tickets}");
    assert!(tickets["labels"].as_array().is_some_and(|labels| labels.contains(&"CTI".into())), "{tickets}");
}

#[test]
fn records_are_classified_as_in_the_stream() {
    let api = Api::start("");
    let classify =
        |query: &str, body: &Value| api.post(&format!("/v1/classify?{query}"), "application/json", &body.to_string());
    let line = "Failed password for invalid user admin from 203.0.113.7 port 22 ssh2";
    let one = classify("kind=log", &json!({"message": line, "source": "sshd"})).json();
    assert_eq!((&one["kind"], &one["origin"]), (&"log".into(), &"sshd".into()), "{one}");
    assert_eq!(one["indicators"]["ips"], json!(["203.0.113.7"]), "{one}");
    assert!(one["queue"].is_string() && one["event_id"].is_null() && one["text"].is_null(), "{one}");
    let same = classify("topic=logs", &json!(line)).json();
    assert_eq!((&same["queue"], &same["decided_by"]), (&one["queue"], &one["decided_by"]));

    let ticket =
        json!({"ticket_id": "T-1", "title": "Indicators", "content": "New indicators of compromise for APT28"});
    let many = classify("kind=ticket&explain=2", &json!([ticket, {"nothing": 1}, 7, "{\"title\": \"x\"}"])).json();
    assert_eq!((&many[0]["ticket_id"], &many[1]["error"]["reason"]), (&"T-1".into(), &"missing_text".into()), "{many}");
    assert_eq!((&many[2]["error"]["reason"], &many[3]["kind"]), (&"not_an_object".into(), &"ticket".into()), "{many}");
    if many[0]["decided_by"] == "fast" {
        assert_eq!(many[0]["reasons"].as_array().map(Vec::len), Some(2), "{many}");
    }
    assert_eq!(classify("kind=log", &json!([])).json(), json!([]));
}

#[test]
fn what_cannot_be_classified_is_a_problem() {
    let api = Api::start("");
    let post =
        |query: &str, content_type: &str, body: &str| api.post(&format!("/v1/classify{query}"), content_type, body);
    post("?kind=log", "application/json", "{\"message\": ").problem(422, "invalid_json");
    post("?kind=log", "application/json", "").problem(422, "invalid_json");
    post("?kind=log", "application/json", "{\"nothing\": 1}").problem(422, "missing_text");
    post("?kind=log", "application/json", "7").problem(422, "not_an_object");
    post("?kind=log", "text/plain", "x").problem(415, "unsupported_media_type");
    for query in ["", "?kind=mail", "?kind=log&topic=logs", "?topic=nowhere", "?kind=log&explain=101", "?kind=log&k=1"]
    {
        post(query, "application/json", "{}").problem(422, "invalid_parameter");
    }
}

#[test]
fn mistakes_in_a_request_are_named() {
    let api = Api::start("");
    for (query, named) in [
        ("/v1/stats?from=yesterday", "from"),
        ("/v1/stats?form=2026-01-01T00:00:00Z", "form"),
        ("/v1/stats?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/v1/volumes?bucket=90s", "bucket"),
        ("/v1/volumes?bucket=1h&window=hours", "window"),
        ("/v1/volumes?window=fortnights", "minutes, hours, days"),
        ("/v1/volumes?bucket=1m&from=2020-01-01T00:00:00Z", "buckets"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?limit=many", "limit"),
        ("/v1/events?cursor=x", "cursor"),
        ("/v1/events?routing=soon", "routing"),
        ("/v1/audit?limit=1001", "limit"),
    ] {
        let problem = api.get(query).problem(422, "invalid_parameter");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{query}: {problem}");
    }
    api.get("/v1/secrets").problem(404, "not_found");
    api.get("/").problem(404, "not_found");
    let wrong_method = api.get("/v1/classify");
    wrong_method.problem(405, "method_not_allowed");
    assert_eq!(wrong_method.header("allow"), "POST");
}
