//! The prefilter: rule files → `RuleSet` → `Prefilter`, and the indicators of compromise in a text. Pure, apart from
//! reading the rule files.
//!
//! A record's kind, source and text arrive; a `RuleVerdict` leaves, which may decide the record (queue, category, drop
//! or escalate), settle a part of it (priority, tags), or say nothing. What a rule file may hold is told in `file`,
//! what several matching rules mean together in `prefilter`.

mod cost;
mod fault;
mod file;
pub mod indicators;
mod lane;
mod pattern;
mod prefilter;
mod required;
mod rule;
mod scanner;
mod set;
#[cfg(test)]
mod shipped;

pub use fault::{Problem, RuleFault};
pub use pattern::Pattern;
pub use prefilter::{Prefilter, RuleVerdict, Scratch};
pub use rule::{Example, Outcome, Rule, Scope};
pub use set::{BUILTIN_FILES, RuleSet};
