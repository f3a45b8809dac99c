//! The JSON of events and escalations, byte for byte what `serde_json` makes of them (a property test holds the two
//! equal), at a fraction of its time: names are constants, and texts are searched for what must be escaped eight bytes
//! at a time. Every record that leaves the daemon is written here.

use std::io::Write;

use super::{Alternative, Arm, Escalation, Indicators, Priority, QueueEvent, Reason, Shadow};

/// Appends the JSON of an event.
pub fn write_event(out: &mut Vec<u8>, event: &QueueEvent<'_>) {
    out.extend_from_slice(b"{\"event_id\":\"");
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(event.event_id.hyphenated().encode_lower(&mut id).as_bytes());
    out.extend_from_slice(b"\",\"source\":{\"topic\":");
    text(out, &event.source.topic);
    out.extend_from_slice(b",\"partition\":");
    value(out, &event.source.partition);
    out.extend_from_slice(b",\"offset\":");
    value(out, &event.source.offset);
    out.extend_from_slice(b"},\"kind\":\"");
    out.extend_from_slice(event.kind.as_str().as_bytes());
    out.push(b'"');
    optional(out, b",\"ticket_id\":", event.ticket_id.as_deref());
    optional(out, b",\"origin\":", event.origin.as_deref());
    field(out, b",\"occurred_at\":", &event.occurred_at);
    field(out, b",\"decided_at\":", &event.decided_at);
    field(out, b",\"queue\":", &event.queue);
    optional(out, b",\"category\":", event.category.as_deref());
    out.extend_from_slice(b",\"priority\":\"");
    out.extend_from_slice(event.priority.as_str().as_bytes());
    out.extend_from_slice(b"\",\"confidence\":");
    value(out, &event.confidence);
    out.extend_from_slice(b",\"routing\":\"");
    out.extend_from_slice(event.routing.as_str().as_bytes());
    out.push(b'"');
    field(out, b",\"decided_by\":", &event.decided_by);
    list(out, b",\"alternatives\":", &event.alternatives, |out, Alternative { label, probability, decided_by }| {
        field(out, b"{\"label\":", label);
        out.extend_from_slice(b",\"probability\":");
        value(out, probability);
        optional(out, b",\"decided_by\":", decided_by.as_deref());
        out.push(b'}');
    });
    list(out, b",\"reasons\":", &event.reasons, |out, Reason { feature, weight }| {
        field(out, b"{\"feature\":", feature);
        out.extend_from_slice(b",\"weight\":");
        value(out, weight);
        out.push(b'}');
    });
    list(out, b",\"tags\":", &event.tags, |out, tag| text(out, tag));
    indicators(out, &event.indicators);
    optional(out, b",\"model\":", event.model.as_deref());
    optional(out, b",\"arm\":", event.arm.map(Arm::as_str));
    if let Some(Shadow { model, queue, confidence }) = &event.shadow {
        field(out, b",\"shadow\":{\"model\":", model);
        field(out, b",\"queue\":", queue);
        out.extend_from_slice(b",\"confidence\":");
        value(out, confidence);
        out.push(b'}');
    }
    optional(out, b",\"config\":", event.config.as_deref());
    optional(out, b",\"template_id\":", event.template_id.as_deref());
    optional(out, b",\"text\":", event.text.as_deref());
    out.push(b'}');
}

/// Appends the JSON of an escalation.
pub fn write_escalation(out: &mut Vec<u8>, escalation: &Escalation<'_>) {
    field(out, b"{\"reason\":", &escalation.reason);
    optional(out, b",\"email_address\":", escalation.email_address.as_deref());
    optional(out, b",\"level\":", escalation.level.as_deref());
    out.extend_from_slice(b",\"title_len\":");
    value(out, &escalation.title_len);
    optional(out, b",\"rule_priority\":", escalation.rule_priority.map(Priority::as_str));
    optional(out, b",\"stated_priority\":", escalation.stated_priority.map(Priority::as_str));
    out.extend_from_slice(b",\"event\":");
    write_event(out, &escalation.event);
    out.push(b'}');
}

fn indicators(out: &mut Vec<u8>, found: &Indicators) {
    if found.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"indicators\":");
    let start = out.len();
    let sorts: [(&[u8], &[String]); 6] = [
        (b",\"urls\":", &found.urls),
        (b",\"ips\":", &found.ips),
        (b",\"domains\":", &found.domains),
        (b",\"emails\":", &found.emails),
        (b",\"cves\":", &found.cves),
        (b",\"hashes\":", &found.hashes),
    ];
    for (name, sort) in sorts {
        list(out, name, sort, |out, indicator| text(out, indicator));
    }
    // At least one sort has been written; its comma opens the object.
    out[start] = b'{';
    out.push(b'}');
}

fn field(out: &mut Vec<u8>, name: &[u8], content: &str) {
    out.extend_from_slice(name);
    text(out, content);
}

fn optional(out: &mut Vec<u8>, name: &[u8], content: Option<&str>) {
    if let Some(content) = content {
        field(out, name, content);
    }
}

fn list<T>(out: &mut Vec<u8>, name: &[u8], items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    if items.is_empty() {
        return;
    }
    out.extend_from_slice(name);
    let start = out.len();
    for item in items {
        out.push(b',');
        write(out, item);
    }
    out[start] = b'[';
    out.push(b']');
}

/// Numbers, for which `serde_json` is as fast as can be.
fn value(out: &mut Vec<u8>, number: &impl serde::Serialize) {
    serde_json::to_writer(out, number).expect("numbers and memory cannot fail");
}

fn text(out: &mut Vec<u8>, content: &str) {
    let bytes = content.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut written = 0;
    while let Some(plain) = first_escaped(&bytes[written..]) {
        let at = written + plain;
        out.extend_from_slice(&bytes[written..at]);
        escape(out, bytes[at]);
        written = at + 1;
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            write!(out, "\\u{byte:04x}").expect("writing to memory");
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn must_be_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Where the first control character, quote or backslash stands.
fn first_escaped(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // A zero byte borrows from its highest bit, which is how each test finds its byte ("Bit Twiddling Hacks", S. E.
    // Anderson, "Determine if a word has a zero byte" and "... a byte less than n"). Bytes from 0x80 on are left out by `!word`.
    let has = |word: u64, byte: u8| {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference & HIGH
    };
    let mut chunks = bytes.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight"));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        if control | has(word, b'"') | has(word, b'\\') != 0 {
            // Borrows may also mark bytes above the right one, so the word is looked at byte by byte.
            return chunk.iter().position(|byte| must_be_escaped(*byte)).map(|inside| at + inside);
        }
        at += 8;
    }
    chunks.remainder().iter().position(|byte| must_be_escaped(*byte)).map(|inside| at + inside)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Kind, Routing, SourcePosition};

    fn any_text() -> impl Strategy<Value = Cow<'static, str>> {
        prop_oneof!["\\PC{0,20}", any::<String>(), "[a-z\"\\\\\n\u{0}-\u{20}]{0,40}"].prop_map(Cow::Owned)
    }

    fn any_texts() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(any_text().prop_map(Cow::into_owned), 0..3)
    }

    fn any_indicators() -> impl Strategy<Value = Indicators> {
        (any_texts(), any_texts(), any_texts(), any_texts(), any_texts(), any_texts()).prop_map(
            |(urls, ips, domains, emails, cves, hashes)| Indicators { urls, ips, domains, emails, cves, hashes },
        )
    }

    prop_compose! {
        fn any_event()(
            (topic, partition, offset) in (any_text(), any::<i32>(), any::<i64>()),
            (ticket_id, origin, category) in (prop::option::of(any_text()), prop::option::of(any_text()), prop::option::of(any_text())),
            (occurred_at, queue, decided_by) in (any_text(), any_text(), any_text()),
            (kind, priority, routing) in (0..2usize, 0..4usize, 0..3usize),
            confidence in 0f32..=1.0,
            alternatives in prop::collection::vec((any_text(), 0f32..=1.0, prop::option::of(any_text())), 0..3),
            reasons in prop::collection::vec((any_text(), -1f32..=1.0), 0..3),
            tags in prop::collection::vec(any_text(), 0..3),
            indicators in any_indicators(),
            (arm, shadow, config) in (prop::option::of(0..2usize), prop::option::of((any_text(), any_text(), 0f32..=1.0)), prop::option::of(any_text())),
            (model, template_id, text) in (prop::option::of(any_text()), prop::option::of(any_text()), prop::option::of(any_text())),
        ) -> QueueEvent<'static> {
            let source = SourcePosition { topic, partition, offset };
            QueueEvent {
                event_id: source.event_id(),
                source,
                kind: Kind::ALL[kind],
                ticket_id,
                origin,
                decided_at: occurred_at.clone(),
                occurred_at,
                queue,
                category,
                priority: Priority::ALL[priority],
                confidence,
                routing: Routing::ALL[routing],
                decided_by,
                alternatives: alternatives.into_iter().map(|(label, probability, decided_by)| Alternative { label, probability, decided_by }).collect(),
                reasons: reasons.into_iter().map(|(feature, weight)| Reason { feature, weight }).collect(),
                tags,
                indicators,
                model,
                arm: arm.map(|arm| Arm::ALL[arm]),
                shadow: shadow.map(|(model, queue, confidence)| Shadow { model, queue, confidence }),
                config,
                template_id,
                text,
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_what_serde_json_writes(
            event in any_event(),
            reason in any_text(),
            level in prop::option::of(any_text()),
            title_len in any::<usize>(),
            (rule_priority, stated_priority) in (prop::option::of(0..4usize), prop::option::of(0..4usize)),
        ) {
            let mut written = Vec::new();
            write_event(&mut written, &event);
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&event).unwrap());
            let (rule_priority, stated_priority) =
                (rule_priority.map(|priority| Priority::ALL[priority]), stated_priority.map(|priority| Priority::ALL[priority]));
            let email_address = level.clone();
            let escalation =
                Escalation { reason, email_address, level, title_len, rule_priority, stated_priority, event };
            let mut written = Vec::new();
            write_escalation(&mut written, &escalation);
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&escalation).unwrap());
        }
    }
}
