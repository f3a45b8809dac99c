//! The events and escalations that the classify role makes of a verdict.

use std::borrow::Cow;
use std::fmt::Write;

use chrono::{DateTime, Datelike, Timelike};

use crate::config::IncludeText;
use crate::record::{
    Alternative, DecidedBy, Escalation, Indicators, Priority, QueueEvent, Record, Routing, Shadow, SourcePosition,
    rfc3339,
};

use super::decide::{EscalationReason, ShadowVerdict, Verdict};
use super::template::template_hex;

/// Formats times, most of which lie in the same second as the one before.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: i64,
    /// Bytes of `text` that stay as long as the second does; 0: nothing is there.
    prefix: usize,
    text: String,
}

impl Clock {
    /// RFC 3339 in UTC with milliseconds, as `rfc3339` gives it.
    pub(super) fn format(&mut self, millis: i64) -> &str {
        let (second, rest) = (millis.div_euclid(1000), millis.rem_euclid(1000));
        self.text.truncate(self.prefix);
        if second != self.second || self.prefix == 0 {
            self.prefix = 0;
            self.text.clear();
            let Some(time) = DateTime::from_timestamp(second, 0).filter(|time| (0..=9999).contains(&time.year()))
            else {
                self.text.push_str(&rfc3339(millis));
                return &self.text;
            };
            let (year, month, day) = (time.year(), time.month(), time.day());
            let (hour, minute, second_of_minute) = (time.hour(), time.minute(), time.second());
            write!(self.text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second_of_minute:02}.")
                .expect("writing to memory");
            self.prefix = self.text.len();
            self.second = second;
        }
        for divisor in [100, 10, 1] {
            self.text.push(char::from(b'0' + (rest / divisor % 10) as u8));
        }
        self.text.push('Z');
        &self.text
    }
}

/// The event of a verdict.
pub(super) fn queue_event<'a>(
    source: SourcePosition<'a>,
    record: &'a Record<'_>,
    verdict: &Verdict<'a>,
    indicators: Indicators,
    occurred_at: &'a str,
    decided_at: &'a str,
    include_text: IncludeText,
) -> QueueEvent<'a> {
    let with_text = match include_text {
        IncludeText::Never => false,
        IncludeText::Unsure => verdict.routing != Routing::AutoRoute,
        IncludeText::Always => true,
    };
    QueueEvent {
        event_id: source.event_id(),
        source,
        kind: record.kind(),
        ticket_id: record.ticket_id().map(Cow::Borrowed),
        origin: record.source().map(Cow::Borrowed),
        occurred_at: Cow::Borrowed(occurred_at),
        decided_at: Cow::Borrowed(decided_at),
        queue: Cow::Borrowed(verdict.queue),
        category: verdict.category.map(Cow::Borrowed),
        priority: verdict.priority,
        confidence: verdict.confidence,
        routing: verdict.routing,
        decided_by: match verdict.decided_by {
            DecidedBy::Rule(id) => Cow::Owned(["rule:", id].concat()),
            tier => Cow::Borrowed(tier.tier()),
        },
        alternatives: verdict
            .alternatives
            .iter()
            .map(|&(label, probability)| Alternative { label: Cow::Borrowed(label), probability, decided_by: None })
            .collect(),
        reasons: Vec::new(),
        tags: verdict.tags.iter().copied().map(Cow::Borrowed).collect(),
        indicators,
        model: verdict.model.map(Cow::Borrowed),
        arm: verdict.arm,
        shadow: verdict.shadow.map(|ShadowVerdict { model, queue, confidence, .. }| Shadow {
            model: Cow::Borrowed(model),
            queue: Cow::Borrowed(queue),
            confidence,
        }),
        config: None,
        template_id: verdict.template_id.map(|id| Cow::Owned(template_hex(id))),
        text: with_text.then(|| Cow::Borrowed(record.text())),
    }
}

/// What a slower tier is given. The event inside always carries the text.
pub(super) fn escalation<'a>(
    event: QueueEvent<'a>,
    record: &'a Record<'_>,
    reason: EscalationReason<'_>,
    rule_priority: Option<Priority>,
) -> Escalation<'a> {
    let (email_address, level, title_len) = match record {
        Record::Ticket(ticket) => (ticket.email_address.as_deref(), None, ticket.title_len),
        Record::Log(line) => (None, line.level.as_deref(), 0),
    };
    Escalation {
        reason: Cow::Owned(reason.to_string()),
        email_address: email_address.map(Cow::Borrowed),
        level: level.map(Cow::Borrowed),
        title_len,
        rule_priority,
        stated_priority: record.stated_priority(),
        event: QueueEvent { text: Some(Cow::Borrowed(record.text())), ..event },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_agrees_with_the_plain_formatter() {
        let mut clock = Clock::default();
        for millis in [0, 1, 999, 1_000, 1_700_000_000_123, 1_700_000_000_999, -1, -62_135_596_800_000, i64::MAX, 5] {
            assert_eq!(clock.format(millis), rfc3339(millis), "{millis}");
        }
    }
}
