//! `Prefilter`: a rule set made fast, and what its rules say about a record. All literals are sought in one pass; those
//! found pick the candidate rules, and only their regexes are asked.
//!
//! What several matching rules mean together:
//! - Rules are considered in order, files first, then places in a file.
//! - The first matching rule that sets queue, category, drop or escalate is the deciding rule; these four come from it
//!   alone, and later decisions are ignored.
//! - The priority comes from the first matching rule that sets one.
//! - Tags are the union over all matching rules, in order.
//! - A deciding rule does not end the search: a priority or tag of a later rule still applies.

use crate::record::{Kind, Priority};

use super::lane::Lane;
use super::rule::Rule;
use super::scanner::NumberSet;
use super::set::RuleSet;

/// What the matching rules say about one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleVerdict<'r> {
    /// Id of the deciding rule.
    pub decided_by: Option<&'r str>,
    pub queue: Option<&'r str>,
    pub category: Option<&'r str>,
    pub priority: Option<Priority>,
    /// Unique, in the order of the rules.
    pub tags: Vec<&'r str>,
    pub drop: bool,
    pub escalate: bool,
}

impl<'r> RuleVerdict<'r> {
    fn absorb(&mut self, rule: &'r Rule) {
        let outcome = &rule.outcome;
        if self.decided_by.is_none() && outcome.decides() {
            self.decided_by = Some(&rule.id);
            self.queue = outcome.queue.as_deref();
            self.category = outcome.category.as_deref();
            self.drop = outcome.drop;
            self.escalate = outcome.escalate;
        }
        self.priority = self.priority.or(outcome.priority);
        for tag in &outcome.tags {
            if !self.tags.contains(&tag.as_str()) {
                self.tags.push(tag);
            }
        }
    }

    /// Whether the rule could add anything.
    fn gains_from(&self, rule: &Rule) -> bool {
        let outcome = &rule.outcome;
        self.decided_by.is_none() && outcome.decides()
            || self.priority.is_none() && outcome.priority.is_some()
            || outcome.tags.iter().any(|tag| !self.tags.contains(&tag.as_str()))
    }
}

/// Working memory of `Prefilter::apply`, one for each thread; it fits any prefilter.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) found: NumberSet,
    pub(super) candidates: NumberSet,
}

/// A rule set made fast; immutable.
#[derive(Debug)]
pub struct Prefilter {
    set: RuleSet,
    lanes: [Lane; 2],
}

impl Prefilter {
    pub fn new(set: RuleSet) -> Self {
        let lanes = Kind::ALL.map(|kind| Lane::new(set.rules(), kind));
        Self { set, lanes }
    }

    pub fn rules(&self) -> &RuleSet {
        &self.set
    }

    /// What the rules say about a record.
    pub fn apply(&self, kind: Kind, source: Option<&str>, text: &str, scratch: &mut Scratch) -> RuleVerdict<'_> {
        let mut verdict = RuleVerdict::default();
        for index in self.lanes[kind as usize].candidates(source, text, scratch) {
            let rule = &self.set.rules()[*index as usize];
            if verdict.gains_from(rule) && confirms(rule, text) {
                verdict.absorb(rule);
            }
        }
        verdict
    }

    /// All rules that match a record, in order.
    pub fn matching(&self, kind: Kind, source: Option<&str>, text: &str, scratch: &mut Scratch) -> Vec<&Rule> {
        let candidates = self.lanes[kind as usize].candidates(source, text, scratch).iter();
        candidates.map(|index| &self.set.rules()[*index as usize]).filter(|rule| confirms(rule, text)).collect()
    }
}

fn confirms(rule: &Rule, text: &str) -> bool {
    rule.regex.as_ref().is_none_or(|regex| regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> RuleSet {
        RuleSet::parse(&[("test.toml".into(), text.to_owned())]).expect("valid rules")
    }

    fn rule(id: &str, rest: &str) -> String {
        format!("[[rule]]\nid = \"{id}\"\ndescription = \"d\"\n{rest}\n")
    }

    fn apply<'p>(prefilter: &'p Prefilter, source: Option<&str>, text: &str) -> RuleVerdict<'p> {
        prefilter.apply(Kind::Log, source, text, &mut Scratch::default())
    }

    #[test]
    fn the_first_deciding_rule_decides_and_parts_come_from_all() {
        let rules = [
            rule("a", "any = ['alpha']\ntags = ['t1']"),
            rule("b", "any = ['beta']\ncategory = 'B'"),
            rule("c", "any = ['alpha']\nqueue = 'q'\npriority = 'high'\ntags = ['t2', 't1']"),
            rule("d", "any = ['alpha']\npriority = 'low'\nescalate = true"),
        ];
        let prefilter = Prefilter::new(set(&rules.concat()));
        let both = apply(&prefilter, None, "alpha beta");
        assert_eq!((both.decided_by, both.category, both.queue, both.escalate), (Some("b"), Some("B"), None, false));
        assert_eq!((both.priority, both.tags), (Some(Priority::High), vec!["t1", "t2"]));
        let alpha = apply(&prefilter, None, "alpha");
        assert_eq!((alpha.decided_by, alpha.queue, alpha.escalate), (Some("c"), Some("q"), false));
        assert_eq!(apply(&prefilter, None, "gamma"), RuleVerdict::default());
        assert_eq!(prefilter.apply(Kind::Ticket, None, "alpha", &mut Scratch::default()).decided_by, Some("c"));
    }

    #[test]
    fn a_source_alone_is_a_condition() {
        let prefilter = Prefilter::new(set(&rule("s", "source = ['LegacyCRM', 'OldERP']\nescalate = true")));
        assert!(apply(&prefilter, Some("legacycrm"), "").escalate);
        assert!(apply(&prefilter, Some("OldERP"), "any text").escalate);
        assert!(!apply(&prefilter, Some("ModernCRM"), "any text").escalate);
        assert!(!apply(&prefilter, None, "any text").escalate);
    }

    #[test]
    fn case_and_whole_words_are_respected() {
        let rules = [
            rule("loose", "any = ['Root']\ntags = ['loose']"),
            rule("exact", "any = ['Root']\ncase_sensitive = true\ntags = ['exact']"),
            rule("word", "any = ['root']\nwhole_words = true\ntags = ['word']"),
        ];
        let prefilter = Prefilter::new(set(&rules.concat()));
        let tags = |text| apply(&prefilter, None, text).tags;
        assert_eq!(tags("ROOT!"), ["loose", "word"]);
        assert_eq!(tags("Rooted"), ["loose", "exact"]);
        assert_eq!(tags("reroot root"), ["loose", "word"]);
        assert!(tags("roo t").is_empty());
    }

    #[test]
    fn scratch_serves_prefilters_of_any_size() {
        let small = Prefilter::new(set(&rule("a", "any = ['alpha']\ndrop = true")));
        let many: String =
            (0..200).map(|n| rule(&format!("r{n}"), &format!("any = ['word{n}x']\ntags = ['t{n}']"))).collect();
        let big = Prefilter::new(set(&many));
        let mut scratch = Scratch::default();
        for _ in 0..2 {
            assert!(small.apply(Kind::Log, None, "alpha", &mut scratch).drop);
            assert_eq!(big.apply(Kind::Log, None, "word199x word3x", &mut scratch).tags, ["t3", "t199"]);
        }
    }

    /// Whether a rule matches, by its definition and nothing else.
    fn naive_match(rule: &Rule, kind: Kind, source: Option<&str>, text: &str) -> bool {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let fold = |text: &str| {
            if rule.case_sensitive { text.to_owned() } else { text.to_ascii_lowercase() }
        };
        let text_folded = fold(text);
        let occurs = |literal: &String| {
            let literal = fold(literal);
            (0..text_folded.len()).filter(|at| text_folded.is_char_boundary(*at)).any(|at| {
                let (before, rest) = text_folded.split_at(at);
                rest.strip_prefix(&literal).is_some_and(|after| {
                    let joined_before = is_word(before.chars().next_back()) && is_word(literal.chars().next());
                    let joined_after = is_word(after.chars().next()) && is_word(literal.chars().next_back());
                    !rule.whole_words || !joined_before && !joined_after
                })
            })
        };
        rule.scope.covers(kind)
            && (rule.sources.is_empty()
                || source.is_some_and(|source| rule.sources.iter().any(|known| known.eq_ignore_ascii_case(source))))
            && (rule.any.is_empty() || rule.any.iter().any(occurs))
            && rule.all.iter().all(occurs)
            && !rule.none.iter().any(occurs)
            && rule.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    /// Pieces that overlap, differ in case only, or hold characters beyond ASCII, some with odd case pairs.
    const PIECES: [&str; 16] = [
        "ab",
        "AB",
        "abc",
        "bcab",
        "a_b",
        "pass",
        "paſs",
        "word",
        "Word",
        "é",
        "É",
        "K9",
        "key",
        "@[`{",
        " ab ",
        "日本語",
    ];
    const REGEXES: [&str; 10] = [
        r"ab+c",
        r"pass\w*",
        r"(word|key)\d",
        r"(?u)é.b",
        r"\bab\b",
        r"[a-c]{3}",
        r"(?u)paſs|key",
        r"^ab",
        r"(ab|cd)?word",
        r"a(b|bc)a",
    ];

    fn piece() -> impl Strategy<Value = String> {
        prop::sample::select(&PIECES[..]).prop_map(str::to_owned)
    }

    fn literals() -> impl Strategy<Value = Vec<String>> {
        let literal = prop::collection::vec(piece(), 1..3).prop_map(|pieces| pieces.concat());
        prop_oneof![
            Just(Vec::new()),
            prop::collection::btree_set(literal, 0..4).prop_map(|set| set.into_iter().collect())
        ]
    }

    prop_compose! {
        fn any_rule()(
            any in literals(), all in literals(), none in literals(),
            regex in prop::option::weighted(0.4, prop::sample::select(&REGEXES[..])),
            source in prop::option::weighted(0.3, prop::sample::select(vec!["Mail", "mail", "Web"])),
            kind in prop::sample::select(vec!["any", "log", "ticket"]),
            case_sensitive: bool, whole_words: bool,
            decides in 0usize..4,
        ) -> String {
            let list = |key: &str, list: Vec<String>| {
                if list.is_empty() { String::new() } else { format!("{key} = {list:?}\n") }
            };
            let outcome = ["tags = ['t']", "priority = 'low'", "queue = 'q'", "drop = true"][decides];
            [
                list("any", any), list("all", all), list("none", none),
                regex.map_or(String::new(), |regex| format!("regex = '{regex}'\n")),
                source.map_or(String::new(), |source| format!("source = '{source}'\n")),
                format!("kind = '{kind}'\ncase_sensitive = {case_sensitive}\nwhole_words = {whole_words}\n{outcome}\n"),
            ].concat()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn matching_equals_a_naive_matcher(
            bodies in prop::collection::vec(any_rule(), 1..12),
            texts in prop::collection::vec(prop::collection::vec(prop_oneof![3 => piece(), 1 => ".{0,3}"], 0..8), 1..6),
            source in prop::option::of(prop::sample::select(vec!["MAIL", "web", "other"])),
        ) {
            // Rules that contradict themselves are refused on loading; the others are what is tested here.
            let valid = |(index, body): (usize, &String)| {
                let text = rule(&format!("r{index}"), body);
                RuleSet::parse(&[("t".into(), text.clone())]).ok().map(|_| text)
            };
            let rules = set(&bodies.iter().enumerate().filter_map(valid).collect::<String>());
            let prefilter = Prefilter::new(rules.clone());
            let mut scratch = Scratch::default();
            for text in texts.iter().map(|pieces| pieces.concat()) {
                for kind in Kind::ALL {
                    let expected: Vec<&Rule> =
                        rules.rules().iter().filter(|rule| naive_match(rule, kind, source, &text)).collect();
                    let ids = |rules: &[&Rule]| rules.iter().map(|rule| rule.id.clone()).collect::<Vec<_>>();
                    let matching = prefilter.matching(kind, source, &text, &mut scratch);
                    prop_assert_eq!(ids(&matching), ids(&expected), "text {:?}", text);
                    let mut verdict = RuleVerdict::default();
                    expected.iter().for_each(|rule| verdict.absorb(rule));
                    prop_assert_eq!(prefilter.apply(kind, source, &text, &mut scratch), verdict);
                }
            }
        }
    }
}
