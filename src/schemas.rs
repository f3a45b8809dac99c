//! Holds `schemas/` equal to what the program reads and writes.
//!
//! The published schemas are open, so that a reader built today accepts the optional properties of tomorrow. Here they
//! are closed first: the program may write nothing that they do not list.

use std::collections::BTreeSet;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::decode::Reject;
use crate::record::{
    Alternative, Arm, Escalation, Feedback, Incident, IncidentChange, IncidentHistory, IncidentStatus, IncidentUpdate,
    Indicators, Kind, Priority, QueueEvent, Reason, Routing, Shadow, SourcePosition, rfc3339,
};
use crate::stream::dead_letter_header;

const TICKET: &str = include_str!("../schemas/ticket.json");
const LOG_LINE: &str = include_str!("../schemas/log-line.json");
const QUEUE_EVENT: &str = include_str!("../schemas/queue-event.json");
const ESCALATION: &str = include_str!("../schemas/escalation.json");
const FEEDBACK: &str = include_str!("../schemas/feedback.json");
const INCIDENT: &str = include_str!("../schemas/incident.json");
const INCIDENT_UPDATE: &str = include_str!("../schemas/incident-update.json");
const INCIDENT_NOTIFICATION: &str = include_str!("../schemas/incident-notification.json");
const DEAD_LETTER: &str = include_str!("../schemas/dead-letter.json");

fn parse(schema: &str) -> Value {
    serde_json::from_str(schema).expect("the schema is JSON")
}

fn open(schema: &str) -> Validator {
    jsonschema::validator_for(&parse(schema)).expect("the schema is one")
}

fn closed(schema: &str) -> Validator {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(members) => {
                // What an alternative says of a property closes nothing.
                members.iter_mut().filter(|(name, _)| *name != "oneOf").for_each(|(_, member)| close(member));
                if members.contains_key("properties") {
                    members.insert("additionalProperties".to_owned(), Value::Bool(false));
                }
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut schema = parse(schema);
    schema.as_object_mut().expect("the schema is an object").remove("examples");
    close(&mut schema);
    jsonschema::validator_for(&schema).expect("the closed schema is one")
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// An event with every field.
fn whole_event() -> QueueEvent<'static> {
    let source = SourcePosition { topic: "tickets".into(), partition: 3, offset: 41_288 };
    QueueEvent {
        event_id: source.event_id(),
        source,
        kind: Kind::Ticket,
        ticket_id: Some("TKT-1".into()),
        origin: Some("portal".into()),
        occurred_at: rfc3339(0).into(),
        decided_at: rfc3339(1_700_000_000_123).into(),
        queue: "CTI".into(),
        category: Some("CTI".into()),
        priority: Priority::High,
        confidence: 0.75,
        routing: Routing::HumanVerify,
        decided_by: "rule:ioc-list".into(),
        alternatives: vec![Alternative { label: "Trash".into(), probability: 0.2, decided_by: Some("fast".into()) }],
        reasons: vec![Reason { feature: "pair indicators of".into(), weight: 0.31 }],
        tags: vec!["ioc".into()],
        indicators: Indicators {
            urls: vec!["https://a.example/".to_owned()],
            ips: vec!["203.0.113.1".to_owned()],
            domains: vec!["a.example".to_owned()],
            emails: vec!["b@a.example".to_owned()],
            cves: vec!["CVE-2025-1234".to_owned()],
            hashes: vec!["d41d8cd98f00b204e9800998ecf8427e".to_owned()],
        },
        model: Some("tickets@1".into()),
        arm: Some(Arm::Champion),
        shadow: Some(Shadow { model: "tickets@2".into(), queue: "CTI".into(), confidence: 0.8 }),
        config: Some("0a1b2c3d".into()),
        template_id: Some("0123456789abcdef".into()),
        text: Some("title\ncontent".into()),
    }
}

fn whole_escalation() -> Escalation<'static> {
    Escalation {
        reason: "low_confidence".into(),
        email_address: Some("b@a.example".into()),
        level: Some("error".into()),
        title_len: 5,
        rule_priority: Some(Priority::High),
        stated_priority: Some(Priority::Low),
        event: whole_event(),
    }
}

fn value(of: impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect("plain data is JSON")
}

#[test]
fn schemas_are_schemas_and_their_examples_conform() {
    for schema in [
        TICKET,
        LOG_LINE,
        QUEUE_EVENT,
        ESCALATION,
        FEEDBACK,
        INCIDENT,
        INCIDENT_UPDATE,
        INCIDENT_NOTIFICATION,
        DEAD_LETTER,
    ] {
        let document = parse(schema);
        assert!(jsonschema::meta::is_valid(&document), "{}", document["title"]);
        let validator = closed(schema);
        let examples = document["examples"].as_array().expect("examples");
        assert!(!examples.is_empty());
        for example in examples {
            let faults: Vec<String> = validator.iter_errors(example).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{}: {faults:?}", document["title"]);
        }
    }
}

#[test]
fn a_whole_event_has_exactly_the_listed_properties() {
    let (event, escalation) = (value(whole_event()), value(whole_escalation()));
    assert!(closed(QUEUE_EVENT).is_valid(&event));
    assert!(closed(ESCALATION).is_valid(&escalation));
    let schema = parse(QUEUE_EVENT);
    assert_eq!(keys(&event), keys(&schema["properties"]));
    assert_eq!(keys(&event["indicators"]), keys(&schema["properties"]["indicators"]["properties"]));
    assert_eq!(keys(&escalation), keys(&parse(ESCALATION)["properties"]));
}

/// Feedback with every field.
fn whole_feedback() -> Feedback<'static> {
    let event = whole_event();
    Feedback {
        feedback_id: Some(crate::record::new_id()),
        event_id: event.event_id,
        source: Some(event.source),
        kind: Some(event.kind),
        given_at: Some(event.decided_at),
        given_by: Some("ada".into()),
        predicted_queue: Some(event.queue),
        corrected_queue: Some("Trash".into()),
        category: Some("Trash".into()),
        correct: Some(false),
        notes: Some("spam".into()),
        keywords: vec!["lottery".into()],
        difficulty: Some(1),
        text: event.text,
    }
}

#[test]
fn feedback_has_exactly_the_listed_properties_and_little_is_enough() {
    let feedback = value(whole_feedback());
    assert!(closed(FEEDBACK).is_valid(&feedback), "{feedback}");
    assert_eq!(keys(&feedback), keys(&parse(FEEDBACK)["properties"]));
    let schema = open(FEEDBACK);
    let id = whole_event().event_id;
    for (given, conforms) in [
        (json!({"event_id": id, "correct": true}), true),
        (json!({"event_id": id, "corrected_queue": "soc", "solved_by": "bob"}), true),
        (json!({"event_id": id}), false),
        (json!({"event_id": id, "correct": true, "difficulty": 6}), false),
        (json!({"correct": true}), false),
    ] {
        assert_eq!(schema.is_valid(&given), conforms, "{given}");
        let text = given.to_string();
        let read = serde_json::from_str::<Feedback<'_>>(&text).is_ok_and(|feedback| feedback.check().is_ok());
        assert_eq!(read, conforms, "the program and the schema agree about {given}");
    }
}

/// An incident with every field.
fn whole_incident() -> Incident {
    let event = whole_event();
    let time = || rfc3339(1_700_000_000_123);
    let entry = |change| IncidentHistory {
        at: time(),
        change,
        by: Some("ada".to_owned()),
        step: 1,
        note: Some("mine".to_owned()),
    };
    Incident {
        incident_id: crate::record::incident_id_of(event.event_id),
        version: 7,
        status: IncidentStatus::Resolved,
        severity: Priority::Critical,
        queue: "CTI".to_owned(),
        category: Some("CTI".to_owned()),
        event_id: event.event_id,
        events: 500,
        opened_at: time(),
        first_seen: time(),
        last_seen: time(),
        step: 1,
        acknowledge_by: time(),
        resolve_by: time(),
        acknowledged_at: Some(time()),
        acknowledged_by: Some("ada".to_owned()),
        resolved_at: Some(time()),
        resolved_by: Some("ada".to_owned()),
        acknowledge_breached_at: Some(time()),
        resolve_breached_at: Some(time()),
        updated_at: time(),
        correlated_by: vec!["ip:203.0.113.1".to_owned()],
        history: IncidentChange::ALL.map(entry).into(),
    }
}

#[test]
fn an_incident_has_exactly_the_listed_properties() {
    let incident = value(whole_incident());
    assert!(closed(INCIDENT).is_valid(&incident), "{incident}");
    let schema = parse(INCIDENT);
    assert_eq!(keys(&incident), keys(&schema["properties"]));
    let entry = &schema["properties"]["history"]["items"]["properties"];
    assert_eq!(keys(&incident["history"][0]), keys(entry));
    let changes = entry["change"]["enum"].as_array().expect("a list").iter().filter_map(Value::as_str);
    assert_eq!(changes.collect::<Vec<_>>(), IncidentChange::ALL.map(IncidentChange::as_str));
}

#[test]
fn the_program_and_the_schema_agree_about_updates() {
    let schema = open(INCIDENT_UPDATE);
    let (id, event_id) = (whole_incident().incident_id, whole_event().event_id);
    for (given, conforms) in [
        (json!({"action": "acknowledge", "incident_id": id}), true),
        (json!({"action": "resolve", "incident_id": id, "by": "ada", "note": "done", "shift": "night"}), true),
        (json!({"action": "escalate", "incident_id": id}), true),
        (json!({"action": "escalate", "event_id": event_id, "at": rfc3339(0), "update_id": id}), true),
        (json!({"action": "resolve", "event_id": event_id}), false),
        (json!({"action": "escalate", "event_id": event_id, "incident_id": id}), false),
        (json!({"action": "escalate"}), false),
        (json!({"action": "close", "incident_id": id}), false),
        (json!({"incident_id": id}), false),
        (json!({"action": "resolve", "incident_id": id, "by": "x".repeat(257)}), false),
    ] {
        assert_eq!(schema.is_valid(&given), conforms, "{given}");
        let text = given.to_string();
        let read = serde_json::from_str::<IncidentUpdate<'_>>(&text).is_ok_and(|update| update.check().is_ok());
        assert_eq!(read, conforms, "the program and the schema agree about {given}");
        if let Ok(update) = serde_json::from_str::<IncidentUpdate<'_>>(&text)
            && conforms
        {
            assert!(schema.is_valid(&value(update)), "what is written again conforms: {given}");
        }
    }
}

#[test]
fn the_escalations_schema_bundles_the_events() {
    let mut event = parse(QUEUE_EVENT);
    event.as_object_mut().expect("an object").remove("examples");
    assert_eq!(parse(ESCALATION)["$defs"]["queue-event"], event);
}

#[test]
fn a_reader_of_today_accepts_the_optional_properties_of_tomorrow() {
    let mut event = value(whole_event());
    event["severity_score"] = json!(7);
    assert!(open(QUEUE_EVENT).is_valid(&event));
    assert!(!closed(QUEUE_EVENT).is_valid(&event));
}

#[test]
fn broken_values_do_not_conform() {
    let validator = open(QUEUE_EVENT);
    let whole = value(whole_event());
    for required in parse(QUEUE_EVENT)["required"].as_array().expect("a list") {
        let mut event = whole.clone();
        event.as_object_mut().expect("an object").remove(required.as_str().expect("a name"));
        assert!(!validator.is_valid(&event), "without {required}");
    }
    for (path, wrong) in [
        ("/event_id", json!("2fbc2a3e-6a4b-4c1d-9e8f-0a1b2c3d4e5f")),
        ("/source/offset", json!(-1)),
        ("/source/partition", json!("3")),
        ("/kind", json!("alert")),
        ("/occurred_at", json!("2025-01-24T09:07:54+01:00")),
        ("/decided_at", json!(1_737_709_674)),
        ("/queue", json!("")),
        ("/priority", json!("urgent")),
        ("/confidence", json!(1.01)),
        ("/routing", json!("auto")),
        ("/decided_by", json!("rule:")),
        ("/alternatives/0/probability", Value::Null),
        ("/reasons/0/weight", Value::Null),
        ("/reasons/0/feature", json!("")),
        ("/indicators/ips", json!([])),
        ("/arm", json!("third")),
        ("/shadow/confidence", json!(2)),
        ("/config", json!("")),
        ("/template_id", json!("12")),
        ("/text", Value::Null),
    ] {
        let mut event = whole.clone();
        *event.pointer_mut(path).expect("the whole event has it") = wrong;
        assert!(!validator.is_valid(&event), "{path}");
    }
    let mut escalation = value(whole_escalation());
    escalation["event"].as_object_mut().expect("an object").remove("text");
    assert!(!open(ESCALATION).is_valid(&escalation), "an escalation without the text");
}

#[test]
fn input_schemas_list_the_default_field_names() {
    let defaults: toml::Table = include_str!("../config/default.toml").parse().expect("the defaults are TOML");
    for (schema, fields) in [(TICKET, "ticket_fields"), (LOG_LINE, "log_fields")] {
        let names = defaults["decode"][fields].as_table().expect("a table");
        let list = |meaning: &str| {
            let names = names.get(meaning).and_then(toml::Value::as_array).into_iter().flatten();
            names.map(|name| name.as_str().expect("a name")).collect::<Vec<_>>()
        };
        let schema = parse(schema);
        let all: BTreeSet<&str> = names.keys().flat_map(|meaning| list(meaning)).collect();
        assert_eq!(keys(&schema["properties"]), all);
        let alternatives = schema["anyOf"].as_array().expect("a list");
        let wanted: Vec<&str> = alternatives.iter().filter_map(|one| one["required"][0].as_str()).collect();
        assert_eq!(wanted, [list("title"), list("text")].concat());
    }
}

#[test]
fn dead_letters_have_the_listed_headers_and_reasons() {
    let schema = parse(DEAD_LETTER);
    let headers = [
        dead_letter_header::REASON,
        dead_letter_header::ERROR,
        dead_letter_header::TOPIC,
        dead_letter_header::PARTITION,
        dead_letter_header::OFFSET,
        dead_letter_header::TIMESTAMP,
        dead_letter_header::OMITTED_BYTES,
    ];
    assert_eq!(keys(&schema["properties"]), BTreeSet::from(headers));
    let listed = schema["properties"]["triaged-reason"]["enum"].as_array().expect("a list");
    let listed: BTreeSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    let of_the_engine = ["output_too_large", "refused_by_broker", "internal_error"];
    let of_escalate = ["invalid_escalation"];
    let of_tally = ["invalid_event", "invalid_feedback", "refused_by_clickhouse"];
    let of_incidents = ["invalid_incident_update"];
    let of_roles = of_escalate.into_iter().chain(of_tally).chain(of_incidents);
    let known = Reject::REASONS.into_iter().chain(of_the_engine).chain(of_roles).collect();
    assert_eq!(listed, known);
}

proptest! {
    #[test]
    fn any_event_conforms(
        offset in 0..i64::MAX,
        partition in 0..i32::MAX,
        millis in 0..253_402_300_800_000_i64,
        confidence in 0.0_f32..=1.0,
        queue in "\\PC{1,20}",
        text in proptest::option::of("(?s).{0,80}"),
        priority in proptest::sample::select(Priority::ALL.to_vec()),
        routing in proptest::sample::select(Routing::ALL.to_vec()),
        decided_by in proptest::sample::select(vec!["cache", "fast", "encoder", "llm", "rule:a b"]),
    ) {
        let source = SourcePosition { topic: "logs".into(), partition, offset };
        let event = QueueEvent {
            event_id: source.event_id(),
            source,
            kind: Kind::Log,
            ticket_id: None,
            origin: None,
            occurred_at: rfc3339(millis).into(),
            category: None,
            queue: queue.into(),
            confidence,
            priority,
            routing,
            decided_by: decided_by.into(),
            alternatives: Vec::new(),
            reasons: Vec::new(),
            tags: Vec::new(),
            indicators: Indicators::default(),
            model: None,
            template_id: None,
            text: text.map(Into::into),
            ..whole_event()
        };
        let event = value(event);
        prop_assert!(closed(QUEUE_EVENT).is_valid(&event), "{}", event);
    }
}
