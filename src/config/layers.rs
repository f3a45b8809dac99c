//! Layers of settings laid over one another by figment: tables unite, everything else is replaced, lists as a whole.
//!
//! figment remembers for each value which layer it came from; the layer's own tree knows the line or variable.

use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};

use super::tree::{Node, Table, Value};

/// Layers in the order in which they were added; later ones win.
#[derive(Default)]
pub(super) struct Layers {
    figment: Figment,
    tables: Vec<Table>,
}

impl Layers {
    pub(super) fn add(&mut self, table: Table) {
        let figment = std::mem::take(&mut self.figment);
        self.figment = figment.merge(Layer { number: self.tables.len(), table: &table });
        self.tables.push(table);
    }

    /// One tree; every value keeps its origin.
    pub(super) fn merged(&self) -> Table {
        let profiles = self.figment.data().expect("layers are plain data");
        profiles.get(&Profile::Default).map(|dict| self.restore(dict, &mut Vec::new())).unwrap_or_default()
    }

    fn restore(&self, dict: &Dict, path: &mut Vec<String>) -> Table {
        dict.iter()
            .map(|(key, value)| {
                path.push(key.clone());
                let node = match value {
                    figment::value::Value::Dict(_, dict) => {
                        let nearest = self.tables.iter().rev().find_map(|table| find(table, path));
                        let origin = nearest.expect("the path came from a layer").origin.clone();
                        Node { value: Value::Table(self.restore(dict, path)), origin }
                    }
                    leaf => {
                        let layer = self.figment.get_metadata(leaf.tag()).expect("each layer has metadata");
                        let number: usize = layer.name.parse().expect("layers are named by number");
                        find(&self.tables[number], path).expect("the value came from this layer").clone()
                    }
                };
                path.pop();
                (key.clone(), node)
            })
            .collect()
    }
}

fn find<'t>(table: &'t Table, path: &[String]) -> Option<&'t Node> {
    let (first, rest) = path.split_first()?;
    let node = table.get(first)?;
    match (&node.value, rest) {
        (_, []) => Some(node),
        (Value::Table(inner), rest) => find(inner, rest),
        _ => None,
    }
}

/// A layer as figment takes it.
struct Layer<'t> {
    number: usize,
    table: &'t Table,
}

impl Provider for Layer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.number.to_string())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, dict(self.table))]))
    }
}

fn dict(table: &Table) -> Dict {
    table.iter().map(|(key, node)| (key.clone(), value(&node.value))).collect()
}

fn value(of: &Value) -> figment::value::Value {
    match of {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(flag) => (*flag).into(),
        Value::List(items) => items.iter().map(|item| value(&item.value)).collect::<Vec<_>>().into(),
        Value::Table(table) => dict(table).into(),
    }
}
