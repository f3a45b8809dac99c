//! A layer of the configuration as a tree. Every value remembers where it was written, so that a fault can
//! point at the line or at the environment variable.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The file inside the program.
    Default,
    File {
        path: Arc<Path>,
        line: usize,
    },
    Environment(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => f.write_str(name),
        }
    }
}

impl Origin {
    /// The path that was written here; one in a file is relative to the file's folder.
    pub(super) fn resolve(&self, written: &str) -> PathBuf {
        match self {
            Origin::File { path, .. } => path.parent().unwrap_or(Path::new("")).join(written),
            Origin::Default | Origin::Environment(_) => PathBuf::from(written),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(Table),
}

pub(super) type Table = BTreeMap<String, Node>;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Which document a text is.
#[derive(Clone)]
pub(super) enum Document {
    Default,
    File(Arc<Path>),
}

impl Document {
    fn origin(&self, text: &str, span: &Range<usize>) -> Origin {
        match self {
            Document::Default => Origin::Default,
            Document::File(path) => {
                let before = &text.as_bytes()[..span.start.min(text.len())];
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                Origin::File { path: Arc::clone(path), line }
            }
        }
    }
}

/// Parses a TOML document into a table, or says where and why it is not TOML.
pub(super) fn parse(document: &Document, text: &str) -> Result<Table, (Origin, String)> {
    let at = |span: Range<usize>| document.origin(text, &span);
    match DeTable::parse(text) {
        Ok(table) => Ok(convert_table(table.into_inner(), &at)),
        Err(error) => Err((at(error.span().unwrap_or(0..0)), error.message().to_owned())),
    }
}

fn convert_table(table: DeTable<'_>, at: &impl Fn(Range<usize>) -> Origin) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            // The key's place, not the value's: a value may begin lines below its key.
            let origin = at(key.span());
            (key.into_inner().into_owned(), Node { value: convert_value(value.into_inner(), at), origin })
        })
        .collect()
}

fn convert_value(value: DeValue<'_>, at: &impl Fn(Range<usize>) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Boolean(flag) => Value::Bool(flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            // Larger than any setting allows: the range check of the setting answers it.
            Err(_) => Value::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => Value::List(items.into_iter().map(|item| convert_item(item, at)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(table, at)),
    }
}

fn convert_item(item: Spanned<DeValue<'_>>, at: &impl Fn(Range<usize>) -> Origin) -> Node {
    Node { origin: at(item.span()), value: convert_value(item.into_inner(), at) }
}

/// A table of one value at a path.
pub(super) fn nested(path: &[String], leaf: Node) -> Table {
    let (first, rest) = path.split_first().expect("a path has at least one part");
    let node = match rest {
        [] => leaf,
        rest => Node { origin: leaf.origin.clone(), value: Value::Table(nested(rest, leaf)) },
    };
    Table::from([(first.clone(), node)])
}

impl Node {
    /// An environment variable is text, whatever its setting is; only a file's values have types.
    fn untyped(&self) -> Option<&str> {
        match (&self.value, &self.origin) {
            (Value::Text(text), Origin::Environment(_)) => Some(text.trim()),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Result<&str, String> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err("expected text in quotes".to_owned()),
        }
    }

    pub(super) fn as_bool(&self) -> Result<bool, String> {
        match (&self.value, self.untyped()) {
            (Value::Bool(flag), _) => Ok(*flag),
            (_, Some("true")) => Ok(true),
            (_, Some("false")) => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }

    pub(super) fn as_integer(&self) -> Result<i64, String> {
        match (&self.value, self.untyped().and_then(|text| text.parse().ok())) {
            (Value::Integer(number), _) => Ok(*number),
            (_, Some(number)) => Ok(number),
            _ => Err("expected a whole number".to_owned()),
        }
    }

    pub(super) fn as_number(&self) -> Result<f64, String> {
        match (&self.value, self.untyped().and_then(|text| text.parse::<f64>().ok())) {
            (Value::Float(number), _) => Ok(*number),
            (Value::Integer(number), _) => Ok(*number as f64),
            (_, Some(number)) => Ok(number),
            _ => Err("expected a number".to_owned()),
        }
    }

    /// A list; in an environment variable either `["a", "b"]` or `a,b`.
    pub(super) fn into_list(self) -> Result<Vec<Node>, String> {
        if let Some(text) = self.untyped() {
            if text.starts_with('[') {
                return match self.parse_inline(text)? {
                    Value::List(items) => Ok(items),
                    _ => Err("expected a list".to_owned()),
                };
            }
            let part = |part: &str| Node { value: Value::Text(part.trim().to_owned()), origin: self.origin.clone() };
            return Ok(text.split(',').filter(|part| !part.trim().is_empty()).map(part).collect());
        }
        match self.value {
            Value::List(items) => Ok(items),
            _ => Err("expected a list".to_owned()),
        }
    }

    /// A table; in an environment variable `{ key = "value" }`.
    pub(super) fn into_table(self) -> Result<Table, String> {
        let value = match self.untyped() {
            Some(text) if text.starts_with('{') => self.parse_inline(text)?,
            _ => self.value,
        };
        match value {
            Value::Table(table) => Ok(table),
            _ => Err("expected a table".to_owned()),
        }
    }

    fn parse_inline(&self, text: &str) -> Result<Value, String> {
        let value = DeValue::parse(text).map_err(|error| format!("expected TOML: {}", error.message()))?;
        Ok(convert_value(value.into_inner(), &|_| self.origin.clone()))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST_SHOWN: usize = 60;
        match self {
            Value::Text(text) if text.chars().count() > LONGEST_SHOWN => {
                let start: String = text.chars().take(LONGEST_SHOWN).collect();
                write!(f, "{start:?}...")
            }
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number}"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::List(_) => f.write_str("[...]"),
            Value::Table(_) => f.write_str("{...}"),
        }
    }
}
