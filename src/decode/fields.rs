//! The configured field names as a tree: which JSON key means what, looked up without allocating.

use std::sync::Arc;

use crate::config::FieldNames;

/// What a field's value is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    TicketId,
    Title,
    Text,
    Timestamp,
    EmailAddress,
    Priority,
    Source,
    Level,
}

impl Meaning {
    pub(super) const COUNT: usize = 8;
}

/// One key at one level of the tree.
#[derive(Debug)]
pub(super) struct Field {
    name: Box<str>,
    /// What a scalar under this key means, with its rank among the names of that meaning: lower wins.
    pub(super) meanings: Vec<(Meaning, usize)>,
    /// The keys of interest when the value is an object.
    pub(super) children: Level,
}

/// The keys of interest in one object. There are so few that comparing them all is faster than hashing.
#[derive(Debug, Default)]
pub(super) struct Level(Vec<Field>);

impl Level {
    pub(super) fn find(&self, key: &str) -> Option<&Field> {
        self.0.iter().find(|field| *field.name == *key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn entry(&mut self, name: &str) -> &mut Field {
        let index = match self.0.iter().position(|field| *field.name == *name) {
            Some(index) => index,
            None => {
                self.0.push(Field { name: name.into(), meanings: Vec::new(), children: Level::default() });
                self.0.len() - 1
            }
        };
        &mut self.0[index]
    }

    fn add(&mut self, name: &str, meaning: Meaning, rank: usize) {
        self.entry(name).meanings.push((meaning, rank));
        if let Some((head, tail)) = name.split_once('.') {
            self.entry(head).children.add(tail, meaning, rank);
        }
    }
}

#[derive(Debug)]
pub(super) struct FieldTree {
    pub(super) root: Level,
    text_fields: Arc<str>,
}

impl FieldTree {
    /// `log.level` is found both in `{"log": {"level": ...}}` and in `{"log.level": ...}`.
    pub(super) fn new(names: &FieldNames) -> Self {
        let by_meaning = [
            (Meaning::TicketId, &names.ticket_id),
            (Meaning::Title, &names.title),
            (Meaning::Text, &names.text),
            (Meaning::Timestamp, &names.timestamp),
            (Meaning::EmailAddress, &names.email_address),
            (Meaning::Priority, &names.priority),
            (Meaning::Source, &names.source),
            (Meaning::Level, &names.level),
        ];
        let mut root = Level::default();
        for (meaning, names) in by_meaning {
            for (rank, name) in names.iter().enumerate() {
                root.add(name, meaning, rank);
            }
        }
        let text_fields: Vec<String> = names.title.iter().chain(&names.text).map(|name| format!("`{name}`")).collect();
        FieldTree { root, text_fields: text_fields.join(", ").into() }
    }

    /// The names that were tried for a record's text, for the reason of a reject.
    pub(super) fn text_fields(&self) -> Arc<str> {
        Arc::clone(&self.text_fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotted_name_is_a_path_and_a_key() {
        let names = FieldNames { level: vec!["log.level".into(), "level".into()], ..FieldNames::default() };
        let tree = FieldTree::new(&names);
        assert_eq!(tree.root.find("log.level").unwrap().meanings, [(Meaning::Level, 0)]);
        assert_eq!(tree.root.find("level").unwrap().meanings, [(Meaning::Level, 1)]);
        let log = tree.root.find("log").unwrap();
        assert!(log.meanings.is_empty());
        assert_eq!(log.children.find("level").unwrap().meanings, [(Meaning::Level, 0)]);
        assert!(tree.root.find("message").is_none());
    }
}
