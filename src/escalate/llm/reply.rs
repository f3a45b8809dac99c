//! From what a model wrote to an answer. Read with patience: fences, thoughts and prose around the JSON are passed over.
//! Judged without: the label is one of the known ones, the confidence a number from 0 to 1, and there is one answer only.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::labels::{ABSTAIN, LabelSet, folded};
use super::prompt::{MAX_REASON_CHARS, cut};

/// Places at which JSON may begin that are tried. Whoever writes more braces than that does not answer.
const MAX_TRIED: usize = 32;

/// An answer. Its reason was made of the ticket's words, so it is as confidential.
#[derive(Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) label: Arc<str>,
    /// As the model says.
    pub(super) stated: f32,
    pub(super) reason: String,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reply { label, stated, reason: _ } = self;
        f.debug_struct("Reply").field("label", label).field("stated", stated).finish_non_exhaustive()
    }
}

/// Why what was written is not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAnAnswer {
    #[error("there is no JSON object with a label")]
    NoObject,
    #[error("there are several answers that differ")]
    Ambiguous,
    #[error("the label is not one of the known ones")]
    UnknownLabel,
    #[error("the confidence is not a number from 0 to 1")]
    Confidence,
    #[error("the model does not know")]
    Abstained,
}

/// Reads the one answer in `content`.
pub(super) fn read(content: &str, labels: &LabelSet) -> Result<Reply, NotAnAnswer> {
    // Models that think aloud try out answers there.
    let content = content.rsplit_once("</think>").map_or(content, |(_, behind)| behind);
    let mut read: Option<Reply> = None;
    for object in objects(content) {
        let reply = judge(&object, labels)?;
        match &read {
            Some(first) if (&first.label, first.stated) != (&reply.label, reply.stated) => {
                return Err(NotAnAnswer::Ambiguous);
            }
            _ => read = Some(reply),
        }
    }
    read.ok_or(NotAnAnswer::NoObject)
}

fn judge(object: &Map<String, Value>, labels: &LabelSet) -> Result<Reply, NotAnAnswer> {
    let label = object.get("label").and_then(Value::as_str).ok_or(NotAnAnswer::UnknownLabel)?;
    let Some(known) = labels.find(label) else {
        let abstains = labels.may_abstain() && folded(label) == ABSTAIN;
        return Err(if abstains { NotAnAnswer::Abstained } else { NotAnAnswer::UnknownLabel });
    };
    let stated = match object.get("confidence") {
        Some(Value::Number(number)) => number.as_f64(),
        // Small models quote numbers.
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let stated = stated.filter(|stated| (0.0..=1.0).contains(stated)).ok_or(NotAnAnswer::Confidence)?;
    let reason = object.get("reason").and_then(Value::as_str).unwrap_or_default();
    Ok(Reply { label: Arc::clone(known), stated: stated as f32, reason: one_line(reason) })
}

/// The JSON objects with a label, in order, none within another.
fn objects(content: &str) -> Vec<Map<String, Value>> {
    let mut found = Vec::new();
    let mut at = 0;
    for _ in 0..MAX_TRIED {
        let Some(brace) = content[at..].find('{') else { break };
        at += brace;
        let mut stream = serde_json::Deserializer::from_str(&content[at..]).into_iter::<Strict>();
        match stream.next() {
            Some(Ok(Strict(object))) => {
                at += stream.byte_offset();
                if object.contains_key("label") {
                    found.push(object);
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// An object that has no member twice at its top: of two labels nobody could tell which is meant.
struct Strict(Map<String, Value>);

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
                let mut members = Map::new();
                while let Some((key, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(key, value).is_some() {
                        return Err(serde::de::Error::custom("a member stands there twice"));
                    }
                }
                Ok(Strict(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Without line ends and control characters, and not too long.
fn one_line(reason: &str) -> String {
    let words: Vec<&str> =
        reason.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    cut(&words.join(" "), MAX_REASON_CHARS).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::labels::Label;
    use super::*;

    fn labels() -> LabelSet {
        LabelSet::try_new(vec![Label::new("VPN", ""), Label::new("HR Support", "")]).expect("they are sound")
    }

    fn label(content: &str) -> Result<String, NotAnAnswer> {
        read(content, &labels()).map(|reply| reply.label.to_string())
    }

    #[test]
    fn what_stands_around_an_answer_is_passed_over() {
        let answer = r#"{"label":"vpn ","confidence":0.9,"reason":"r"}"#;
        for content in [
            answer.to_owned(),
            format!("```json\n{answer}\n```"),
            format!("Sure! Here {{is}} it: {answer} Hope that helps."),
            format!("<think>{{\"label\":\"HR Support\"}} or {{</think>\n{answer}"),
            format!("{answer}\n{answer}"),
            format!("{{\"schema\":1}} {answer}"),
            answer.replace("0.9", "\"0.9\""),
            answer.replace("\"reason\":\"r\"", "\"extra\":[{}]"),
        ] {
            assert_eq!(label(&content).as_deref(), Ok("VPN"), "{content}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_none() {
        use NotAnAnswer::*;
        for (content, expected) in [
            ("", NoObject),
            ("VPN", NoObject),
            (r#"{"label":"VPN","confidence":0.9"#, NoObject),
            (r#"{"answer":{"label":"VPN","confidence":0.9}}"#, NoObject),
            (r#"["VPN"]"#, NoObject),
            (r#"{"label":"VPN","label":"HR Support","confidence":0.9}"#, NoObject),
            (r#"{"label":"root","confidence":0.9}"#, UnknownLabel),
            (r#"{"label":"VPN or HR Support","confidence":0.9}"#, UnknownLabel),
            (r#"{"label":["VPN"],"confidence":0.9}"#, UnknownLabel),
            (r#"{"label":null,"confidence":0.9}"#, UnknownLabel),
            (r#"{"label":"Unsure","confidence":0.9}"#, Abstained),
            (r#"{"label":"VPN"}"#, Confidence),
            (r#"{"label":"VPN","confidence":95}"#, Confidence),
            (r#"{"label":"VPN","confidence":-0.1}"#, Confidence),
            (r#"{"label":"VPN","confidence":"NaN"}"#, Confidence),
            (r#"{"label":"VPN","confidence":"high"}"#, Confidence),
            (r#"{"label":"VPN","confidence":1} {"label":"HR Support","confidence":1}"#, Ambiguous),
            (r#"{"label":"VPN","confidence":1} {"label":"VPN","confidence":0.2}"#, Ambiguous),
        ] {
            assert_eq!(label(content), Err(expected), "{content}");
        }
    }

    #[test]
    fn reasons_are_short_and_of_one_line() {
        let content = serde_json::json!({ "label": "VPN", "confidence": 1, "reason": format!("a\n\u{1b}[31m {}", "ü".repeat(300)) });
        let reply = read(&content.to_string(), &labels()).expect("it is an answer");
        assert_eq!(reply.reason.chars().count(), MAX_REASON_CHARS);
        assert!(reply.reason.starts_with("a [31m ü"));
        assert!(!format!("{reply:?}").contains('ü'));
    }

    proptest! {
        #[test]
        fn nothing_written_panics_or_makes_another_label(content in "[{}\"label:confidence,VPN0-9. \\n]{0,80}", any in ".{0,80}") {
            for content in [content, any] {
                if let Ok(reply) = read(&content, &labels()) {
                    prop_assert!(&*reply.label == "VPN" || &*reply.label == "HR Support");
                    prop_assert!((0.0..=1.0).contains(&reply.stated));
                }
            }
        }
    }
}
