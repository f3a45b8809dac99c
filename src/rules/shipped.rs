//! Tests of the rules in config/rules: they load, keep their examples, and agree with the labels of a corpus.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::record::Kind;

use super::{BUILTIN_FILES, Prefilter, RuleSet, Scratch};

fn shipped() -> Prefilter {
    let files: Vec<String> = BUILTIN_FILES.iter().map(|(name, _)| format!("builtin:{name}")).collect();
    let list = |faults: &[super::RuleFault]| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rules = RuleSet::load(&files).map_err(|faults| list(&faults)).expect("no faults");
    assert_eq!(list(&rules.check_examples()), [""; 0]);
    assert_eq!(list(&rules.warnings()), [""; 0]);
    Prefilter::new(rules)
}

#[test]
fn shipped_rules_load_and_keep_their_examples() {
    assert!(shipped().rules().rules().len() > 50);
}

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("TRIAGED_DATA");
    if folder.is_none() {
        eprintln!("skipped: TRIAGED_DATA is not set");
    }
    folder.map(PathBuf::from)
}

fn rows(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).expect("the corpus");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// By rule: how often it decided, and how often otherwise than the label.
#[test]
fn deciding_rules_agree_with_labelled_log_lines() {
    let Some(folder) = corpus() else { return };
    let (prefilter, mut scratch) = (shipped(), Scratch::default());
    let mut by_rule: BTreeMap<String, (u32, Vec<String>)> = BTreeMap::new();
    for row in rows(&folder.join("app_logs/train.jsonl")) {
        let (text, label) =
            (row["log_message"].as_str().expect("a text"), row["target_label"].as_str().expect("a label"));
        let verdict = prefilter.apply(Kind::Log, row["source"].as_str(), text, &mut scratch);
        if let (Some(rule), Some(category)) = (verdict.decided_by, verdict.category) {
            let (decided, wrong) = by_rule.entry(rule.to_owned()).or_default();
            *decided += 1;
            if category != label {
                wrong.push(format!("{text} is {label}"));
            }
        }
    }
    for (rule, (decided, wrong)) in &by_rule {
        println!("{rule}: {decided} decided, {} wrong {wrong:?}", wrong.len());
    }
    let (decided, wrong) =
        by_rule.values().fold((0, 0), |sum, (decided, wrong)| (sum.0 + decided, sum.1 + wrong.len()));
    println!("all: {decided} decided, {wrong} wrong");
    assert!(decided > 400 && wrong == 0, "{by_rule:?}");
}
