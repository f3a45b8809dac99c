//! What is wrong with a configuration: every fault at once, each with its place.

use std::fmt;

use serde::Serialize;

use super::tree::Origin;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// `file:line`, the name of an environment variable, or `default`.
    pub place: String,
    /// The setting's name, such as `stream.batch_age`.
    pub key: String,
    /// The value as it was written; absent when it may be confidential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What the setting must be.
    pub rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}", self.rule)
    }
}

/// Everything that is wrong, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigFaults(pub(super) Vec<Fault>);

impl ConfigFaults {
    /// Sorts by place, so that the list reads along the file. Each fault comes with the origin that orders it.
    pub(super) fn new(mut faults: Vec<(Origin, Fault)>) -> Self {
        debug_assert!(!faults.is_empty(), "a configuration without faults is not an error");
        faults.sort_by(|(left, _), (right, _)| left.cmp(right));
        ConfigFaults(faults.into_iter().map(|(_, fault)| fault).collect())
    }

    /// The file itself could not be read.
    pub(super) fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Self {
        ConfigFaults(vec![Fault {
            place: path.display().to_string(),
            key: "--config".to_owned(),
            value: None,
            rule: format!("cannot read the file: {error}"),
        }])
    }

    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has 1 fault")?,
            count => write!(f, "the configuration has {count} faults")?,
        }
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}
