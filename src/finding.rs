//! One fault or warning of the configuration, the rules or the models: what `check` lists and what a refused reload says.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Fault;
use crate::record::Kind;
use crate::rules::RuleFault;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// config, rules or models.
    #[schema(value_type = String)]
    pub part: &'static str,
    /// `file:line`, an environment variable, or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The setting or the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// As it was written; absent where it may be confidential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    pub problem: String,
}

impl Finding {
    /// A problem of the configuration that has no line.
    pub fn of_config(problem: String) -> Self {
        Finding { part: "config", place: None, key: None, value: None, problem }
    }

    /// A model that cannot be loaded. `setting` is `model` or `model.challenger`.
    pub fn of_model(setting: &str, kind: Kind, spec: &str, error: impl std::error::Error) -> Self {
        Finding {
            part: "models",
            place: Some(spec.to_owned()),
            key: Some(format!("{setting}.{kind}")),
            value: None,
            problem: chain(&error),
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<&Fault> for Finding {
    fn from(fault: &Fault) -> Self {
        Finding {
            part: "config",
            place: Some(fault.place.clone()),
            key: Some(fault.key.clone()),
            value: fault.value.clone(),
            problem: fault.rule.clone(),
        }
    }
}

impl From<&RuleFault> for Finding {
    fn from(fault: &RuleFault) -> Self {
        Finding {
            part: "rules",
            place: Some(fault.line.map_or_else(|| fault.file.to_string(), |line| format!("{}:{line}", fault.file))),
            key: fault.rule.as_ref().map(|rule| format!("rule `{rule}`")),
            value: None,
            problem: fault.problem.to_string(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = {value}: ")?,
            (Some(key), None) => write!(f, "{key}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.problem)
    }
}
