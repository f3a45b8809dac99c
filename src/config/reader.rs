//! Typed reading of the merged tree. A reader never stops at a fault: it notes it, answers with a stand-in, and goes
//! on, so that one pass finds everything. What nobody asked for is an unknown key.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::fault::Fault;
use super::tree::{Node, Origin, Table};
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// What has been read so far, and what was wrong with it.
#[derive(Default)]
pub(super) struct Ledger {
    faults: Vec<(Origin, Fault)>,
    /// Place and value of each setting that was read, for rules that concern several.
    seen: HashMap<String, (Origin, String)>,
}

impl Ledger {
    /// Notes a fault without showing the value.
    pub(super) fn hidden_fault(&mut self, origin: &Origin, key: &str, rule: impl Into<String>) {
        self.push(origin, key, None, rule.into());
    }

    /// Notes that a setting, already read, breaks a rule.
    pub(super) fn fault(&mut self, key: &str, rule: impl Into<String>) {
        let (origin, value) = match self.seen.get(key) {
            Some((origin, value)) => (origin.clone(), Some(value.clone())),
            None => (Origin::Default, None),
        };
        self.push(&origin, key, value, rule.into());
    }

    /// True when neither one of the settings nor a table around it has a fault: only then does a rule about several
    /// settings make sense.
    pub(super) fn sound(&self, keys: &[&str]) -> bool {
        let concerns = |fault: &Fault, key: &str| {
            key.strip_prefix(&fault.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.faults.iter().any(|(_, fault)| keys.iter().any(|key| concerns(fault, key)))
    }

    /// Notes that two settings exclude each other, at the one that the user wrote: that is the line to change. Each
    /// comes with the rule that it breaks.
    pub(super) fn conflict(&mut self, first: (&str, String), second: (&str, String)) {
        if self.sound(&[first.0, second.0]) {
            let (key, rule) = if self.is_default(first.0) { second } else { first };
            self.fault(key, rule);
        }
    }

    /// Whether nobody has changed the setting.
    fn is_default(&self, key: &str) -> bool {
        self.seen.get(key).is_none_or(|(origin, _)| *origin == Origin::Default)
    }

    pub(super) fn into_faults(self) -> Vec<(Origin, Fault)> {
        self.faults
    }

    fn push(&mut self, origin: &Origin, key: &str, value: Option<String>, rule: String) {
        let fault = Fault { place: origin.to_string(), key: key.to_owned(), value, rule };
        self.faults.push((origin.clone(), fault));
    }
}

/// One table of the configuration while it is read. Reading a key takes it out.
pub(super) struct Section<'a> {
    ledger: &'a mut Ledger,
    path: String,
    table: Table,
    /// Where the table begins, for keys that are missing.
    origin: Origin,
    asked: Vec<&'static str>,
    /// The table itself was no table, which is one fault already; its keys are then not missed.
    broken: bool,
}

/// Reads a whole table: `read` takes the keys that it knows, whatever is left is unknown.
pub(super) fn read_table<T>(
    ledger: &mut Ledger,
    path: &str,
    node: Option<Node>,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> T {
    let origin = node.as_ref().map_or(Origin::Default, |node| node.origin.clone());
    let (table, broken) = match node.map(Node::into_table) {
        Some(Ok(table)) => (table, false),
        Some(Err(rule)) => {
            ledger.hidden_fault(&origin, path, rule);
            (Table::new(), true)
        }
        // default.toml has every table with keys that must be there, so one that is absent stands in one that is broken.
        None => (Table::new(), true),
    };
    let mut section = Section { ledger, path: path.to_owned(), table, origin, asked: Vec::new(), broken };
    let result = read(&mut section);
    section.report_unknown();
    result
}

impl Section<'_> {
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn ledger(&mut self) -> &mut Ledger {
        self.ledger
    }

    /// Notes that a key of this table, already read, breaks a rule.
    pub(super) fn fault(&mut self, key: &str, rule: impl Into<String>) {
        let key = self.key(key);
        self.ledger.fault(&key, rule);
    }

    /// Notes that a key of this table is not there and must be.
    pub(super) fn missing(&mut self, key: &str, rule: impl Into<String>) {
        if !self.broken {
            let (key, origin) = (self.key(key), self.origin.clone());
            self.ledger.hidden_fault(&origin, &key, rule);
        }
    }

    /// Takes a key out; `None` when it is not there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.asked.push(key);
        let node = self.table.remove(key)?;
        self.ledger.seen.insert(self.key(key), (node.origin.clone(), node.value.to_string()));
        Some(node)
    }

    /// What stands there, which is still to be read.
    pub(super) fn peek(&self, key: &str) -> Option<&Node> {
        self.table.get(key)
    }

    /// All keys that are left, for tables whose keys the user chooses.
    pub(super) fn take_rest(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let node = self.take(key);
        let path = self.key(key);
        read_table(self.ledger, &path, node, read)
    }

    /// Reads a key that must be there; `stand_in` is the answer where there is a fault.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        stand_in: T,
        convert: impl FnOnce(Node) -> Result<T, String>,
    ) -> T {
        match self.take(key).map(convert) {
            Some(Ok(value)) => return value,
            Some(Err(rule)) => self.fault(key, rule),
            None => self.missing(key, "is missing"),
        }
        stand_in
    }

    pub(super) fn nonempty_text(&mut self, key: &'static str) -> String {
        self.read(key, String::new(), |node| match node.as_text()?.trim() {
            "" => Err("must not be empty".to_owned()),
            text => Ok(text.to_owned()),
        })
    }

    /// Text that a parser understands.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        stand_in: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.read(key, stand_in, |node| parse(node.as_text()?))
    }

    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.read(key, false, |node| node.as_bool())
    }

    pub(super) fn count(&mut self, key: &'static str, allowed: RangeInclusive<usize>) -> usize {
        self.read(key, *allowed.start(), |node| {
            let number = usize::try_from(node.as_integer()?).ok();
            within(number, &allowed, ToString::to_string)
        })
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, key: &'static str) -> f64 {
        self.read(key, 0.0, |node| within(Some(node.as_number()?), &(0.0..=1.0), ToString::to_string))
    }

    pub(super) fn duration(&mut self, key: &'static str, allowed: RangeInclusive<Duration>) -> Duration {
        self.read(key, *allowed.start(), |node| {
            let rule = "expected a duration such as \"500ms\" or \"2s\"";
            let duration = parse_duration(node.as_text().map_err(|_| rule)?)?;
            within(Some(duration), &allowed, |limit| show_duration(*limit))
        })
    }

    /// A number of bytes.
    pub(super) fn size(&mut self, key: &'static str, allowed: RangeInclusive<usize>) -> usize {
        self.read(key, *allowed.start(), |node| {
            let rule = "expected a size such as \"512KiB\" or \"64MiB\"";
            let bytes = parse_size(node.as_text().map_err(|_| rule)?)?;
            within(Some(bytes), &allowed, |limit| show_size(*limit))
        })
    }

    /// One of several names; the first is the stand-in.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        self.parsed(key, choices[0].1, |text| choose(text, choices))
    }

    /// A list of texts, each with its place.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<(Origin, String)> {
        self.read(key, Vec::new(), |node| {
            let items = node.into_list()?;
            items
                .into_iter()
                .map(|item| match item.as_text() {
                    Ok(text) => Ok((item.origin.clone(), text.to_owned())),
                    Err(_) => Err("expected a list of texts in quotes".to_owned()),
                })
                .collect()
        })
    }

    /// A table whose keys the user chooses.
    pub(super) fn map<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> BTreeMap<String, T> {
        self.table(key, |section| {
            let mut map = BTreeMap::new();
            for (name, node) in section.take_rest() {
                let path = section.key(&name);
                let shown = node.value.to_string();
                match node.as_text().and_then(&parse) {
                    Ok(value) => {
                        section.ledger.seen.insert(path, (node.origin, shown));
                        map.insert(name, value);
                    }
                    Err(rule) => section.ledger.push(&node.origin, &path, Some(shown), rule),
                }
            }
            map
        })
    }

    fn report_unknown(mut self) {
        for (key, node) in std::mem::take(&mut self.table) {
            let rule = match closest(&key, &self.asked) {
                Some(known) => format!("there is no such setting; did you mean `{known}`?"),
                None => format!("there is no such setting; known here: {}", self.asked.join(", ")),
            };
            let path = self.key(&key);
            self.ledger.hidden_fault(&node.origin, &path, rule);
        }
    }
}

/// The value of a name, or a fault that lists the names.
pub(super) fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// The known name that a mistyped one most likely means.
pub(crate) fn closest<'n>(mistyped: &str, known: &[&'n str]) -> Option<&'n str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&mistyped.to_lowercase(), name);
    known
        .iter()
        .map(|name| (distance(name), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

fn within<T: PartialOrd + Copy>(
    value: Option<T>,
    allowed: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    value
        .filter(|value| allowed.contains(value))
        .ok_or_else(|| format!("must be from {} to {}", show(allowed.start()), show(allowed.end())))
}
