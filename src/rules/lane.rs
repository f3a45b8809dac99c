//! The rules of one kind of record, arranged so that a text's literals pick the few that may match.
//!
//! A rule is picked by its anchors: literals of which at least one occurs in whatever it matches, from `any`, `all` or its
//! regex, whichever are rarest. A rule without anchors is picked by its source, and one without a source always.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::record::Kind;

use super::cost::frequency;
use super::prefilter::Scratch;
use super::rule::Rule;
use super::scanner::{Literal, NumberSet, Scanner};

/// The rules of one kind of record.
#[derive(Debug)]
pub(super) struct Lane {
    scanner: Scanner,
    /// By literal: the rules to try once it is found.
    anchored: Vec<Vec<u32>>,
    /// By position in the rule set; those of rules of other kinds are empty and never asked for.
    conditions: Vec<Conditions>,
    /// What the conditions refer to.
    numbers: Vec<u32>,
    /// Sources in ASCII lower case, sorted, with the rules to try on each of their records.
    sources: Vec<(String, Vec<u32>)>,
    /// Rules to try on every record.
    always: Vec<u32>,
}

/// A rule's conditions without its regex: where each list of numbers ends in `Lane::numbers`. The first three are
/// numbers of literals, the last are numbers of sources.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    begin: u32,
    all_end: u32,
    none_end: u32,
    any_end: u32,
    sources_end: u32,
}

/// Numbers for literals.
#[derive(Default)]
struct Interner {
    numbers: HashMap<Literal, u32>,
    literals: Vec<Literal>,
}

impl Interner {
    fn number(&mut self, literal: Literal) -> u32 {
        *self.numbers.entry(literal).or_insert_with_key(|literal| {
            self.literals.push(literal.clone());
            (self.literals.len() - 1) as u32
        })
    }
}

impl Lane {
    pub(super) fn new(rules: &[Rule], kind: Kind) -> Self {
        let covered = || rules.iter().enumerate().filter(|(_, rule)| rule.scope.covers(kind));
        let mut sources: Vec<(String, Vec<u32>)> = covered()
            .flat_map(|(_, rule)| &rule.sources)
            .map(|source| (source.to_ascii_lowercase(), Vec::new()))
            .collect();
        sources.sort_unstable();
        sources.dedup();

        let mut interner = Interner::default();
        let mut anchored: Vec<Vec<u32>> = Vec::new();
        let mut always = Vec::new();
        let mut conditions = vec![Conditions::default(); rules.len()];
        let mut numbers: Vec<u32> = Vec::new();
        for (index, rule) in covered() {
            let of_rule = &mut conditions[index];
            let index = index as u32;
            let anchors = anchors(rule);
            // A rule picked by one of its `any` literals need not look for them again.
            let any = if anchors.as_ref() == Some(&literals(rule, &rule.any)) { &[][..] } else { &rule.any };
            let mut add = |texts: &[String]| -> u32 {
                numbers.extend(literals(rule, texts).into_iter().map(|literal| interner.number(literal)));
                numbers.len() as u32
            };
            of_rule.begin = add(&[]);
            of_rule.all_end = add(&rule.all);
            of_rule.none_end = add(&rule.none);
            of_rule.any_end = add(any);
            for anchor in anchors.iter().flatten() {
                let number = interner.number(anchor.clone()) as usize;
                anchored.resize(anchored.len().max(number + 1), Vec::new());
                if anchored[number].last() != Some(&index) {
                    anchored[number].push(index);
                }
            }
            let of_sources: Vec<u32> = rule.sources.iter().filter_map(|source| find_source(&sources, source)).collect();
            match (anchors, &of_sources[..]) {
                (Some(_), _) => {}
                (None, []) => always.push(index),
                (None, of_sources) => of_sources.iter().for_each(|source| sources[*source as usize].1.push(index)),
            }
            numbers.extend(of_sources);
            of_rule.sources_end = numbers.len() as u32;
        }
        anchored.resize(interner.literals.len(), Vec::new());
        Self { scanner: Scanner::new(interner.literals), anchored, conditions, numbers, sources, always }
    }

    /// The rules whose conditions hold, their regexes not yet asked, in order.
    pub(super) fn candidates<'s>(&self, source: Option<&str>, text: &str, scratch: &'s mut Scratch) -> &'s [u32] {
        let Scratch { found, candidates } = scratch;
        found.clear(self.scanner.literal_count());
        candidates.clear(self.conditions.len());
        self.scanner.scan(text, found);
        let source = source.and_then(|source| find_source(&self.sources, source));
        let anchored = found.members().iter().map(|literal| &self.anchored[*literal as usize]);
        let of_source = source.map(|source| &self.sources[source as usize].1);
        for index in anchored.chain(of_source).chain([&self.always]).flatten() {
            if self.hold(self.conditions[*index as usize], source, found) {
                candidates.insert(*index);
            }
        }
        candidates.sort();
        candidates.members()
    }

    fn hold(&self, conditions: Conditions, source: Option<u32>, found: &NumberSet) -> bool {
        let list = |begin: u32, end: u32| &self.numbers[begin as usize..end as usize];
        let Conditions { begin, all_end, none_end, any_end, sources_end } = conditions;
        let occurs = |literal: &u32| found.contains(*literal);
        list(begin, all_end).iter().all(occurs)
            && !list(all_end, none_end).iter().any(occurs)
            && (none_end == any_end || list(none_end, any_end).iter().any(occurs))
            && (any_end == sources_end || source.is_some_and(|source| list(any_end, sources_end).contains(&source)))
    }
}

fn find_source(sources: &[(String, Vec<u32>)], source: &str) -> Option<u32> {
    let lower = || source.bytes().map(|byte| byte.to_ascii_lowercase());
    let compare = |(known, _): &(String, Vec<u32>)| -> Ordering { known.bytes().cmp(lower()) };
    sources.binary_search_by(compare).ok().map(|index| index as u32)
}

fn literals(rule: &Rule, texts: &[String]) -> Vec<Literal> {
    let fold = |text: &String| if rule.case_sensitive { text.clone() } else { text.to_ascii_lowercase() };
    let (case_sensitive, whole_words) = (rule.case_sensitive, rule.whole_words);
    texts.iter().map(|text| Literal { bytes: fold(text).into_bytes(), case_sensitive, whole_words }).collect()
}

/// The literals of which at least one occurs in whatever the rule matches, the rarest such set; `None` when the rule's
/// text conditions give none.
pub(super) fn anchors(rule: &Rule) -> Option<Vec<Literal>> {
    let any = Some(literals(rule, &rule.any)).filter(|any| !any.is_empty());
    let of_all = literals(rule, &rule.all).into_iter().map(|literal| vec![literal]);
    let of_regex = rule.regex.as_ref().and_then(|regex| regex.required()).map(|required| {
        let loose = |bytes: &Vec<u8>| Literal { bytes: bytes.clone(), case_sensitive: false, whole_words: false };
        required.iter().map(loose).collect()
    });
    let cost = |set: &Vec<Literal>| set.iter().map(|literal| frequency(&literal.bytes)).sum::<f64>();
    any.into_iter().chain(of_all).chain(of_regex).min_by(|first, second| cost(first).total_cmp(&cost(second)))
}
