//! Decisions for those who bring a record themselves instead of through Kafka: the decoders, the classifier and the event
//! code of the stream, without its offsets and topics.

use std::sync::Arc;

use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::{Config, DecodeSettings, Format, IncludeText};
use crate::decode::{Decoder, Reject};
use crate::record::{
    Alternative, Arm, Indicators, Kind, Priority, QueueEvent, Reason, Routing, Shadow, SourcePosition, rfc3339,
};
use crate::rules::indicators;

use super::classifier::{Classifier, Scratch};
use super::decide::Action;
use super::event;

/// What would become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// The decision stands.
    Publish,
    /// A rule discards the record.
    Drop,
    /// A slower tier would be asked, where there is one.
    Escalate,
}

impl Fate {
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::Publish => "publish",
            Fate::Drop => "drop",
            Fate::Escalate => "escalate",
        }
    }
}

/// The decision on one record: what a queue event says, without a place in Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Decision {
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<String>,
    /// The system that the record names as its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    #[schema(format = "date-time")]
    pub occurred_at: String,
    #[schema(format = "date-time")]
    pub decided_at: String,
    pub queue: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    pub priority: Priority,
    /// Calibrated probability that `queue` is right; 1.0 for a rule.
    #[schema(minimum = 0, maximum = 1)]
    pub confidence: f32,
    pub routing: Routing,
    /// `rule:<id>`, `cache`, `fast`, or `none` when nobody could say anything.
    pub decided_by: String,
    pub action: Fate,
    /// The model's other labels, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative<'static>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason<'static>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Indicators::is_empty")]
    pub indicators: Indicators,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whose record it is, while a challenger is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<Arm>,
    /// What the challenger says, while it is tried in the shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow<'static>>,
    /// Version of the configuration that decided, with its rules and models.
    pub config: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<String>,
}

impl Decision {
    fn new(event: QueueEvent<'_>, action: Fate) -> Self {
        let owned = |text: Option<std::borrow::Cow<'_, str>>| text.map(std::borrow::Cow::into_owned);
        Decision {
            kind: event.kind,
            ticket_id: owned(event.ticket_id),
            origin: owned(event.origin),
            occurred_at: event.occurred_at.into_owned(),
            decided_at: event.decided_at.into_owned(),
            queue: event.queue.into_owned(),
            category: owned(event.category),
            priority: event.priority,
            confidence: event.confidence,
            routing: event.routing,
            decided_by: event.decided_by.into_owned(),
            action,
            alternatives: event
                .alternatives
                .into_iter()
                .map(|other| Alternative {
                    label: other.label.into_owned().into(),
                    probability: other.probability,
                    decided_by: other.decided_by.map(|tier| tier.into_owned().into()),
                })
                .collect(),
            reasons: event
                .reasons
                .into_iter()
                .map(|reason| Reason { feature: reason.feature.into_owned().into(), weight: reason.weight })
                .collect(),
            tags: event.tags.into_iter().map(std::borrow::Cow::into_owned).collect(),
            indicators: event.indicators,
            model: owned(event.model),
            arm: event.arm,
            shadow: event.shadow.map(|shadow| Shadow {
                model: shadow.model.into_owned().into(),
                queue: shadow.queue.into_owned().into(),
                confidence: shadow.confidence,
            }),
            config: owned(event.config).unwrap_or_default(),
            template_id: owned(event.template_id),
        }
    }
}

/// Classifies one record at a time. Shared by all threads; each brings its own `Scratch`.
#[derive(Debug)]
pub struct Desk {
    version: Arc<str>,
    classifier: Arc<Classifier>,
    by_topic: Vec<(Arc<str>, Arc<Decoder>)>,
    /// In the order of `Kind::ALL`; `None` where no input is of that kind.
    by_kind: [Option<Arc<Decoder>>; Kind::ALL.len()],
    indicators: bool,
    explain: usize,
    max_record_bytes: usize,
}

impl Desk {
    pub fn new(config: &Config, version: Arc<str>, classifier: Arc<Classifier>) -> Self {
        let inputs = config.inputs.iter();
        let of_kind = |kind| config.inputs.iter().find(|input| input.decode.kind == kind);
        // Who names no topic may bring records in any format.
        let any_format = |settings: &DecodeSettings| DecodeSettings { format: Format::Auto, ..settings.clone() };
        Desk {
            version,
            classifier,
            by_topic: inputs.map(|input| (Arc::clone(&input.topic), Decoder::new(&input.decode).into())).collect(),
            by_kind: Kind::ALL.map(|kind| of_kind(kind).map(|input| Decoder::new(&any_format(&input.decode)).into())),
            indicators: config.output.indicators,
            explain: config.output.explain,
            max_record_bytes: config.inputs.iter().map(|input| input.decode.max_record_bytes).max().unwrap_or_default(),
        }
    }

    /// What decisions name the configuration by.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// No record may be larger.
    pub fn max_record_bytes(&self) -> usize {
        self.max_record_bytes
    }

    /// How the records of an input topic are decoded.
    pub fn decoder_of_topic(&self, topic: &str) -> Option<Arc<Decoder>> {
        self.by_topic.iter().find(|(known, _)| **known == *topic).map(|(_, decoder)| Arc::clone(decoder))
    }

    /// How records of a kind are decoded, whatever their format.
    pub fn decoder_of_kind(&self, kind: Kind) -> Option<Arc<Decoder>> {
        self.by_kind[kind as usize].clone()
    }

    /// Decides on one value as a producer would send it. `explain`: how many reasons are named, if not as many as the
    /// configuration says.
    pub fn decide(
        &self,
        decoder: &Decoder,
        value: &[u8],
        explain: Option<usize>,
        scratch: &mut Scratch,
    ) -> Result<Decision, Reject> {
        let now = Utc::now().timestamp_millis();
        let record = decoder.decode(value, now)?;
        let key = record.ticket_id().unwrap_or(record.text()).as_bytes();
        let verdict = self.classifier.classify(&record, key, scratch);
        let found = if self.indicators { indicators::extract(record.text()) } else { Indicators::default() };
        // No place in Kafka, which the decision leaves out again.
        let nowhere = SourcePosition { topic: "".into(), partition: 0, offset: 0 };
        let (occurred_at, decided_at) = (rfc3339(record.occurred_at()), rfc3339(now));
        let never = IncludeText::Never;
        let mut event = event::queue_event(nowhere, &record, &verdict, found, &occurred_at, &decided_at, never);
        event.config = Some(self.version.as_ref().into());
        event.reasons = self.classifier.explain(&record, &verdict, explain.unwrap_or(self.explain));
        let fate = match verdict.action {
            Action::Publish => Fate::Publish,
            Action::Drop => Fate::Drop,
            Action::Escalate(_) => Fate::Escalate,
        };
        Ok(Decision::new(event, fate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Models;
    use crate::rules::RuleSet;

    fn desk() -> Desk {
        let config = Config::from_toml("").unwrap();
        let rules = "[[rule]]\nid = \"ssh\"\ndescription = \"x\"\nkind = \"any\"\nany = [\"failed password\"]\n\
                     queue = \"soc\"\n[[rule]]\nid = \"noise\"\ndescription = \"x\"\nkind = \"any\"\n\
                     any = [\"heartbeat\"]\ndrop = true\n";
        let rules = RuleSet::parse(&[("test.toml".into(), rules.to_owned())]).unwrap();
        Desk::new(&config, "test".into(), Arc::new(Classifier::new(&config, rules, Models::default())))
    }

    #[test]
    fn a_line_is_decided_as_in_the_stream() {
        let desk = desk();
        let decoder = desk.decoder_of_topic("logs").unwrap();
        let mut scratch = Scratch::default();
        let mut decide = |text: &str| desk.decide(&decoder, text.as_bytes(), None, &mut scratch);
        let decision = decide("Failed password for root from 10.1.2.3").unwrap();
        assert_eq!((&*decision.queue, &*decision.decided_by, decision.action), ("soc", "rule:ssh", Fate::Publish));
        assert_eq!(decision.indicators.ips, ["10.1.2.3"]);
        assert_eq!(decide("heartbeat").unwrap().action, Fate::Drop);
        let unsure = decide("anything else").unwrap();
        assert_eq!((unsure.action, unsure.routing), (Fate::Escalate, Routing::ManualTriage));
        assert_eq!(decide("{}").unwrap_err().reason(), "missing_text");
    }

    #[test]
    fn a_ticket_of_any_format_keeps_its_id() {
        let desk = desk();
        let decoder = desk.decoder_of_kind(Kind::Ticket).unwrap();
        let ticket = br#"{"ticket_id": "T-1", "title": "SSH", "content": "failed password"}"#;
        let decision = desk.decide(&decoder, ticket, None, &mut Scratch::default()).unwrap();
        assert_eq!((decision.kind, decision.ticket_id.as_deref()), (Kind::Ticket, Some("T-1")));
        assert!(desk.decoder_of_topic("nowhere").is_none());
    }
}
