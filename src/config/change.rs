//! What a new configuration changes in a daemon that runs: which settings it can take up, which need a restart, and a
//! hash of those that decide what becomes of a record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::fault::ConfigFaults;
use super::reader::Ledger;
use super::settings::Config;
use super::tree::{Node, Table, Value};

/// Tables and settings that a running daemon takes up. Everything else is connected, bound or shared when it starts.
const LIVE: [&str; 13] = [
    "rules",
    "model",
    "cache",
    "decide",
    "decode",
    "drift",
    "reload",
    "input",
    "output.include_text",
    "output.alternatives",
    "output.explain",
    "output.indicators",
    "output.topics",
];
/// What an event depends on, beside the contents of rules and models.
const DECISIVE: [&str; 7] =
    ["cache", "decide", "decode", "input", "output", "model.challenger.mode", "model.challenger.share"];

/// The merged settings as they were written, and the file among them.
#[derive(Clone, Default)]
pub(super) struct Source {
    tree: Table,
    file: Option<PathBuf>,
    /// Of the file's text.
    hash: Option<u64>,
}

/// Values may be confidential.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn of_tree(tree: Table) -> Self {
        Source { tree, file: None, hash: None }
    }

    pub(super) fn of_file(self, file: Option<(&Path, &str)>) -> Self {
        let hash = file.map(|(_, text)| xxh3_64(text.as_bytes()));
        Source { file: file.map(|(path, _)| path.to_owned()), hash, ..self }
    }
}

impl Config {
    /// The file that was read, with the hash (XXH3) of what was in it.
    pub fn file(&self) -> Option<(&Path, u64)> {
        Some((self.source.file.as_deref()?, self.source.hash?))
    }

    /// This configuration as a daemon that runs with `running` can take it up, and the names of the settings that stay as
    /// they are until a restart.
    ///
    /// # Errors
    /// What stays and what is new may not fit together.
    pub fn over(&self, running: &Config) -> Result<(Config, Vec<String>), ConfigFaults> {
        let (before, after) = (leaves(&running.source.tree), leaves(&self.source.tree));
        let names: BTreeSet<&Vec<String>> = before.keys().chain(after.keys()).collect();
        let plain = |node: Option<&&Node>| node.map(|node| plain(&node.value));
        let same_inputs = running.inputs.len() == self.inputs.len()
            && running
                .inputs
                .iter()
                .zip(&self.inputs)
                .all(|(one, other)| one.topic == other.topic && one.decode.kind == other.decode.kind);
        let stays = |path: &&&Vec<String>| {
            let live = if path[0] == "input" { same_inputs } else { belongs_to(path, &LIVE) };
            !live && plain(before.get(**path)) != plain(after.get(**path))
        };
        let stay: Vec<&Vec<String>> = names.iter().filter(stays).copied().collect();
        if stay.is_empty() {
            return Ok((self.clone(), Vec::new()));
        }
        let mut tree = self.source.tree.clone();
        for path in &stay {
            replace(&mut tree, path, before.get(*path).copied());
        }
        let names = stay.iter().map(|path| path.join(".")).collect();
        let mixed = Config::from_tree(tree, &super::environment(), Ledger::default())?;
        let source = Source { file: self.source.file.clone(), hash: self.source.hash, ..mixed.source.clone() };
        Ok((Config { source, ..mixed }, names))
    }

    /// Hash (XXH3) of the settings that decide what becomes of a record; the names of rule files and models are not among
    /// them, as their contents count.
    pub fn decisive_hash(&self) -> u64 {
        let mut text = String::new();
        for (path, node) in leaves(&self.source.tree).into_iter().filter(|(path, _)| belongs_to(path, &DECISIVE)) {
            writeln!(text, "{} = {}", path.join("."), plain(&node.value)).expect("writing to memory");
        }
        xxh3_64(text.as_bytes())
    }
}

fn belongs_to(path: &[String], names: &[&str]) -> bool {
    names.iter().any(|name| {
        let parts = name.split('.').count();
        path.len() >= parts && path[..parts].join(".") == **name
    })
}

/// Every setting that is no table, by the parts of its name.
fn leaves(table: &Table) -> BTreeMap<Vec<String>, &Node> {
    fn walk<'t>(table: &'t Table, path: &mut Vec<String>, found: &mut BTreeMap<Vec<String>, &'t Node>) {
        for (key, node) in table {
            path.push(key.clone());
            match &node.value {
                Value::Table(inner) => walk(inner, path, found),
                _ => {
                    found.insert(path.clone(), node);
                }
            }
            path.pop();
        }
    }
    let mut found = BTreeMap::new();
    walk(table, &mut Vec::new(), &mut found);
    found
}

/// Puts a setting into the tree, or takes it out.
fn replace(table: &mut Table, path: &[String], node: Option<&Node>) {
    let [key, rest @ ..] = path else { return };
    match (rest, node) {
        ([], Some(node)) => {
            table.insert(key.clone(), node.clone());
        }
        ([], None) => {
            table.remove(key);
        }
        (rest, node) => {
            // A table that only the old configuration has lies where its setting does.
            if !table.contains_key(key) {
                let Some(node) = node else { return };
                table.insert(key.clone(), Node { value: Value::Table(Table::new()), origin: node.origin.clone() });
            }
            if let Some(Node { value: Value::Table(inner), .. }) = table.get_mut(key) {
                replace(inner, rest, node);
            }
        }
    }
}

/// A value without where it was written.
fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| plain(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let items: Vec<String> =
                table.iter().map(|(key, node)| format!("{key:?} = {}", plain(&node.value))).collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_toml(text).expect("a configuration")
    }

    #[test]
    fn what_decides_is_taken_up_and_what_is_connected_stays() {
        let running = config("[kafka]\nbrokers = \"one:9092\"\n[kafka.properties]\n\"linger.ms\" = 5\n");
        let new = config(
            "[kafka]\nbrokers = \"two:9092\"\n[ops]\nlisten = \"\"\n[decide]\nauto_route = 0.9\n[decide.queues]\n\
             \"a.b\" = \"c\"\n[output.topics]\nsoc = \"soc-events\"\n",
        );
        let (effective, stay) = new.over(&running).expect("they fit together");
        assert_eq!(stay, ["kafka.brokers", "kafka.properties.linger.ms", "ops.listen"]);
        assert_eq!((&*effective.kafka.brokers, effective.decide.auto_route), ("one:9092", 0.9));
        assert_eq!(effective.kafka.properties["linger.ms"].reveal(), "5");
        assert!(effective.ops.listen.is_some() && effective.output.topics["soc"] == "soc-events");
        assert_eq!(&*effective.decide.queues["a.b"], "c");
        // The next change is told from what runs, not from what was asked for.
        let (_, stay) = new.over(&effective).expect("they fit together");
        assert_eq!(stay.len(), 3);
        assert_eq!(running.over(&effective).expect("they fit together").1, [""; 0]);
    }

    #[test]
    fn other_input_topics_need_a_restart_and_other_formats_do_not() {
        let input = |topic: &str, format: &str| {
            config(&format!("[[input]]\ntopic = \"{topic}\"\nkind = \"log\"\nformat = \"{format}\"\n"))
        };
        let running = input("a", "json");
        let (effective, stay) = input("a", "cef").over(&running).expect("they fit together");
        assert_eq!((effective.inputs[0].decode.format, stay.len()), (super::super::Format::Cef, 0));
        let (effective, stay) = input("b", "cef").over(&running).expect("they fit together");
        assert_eq!((&*effective.inputs[0].topic, stay), ("a", vec!["input".to_owned()]));
    }

    #[test]
    fn what_stays_must_fit_to_what_is_new() {
        let running = config("[[input]]\ntopic = \"soc\"\nkind = \"log\"\n");
        let new = config("[[input]]\ntopic = \"other\"\nkind = \"log\"\n[output.topics]\nsoc = \"soc\"\n");
        let faults = new.over(&running).expect_err("events would be classified for ever").to_string();
        assert!(faults.contains("output.topics.soc"), "{faults}");
    }

    #[test]
    fn only_what_decides_is_hashed() {
        let hash = |text: &str| config(text).decisive_hash();
        assert_eq!(hash(""), hash("[kafka]\ninstance = \"two\"\n[drift]\nwindow = 300"));
        assert_ne!(hash(""), hash("[decide]\nauto_route = 0.9"));
        assert_ne!(hash(""), hash("[output]\nexplain = 1"));
    }

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", config("[kafka.properties]\n\"client.id\" = \"hunter2\"\n"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
