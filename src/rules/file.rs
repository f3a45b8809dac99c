//! One rule file: TOML in, checked rules and every fault with its line out.
//!
//! ```toml
//! [[rule]]
//! id = "log.user_login"                # required, unique over all files
//! description = "A user logged in."    # required
//! kind = "log"                         # ticket, log or any (the default)
//! source = "ModernCRM"                 # optional; a list means one of them
//! any = ["logged in", "signed in"]     # at least one occurs
//! all = ["user"]                       # all occur
//! none = ["failed"]                    # none occurs
//! regex = 'user \w+ (logged|signed) in'
//! case_sensitive = false               # the default: ASCII letters match in both cases
//! whole_words = false                  # the default: a literal may be part of a word
//! # The outcome: what is known of queue, category, priority and tags, or `drop`, or `escalate`.
//! category = "User Action"
//! match = ["User User7 logged in.", { text = "user x signed in", source = "ModernCRM" }]
//! no_match = ["User User7 logged out."]
//! ```
//!
//! All conditions that a rule has must hold. The regex is that of the `regex` crate over bytes, with ASCII `\w`, `\d`,
//! `\s` and `\b`; `(?u)` switches Unicode on. An example that names no source is given the rule's first one, and one
//! that names no kind the rule's own, or `log` for a rule of any kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::record::{Kind, Priority};

use super::fault::{Problem, RuleFault};
use super::pattern::Pattern;
use super::rule::*;

const KEYS: [&str; 18] = [
    "id",
    "description",
    "kind",
    "source",
    "any",
    "all",
    "none",
    "regex",
    "case_sensitive",
    "whole_words",
    "queue",
    "category",
    "priority",
    "tags",
    "drop",
    "escalate",
    "match",
    "no_match",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
}

type RawRule = BTreeMap<Spanned<String>, Spanned<Value>>;

/// Reads one file. Rules with faults are left out.
pub(super) fn parse(file: &Arc<str>, text: &str) -> (Vec<Rule>, Vec<RuleFault>) {
    let lines = LineIndex::new(text);
    let raw: RawFile = match toml::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            let problem = Problem::Syntax(error.message().trim().replace('\n', ", "));
            let line = error.span().map(|span| lines.line(span.start));
            return (Vec::new(), vec![RuleFault { file: file.clone(), line, rule: None, problem }]);
        }
    };
    let mut rules = Vec::with_capacity(raw.rule.len());
    let mut faults = Vec::new();
    for table in raw.rule {
        let line = lines.line(table.span().start);
        let mut fields = Fields::new(table.into_inner(), line, &lines);
        let rule = read_rule(file, &mut fields);
        if fields.faults.is_empty() {
            rules.push(rule);
        }
        let id = fields.id;
        faults.extend(fields.faults.into_iter().map(|(line, problem)| RuleFault {
            file: file.clone(),
            line: Some(line),
            rule: id.clone(),
            problem,
        }));
    }
    (rules, faults)
}

fn read_rule(file: &Arc<str>, fields: &mut Fields) -> Rule {
    let id = fields.required_name("id", MAX_ID_BYTES);
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        fields.fault("id", Problem::BadId);
    }
    let description = fields.required_name("description", 1024);
    let scope = fields.scope();
    let sources = fields.strings("source", MAX_NAME_BYTES);
    let case_sensitive = fields.flag("case_sensitive");
    let any = fields.literals("any");
    let all = fields.literals("all");
    let none = fields.literals("none");
    let regex = fields.name("regex", Pattern::MAX_BYTES).and_then(|source| {
        Pattern::compile(&source, case_sensitive).map_err(|problem| fields.fault("regex", problem)).ok()
    });
    let outcome = Outcome {
        queue: fields.name("queue", MAX_NAME_BYTES),
        category: fields.name("category", MAX_NAME_BYTES),
        priority: fields.priority(),
        tags: fields.tags(),
        drop: fields.flag("drop"),
        escalate: fields.flag("escalate"),
    };
    let rule = Rule {
        id,
        description,
        file: file.clone(),
        line: fields.line,
        scope,
        any,
        all,
        none,
        regex,
        case_sensitive,
        whole_words: fields.flag("whole_words"),
        outcome,
        match_examples: fields.examples("match", scope, &sources),
        no_match_examples: fields.examples("no_match", scope, &sources),
        sources,
    };
    fields.refuse_unknown();
    // A value that could not be read looks like one that is missing, which would only confuse.
    if fields.faults.is_empty() {
        fields.faults.extend(rule.check().into_iter().map(|problem| (fields.line, problem)));
    }
    rule
}

/// The keys of one rule that were not read yet, and what was wrong with those that were.
struct Fields {
    values: BTreeMap<String, (usize, Value)>,
    /// Lines of the keys that were taken out.
    lines: BTreeMap<String, usize>,
    line: usize,
    id: Option<String>,
    faults: Vec<(usize, Problem)>,
}

impl Fields {
    fn new(table: RawRule, line: usize, lines: &LineIndex) -> Self {
        let values: BTreeMap<_, _> = table
            .into_iter()
            .map(|(key, value)| {
                let line = lines.line(key.span().start);
                (key.into_inner(), (line, value.into_inner()))
            })
            .collect();
        let id = values.get("id").and_then(|(_, id)| id.as_str()).map(str::to_owned);
        let lines = values.iter().map(|(key, (line, _))| (key.clone(), *line)).collect();
        Self { values, lines, line, id, faults: Vec::new() }
    }

    fn fault(&mut self, key: &str, problem: Problem) {
        let line = self.lines.get(key).copied().unwrap_or(self.line);
        self.faults.push((line, problem));
    }

    fn wrong_type(&mut self, key: &str, expected: &'static str) {
        self.fault(key, Problem::WrongType { key: key.to_owned(), expected });
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key).map(|(_, value)| value)
    }

    fn name(&mut self, key: &str, limit: usize) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => self.checked(key, text, limit),
            _ => {
                self.wrong_type(key, "a text");
                None
            }
        }
    }

    fn required_name(&mut self, key: &'static str, limit: usize) -> String {
        if !self.values.contains_key(key) {
            self.fault(key, Problem::Missing(key));
        }
        self.name(key, limit).unwrap_or_default()
    }

    fn checked(&mut self, key: &str, text: String, limit: usize) -> Option<String> {
        let problem = match text.len() {
            _ if text.trim().is_empty() => Problem::Empty { key: key.to_owned() },
            length if length > limit => Problem::TooLong { key: key.to_owned(), limit },
            _ => return Some(text),
        };
        self.fault(key, problem);
        None
    }

    /// A text, or a list of texts.
    fn strings(&mut self, key: &str, limit: usize) -> Vec<String> {
        let list = match self.take(key) {
            None => return Vec::new(),
            Some(Value::String(text)) => vec![Value::String(text)],
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.wrong_type(key, "a list of texts");
                return Vec::new();
            }
        };
        if list.is_empty() {
            self.fault(key, Problem::Empty { key: key.to_owned() });
        }
        if list.len() > MAX_LITERALS {
            self.fault(key, Problem::TooMany { key: key.to_owned(), limit: MAX_LITERALS });
        }
        let mut texts = Vec::with_capacity(list.len());
        for value in list {
            match value {
                Value::String(text) => texts.extend(self.checked(key, text, limit)),
                _ => self.wrong_type(key, "a list of texts"),
            }
        }
        texts
    }

    fn literals(&mut self, key: &str) -> Vec<String> {
        let literals = self.strings(key, MAX_LITERAL_BYTES);
        for (index, literal) in literals.iter().enumerate() {
            if literal.len() < MIN_LITERAL_BYTES {
                self.fault(key, Problem::LiteralTooShort(literal.clone()));
            }
            if literals[..index].contains(literal) {
                self.fault(key, Problem::Repeated { key: key.to_owned(), literal: literal.clone() });
            }
        }
        literals
    }

    fn tags(&mut self) -> Vec<String> {
        let tags = self.strings("tags", MAX_NAME_BYTES);
        if tags.len() > MAX_TAGS {
            self.fault("tags", Problem::TooMany { key: "tags".to_owned(), limit: MAX_TAGS });
        }
        for tag in tags.iter().filter(|tag| tag.contains(|c: char| c.is_whitespace() || c.is_control())) {
            self.fault("tags", Problem::BadTag(tag.clone()));
        }
        tags
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.take(key) {
            None => false,
            Some(Value::Boolean(flag)) => flag,
            Some(_) => {
                self.wrong_type(key, "true or false");
                false
            }
        }
    }

    fn scope(&mut self) -> Scope {
        match self.name("kind", MAX_NAME_BYTES).as_deref() {
            None | Some("any") => Scope::Any,
            Some("ticket") => Scope::Ticket,
            Some("log") => Scope::Log,
            Some(_) => {
                self.wrong_type("kind", "`ticket`, `log` or `any`");
                Scope::Any
            }
        }
    }

    fn priority(&mut self) -> Option<Priority> {
        let priority = self.name("priority", MAX_NAME_BYTES)?.parse().ok();
        if priority.is_none() {
            self.wrong_type("priority", "`low`, `medium`, `high` or `critical`");
        }
        priority
    }

    fn examples(&mut self, key: &str, scope: Scope, sources: &[String]) -> Vec<Example> {
        let list = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(single) => vec![single],
        };
        let plain = Example {
            text: String::new(),
            source: sources.first().cloned(),
            kind: if scope == Scope::Ticket { Kind::Ticket } else { Kind::Log },
        };
        list.into_iter().filter_map(|value| self.example(key, value, plain.clone())).collect()
    }

    fn example(&mut self, key: &str, value: Value, plain: Example) -> Option<Example> {
        let example = match value {
            Value::String(text) => Some(Example { text, ..plain }),
            Value::Table(table) => table.into_iter().try_fold(plain, |example, entry| match entry {
                (name, Value::String(text)) if name == "text" => Some(Example { text, ..example }),
                (name, Value::String(source)) if name == "source" => Some(Example { source: Some(source), ..example }),
                (name, Value::String(kind)) if name == "kind" => Some(Example { kind: kind.parse().ok()?, ..example }),
                _ => None,
            }),
            _ => None,
        };
        if example.is_none() {
            self.wrong_type(key, "a list of texts or of tables { text, source, kind }");
        }
        example
    }

    fn refuse_unknown(&mut self) {
        for (key, (line, _)) in std::mem::take(&mut self.values) {
            let known = KEYS.join(", ");
            self.faults.push((line, Problem::UnknownKey { key, known }));
        }
    }
}

/// Finds the line of a byte offset.
struct LineIndex {
    ends: Vec<usize>,
}

impl LineIndex {
    fn new(text: &str) -> Self {
        Self { ends: text.match_indices('\n').map(|(offset, _)| offset).collect() }
    }

    /// Counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(&"f.toml".into(), text).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_listed_with_its_line() {
        let text = r#"
[[rule]]
id = "a b"
description = "d"
any = ["x", "ok", "ok", ""]
colour = "red"

[[rule]]
id = "second"
kind = "mail"
regex = "("
priority = "urgent"
match = [{ txt = "x" }]
"#;
        let expected = [
            "f.toml:3: rule `a b`: an id may hold letters, digits, `.`, `_` and `-` only",
            "f.toml:5: rule `a b`: `any` is empty",
            "f.toml:5: rule `a b`: literal `x` is shorter than 2 bytes",
            "f.toml:5: rule `a b`: `ok` is listed twice in `any`",
            "f.toml:6: rule `a b`: unknown key `colour`; known are id, description, kind, source, any, all, none, regex, \
             case_sensitive, whole_words, queue, category, priority, tags, drop, escalate, match, no_match",
            "f.toml:8: rule `second`: `description` is missing",
            "f.toml:10: rule `second`: `kind` must be `ticket`, `log` or `any`",
            "f.toml:11: rule `second`: regex is invalid: unclosed group (column 1)",
            "f.toml:12: rule `second`: `priority` must be `low`, `medium`, `high` or `critical`",
            "f.toml:13: rule `second`: `match` must be a list of texts or of tables { text, source, kind }",
        ];
        assert_eq!(faults(text), expected);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let rule = |rest: &str| faults(&format!("[[rule]]\nid = 'r'\ndescription = 'd'\n{rest}"));
        let at_rule = |problem: &str| vec![format!("f.toml:1: rule `r`: {problem}")];
        assert_eq!(
            rule("any = ['ok']"),
            at_rule("it has no outcome (queue, category, priority, tags, drop, escalate)")
        );
        assert_eq!(
            rule("queue = 'q'"),
            at_rule("it has no condition (source, any, all, none, regex), and so matches every record")
        );
        assert_eq!(
            rule("any = ['ok']\ndrop = true\npriority = 'low'"),
            at_rule("`drop` and `priority` exclude each other")
        );
        assert_eq!(
            rule("any = ['ok']\nescalate = true\nqueue = 'q'"),
            at_rule("`escalate` and `queue` exclude each other")
        );
        let never = |needed: &str, forbidden: &str| {
            at_rule(&format!("it can never match: `{needed}` must occur, but holds `{forbidden}`, which must not"))
        };
        assert_eq!(rule("all = ['Login failed']\nnone = ['LOGIN']\ndrop = true"), never("Login failed", "LOGIN"));
        assert_eq!(rule("any = ['abc', 'abd']\nnone = ['ab']\ndrop = true"), never("abc", "ab"));
        assert!(rule("any = ['abc', 'acd']\nnone = ['ab']\ndrop = true").is_empty());
        assert!(rule("all = ['login']\nnone = ['log']\nwhole_words = true\ndrop = true").is_empty());
    }

    #[test]
    fn broken_toml_names_its_line() {
        let text = "[[rule]]\nid = 'a'\ndescription = \n";
        let found = faults(text);
        assert!(found.len() == 1 && found[0].starts_with("f.toml:3: not valid TOML: "), "{found:?}");
        assert!(faults("[rules]\n")[0].starts_with("f.toml:1: not valid TOML: unknown field `rules`"));
    }

    #[test]
    fn examples_take_the_rules_source_and_kind() {
        let text = "[[rule]]\nid = 'a'\ndescription = 'd'\nkind = 'ticket'\nsource = ['A', 'B']\ndrop = true\n\
                    match = ['x', { text = 'y', source = 'B' }]";
        let (rules, faults) = parse(&"f.toml".into(), text);
        assert!(faults.is_empty());
        let example = |text: &str, source: &str| Example {
            text: text.to_owned(),
            source: Some(source.to_owned()),
            kind: Kind::Ticket,
        };
        assert_eq!(rules[0].match_examples, [example("x", "A"), example("y", "B")]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(
            pairs in proptest::collection::vec(("[a-z_]{0,9}|any|match|regex|priority|source|kind", "\\PC{0,12}|\\[\\]|true|'.{0,8}'|\\['..', 7\\]|\\{ text = '.' \\}"), 0..8),
            rules in 0usize..3,
        ) {
            let body: String = pairs.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            let text = format!("[[rule]]\n{body}").repeat(rules);
            let (read, faults) = parse(&"f".into(), &text);
            // A rule is read or has a fault; it never vanishes.
            proptest::prop_assert!(rules == 0 || read.len() == rules || !faults.is_empty());
        }
    }
}
