//! Required literals: a set of which at least one must occur in whatever a regex matches, so that the index of
//! literals can pick the regex's rule. Like the inner literals of Russ Cox, "Regular Expression Matching with a
//! Trigram Index" (2012), but keeping whole literals.
//!
//! The walk over-approximates the language: what it cannot follow (long classes, repetitions, look-around) only ends
//! the literal at hand. All literals are in ASCII lower case and are to be sought with ASCII case ignored.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::cost::frequency;

/// A shorter literal occurs too often to be worth looking for.
const MIN_BYTES: usize = 3;
/// Longer literals are cut: their beginning says enough.
const MAX_BYTES: usize = 64;
/// Strings that a part of a regex may stand for before it is no longer spelled out.
const MAX_EXACT: usize = 32;
/// Members of a class that are spelled out.
const MAX_CLASS: usize = 8;
/// Size of the answer.
const MAX_REQUIRED: usize = 512;

type Literals = Vec<Vec<u8>>;

/// The best set of required literals; `None` when no usable one exists.
pub(super) fn required_literals(hir: &Hir) -> Option<Literals> {
    walk(hir).into_required()
}

/// What is known of the strings that a part of a regex matches.
struct Language {
    /// All of them.
    exact: Option<Literals>,
    /// Each contains one of these.
    required: Option<Literals>,
}

impl Language {
    const UNKNOWN: Self = Self { exact: None, required: None };

    fn exact(mut literals: Literals) -> Self {
        literals.sort_unstable();
        literals.dedup();
        if literals.len() <= MAX_EXACT && literals.iter().all(|literal| literal.len() <= MAX_BYTES) {
            return Self { exact: Some(literals), required: None };
        }
        literals.iter_mut().for_each(|literal| literal.truncate(MAX_BYTES));
        Self { exact: None, required: usable(literals) }
    }

    fn into_required(self) -> Option<Literals> {
        better(self.exact.and_then(usable), self.required)
    }
}

fn usable(mut literals: Literals) -> Option<Literals> {
    literals.sort_unstable();
    literals.dedup();
    let usable = !literals.is_empty()
        && literals.len() <= MAX_REQUIRED
        && literals.iter().all(|literal| literal.len() >= MIN_BYTES);
    usable.then_some(literals)
}

/// The set that occurs less often.
fn better(first: Option<Literals>, second: Option<Literals>) -> Option<Literals> {
    let cost = |literals: &Literals| literals.iter().map(|literal| frequency(literal)).sum::<f64>();
    match (first, second) {
        (Some(first), Some(second)) if cost(&second) < cost(&first) => Some(second),
        (first, second) => first.or(second),
    }
}

fn walk(hir: &Hir) -> Language {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Language::exact(vec![Vec::new()]),
        HirKind::Literal(literal) => Language::exact(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => members(class).map_or(Language::UNKNOWN, Language::exact),
        HirKind::Capture(capture) => walk(&capture.sub),
        HirKind::Repetition(repetition) => {
            let inner = walk(&repetition.sub);
            match (repetition.min, repetition.max, inner.exact) {
                (0, Some(1), Some(exact)) => Language::exact(exact.into_iter().chain([Vec::new()]).collect()),
                (0, _, _) => Language::UNKNOWN,
                (1, Some(1), exact) => Language { exact, required: inner.required },
                (min, max, Some(exact)) => {
                    let mut power = vec![Vec::new()];
                    let mut times = 0;
                    while times < min && fits(&power, &exact) {
                        power = cross(&power, &exact);
                        times += 1;
                    }
                    if times == min && max == Some(min) {
                        Language::exact(power)
                    } else {
                        Language { exact: None, required: usable(power) }
                    }
                }
                (_, _, None) => Language { exact: None, required: inner.required },
            }
        }
        HirKind::Concat(parts) => concat(parts),
        HirKind::Alternation(branches) => alternation(branches),
    }
}

fn concat(parts: &[Hir]) -> Language {
    // All strings of the run of spelled-out parts that is being read.
    let mut run = vec![Vec::new()];
    let mut required = None;
    let mut whole = true;
    for part in parts {
        let part = walk(part);
        match part.exact {
            Some(exact) if fits(&run, &exact) => run = cross(&run, &exact),
            exact => {
                whole = false;
                required = better(required, usable(run));
                required = better(required, part.required);
                run = exact.unwrap_or_else(|| vec![Vec::new()]);
            }
        }
    }
    if whole {
        return Language { exact: Some(run), required };
    }
    Language { exact: None, required: better(required, usable(run)) }
}

fn alternation(branches: &[Hir]) -> Language {
    let branches: Vec<Language> = branches.iter().map(walk).collect();
    if let Some(exact) = branches.iter().map(|branch| branch.exact.clone()).collect::<Option<Vec<_>>>() {
        return Language::exact(exact.concat());
    }
    let required: Option<Vec<_>> = branches.into_iter().map(Language::into_required).collect();
    Language { exact: None, required: required.and_then(|required| usable(required.concat())) }
}

fn fits(left: &Literals, right: &Literals) -> bool {
    let longest = |literals: &Literals| literals.iter().map(Vec::len).max().unwrap_or(0);
    left.len() * right.len() <= MAX_EXACT && longest(left) + longest(right) <= MAX_BYTES
}

fn cross(left: &Literals, right: &Literals) -> Literals {
    left.iter().flat_map(|head| right.iter().map(|tail| [head.as_slice(), tail].concat())).collect()
}

/// The members of a small class.
fn members(class: &Class) -> Option<Literals> {
    let mut members: Literals = match class {
        Class::Bytes(class) => {
            let size: usize = class.ranges().iter().map(|range| range.len()).sum();
            let bytes = class.ranges().iter().flat_map(|range| range.start()..=range.end());
            (size <= 2 * MAX_CLASS).then(|| bytes.map(|byte| vec![byte.to_ascii_lowercase()]).collect())?
        }
        Class::Unicode(class) => {
            let size: usize = class.ranges().iter().map(|range| range.len()).sum();
            let chars = class.ranges().iter().flat_map(|range| range.start()..=range.end());
            (size <= 2 * MAX_CLASS).then(|| chars.map(|c| c.to_string().to_ascii_lowercase().into_bytes()).collect())?
        }
    };
    members.sort_unstable();
    members.dedup();
    (members.len() <= MAX_CLASS).then_some(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(pattern: &str) -> Option<Vec<String>> {
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .case_insensitive(true)
            .build()
            .parse(pattern)
            .expect("a valid pattern");
        let literals = required_literals(&hir)?;
        Some(literals.into_iter().map(|literal| String::from_utf8(literal).expect("UTF-8")).collect())
    }

    fn some(literals: &[&str]) -> Option<Vec<String>> {
        Some(literals.iter().map(|literal| (*literal).to_owned()).collect())
    }

    #[test]
    fn the_rarest_run_of_literals_is_chosen() {
        assert_eq!(required(r"user \w+ Logged in"), some(&[" logged in"]));
        assert_eq!(required(r"\d+ (attempts|failures) by"), some(&[" attempts by", " failures by"]));
        assert_eq!(required(r"CVE-\d{4}-\d+"), some(&["cve-"]));
        assert_eq!(required(r"\bsudo: .* COMMAND="), some(&[" command="]));
    }

    #[test]
    fn optional_and_repeated_parts_are_followed() {
        assert_eq!(required(r"logged(-| )?in"), some(&["logged in", "logged-in", "loggedin"]));
        assert_eq!(required(r"(abc)+x"), some(&["abc"]));
        assert_eq!(required(r"(ab){2}"), some(&["abab"]));
        assert_eq!(required(r"(abc)*"), None);
        assert_eq!(required(r"gr[ae]y"), some(&["gray", "grey"]));
    }

    #[test]
    fn a_branch_without_literals_leaves_none() {
        assert_eq!(required(r"abc|\d+"), None);
        assert_eq!(required(r"[0-9]{4}"), None);
        assert_eq!(required(r"ab"), None);
        assert_eq!(required(r"abcd|efgh\d+"), some(&["abcd", "efgh"]));
    }

    #[test]
    fn unicode_case_pairs_are_spelled_out() {
        assert_eq!(required(r"(?u)pass"), some(&["pass", "pas\u{17f}", "pa\u{17f}s", "pa\u{17f}\u{17f}"]));
    }
}
