//! Which sequences go through the model together, and whether threads share a pass or take one each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Tokens of one pass. Smaller: weights come from memory more often; larger: the rows leave the second-level cache.
const TOKENS_PER_PASS: usize = 256;

/// Fewer tokens than this for each thread are better shared than divided: each pass reads all weights.
const TOKENS_WORTH_A_PASS: usize = 48;

/// More threads on one pass would find no columns to compute, but would all wait for the next step.
const MAX_SHARING: usize = 8;

/// Passes of a thread each may take this much longer than shared ones, which cost some waiting.
const TOLERATED_IMBALANCE: f64 = 1.12;

/// The numbers of the sequences of each pass.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) passes: Vec<Vec<usize>>,
    /// All threads work on each pass, one pass after another; otherwise each thread takes whole passes.
    pub(super) shared: bool,
    /// More would find nothing to do.
    pub(super) threads: usize,
}

impl Plan {
    /// For sequences of these lengths.
    pub(super) fn new(lengths: &[usize], threads: usize) -> Plan {
        let total: usize = lengths.iter().sum();
        let sharing = threads.clamp(1, MAX_SHARING);
        let dividing = threads.min(total / TOKENS_WORTH_A_PASS).max(1);
        if dividing >= sharing {
            let count = total.div_ceil(TOKENS_PER_PASS).next_multiple_of(dividing);
            let passes = divide(lengths, count);
            let busiest = busiest(passes.iter().map(|pass| tokens(lengths, pass)), dividing);
            if busiest as f64 <= TOLERATED_IMBALANCE * total as f64 / dividing as f64 {
                return Plan { passes, shared: false, threads: dividing };
            }
        }
        let passes = divide(lengths, total.div_ceil(TOKENS_PER_PASS * sharing));
        Plan { passes, shared: true, threads: sharing }
    }
}

fn tokens(lengths: &[usize], pass: &[usize]) -> usize {
    pass.iter().map(|&sequence| lengths[sequence]).sum()
}

/// Divides the sequences into at most `count` passes of nearly equal length, long ones first. Empty sequences are left
/// out.
fn divide(lengths: &[usize], count: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).filter(|&sequence| lengths[sequence] > 0).collect();
    order.sort_by_key(|&sequence| Reverse(lengths[sequence]));
    let count = count.max(1).min(order.len());
    let mut passes = vec![Vec::new(); count];
    let mut heap: BinaryHeap<_> = (0..count).map(|pass| Reverse((0, pass))).collect();
    for sequence in order {
        if let Some(mut lightest) = heap.peek_mut() {
            let (load, pass) = &mut lightest.0;
            *load += lengths[sequence];
            passes[*pass].push(sequence);
        }
    }
    passes.sort_by_key(|pass| Reverse(tokens(lengths, pass)));
    passes
}

/// Tokens of the thread that gets most, when the next pass always goes to the one that is free first.
fn busiest(passes: impl Iterator<Item = usize>, threads: usize) -> usize {
    let mut loads = vec![0; threads];
    for pass in passes {
        if let Some(least) = loads.iter_mut().min() {
            *least += pass;
        }
    }
    loads.into_iter().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(plan: &Plan) -> Vec<usize> {
        let mut all: Vec<usize> = plan.passes.iter().flatten().copied().collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn every_sequence_but_empty_ones_is_in_one_pass() {
        for threads in [1, 2, 7] {
            for count in [0, 1, 2, 5, 100] {
                let lengths: Vec<usize> = (0..count).map(|at| at * 37 % 90).collect();
                let expected: Vec<usize> = (0..count).filter(|&at| lengths[at] > 0).collect();
                assert_eq!(sorted(&Plan::new(&lengths, threads)), expected);
            }
        }
    }

    #[test]
    fn one_text_is_shared_and_many_are_divided() {
        assert!(Plan::new(&[256], 2).shared);
        assert!(Plan::new(&[10, 10], 2).shared);
        assert!(Plan::new(&[64, 64, 64], 2).shared);
        let plan = Plan::new(&[64; 16], 2);
        assert!(!plan.shared && plan.passes.len() == 4 && plan.passes.iter().all(|pass| pass.len() == 4));
        assert!(!Plan::new(&[256], 1).shared);
    }

    #[test]
    fn threads_that_would_find_nothing_to_do_stay_away() {
        assert_eq!(Plan::new(&[16], 64).threads, MAX_SHARING);
        let plan = Plan::new(&[48; 26], 64);
        assert!(!plan.shared && plan.threads == 26 && plan.passes.len() == 26, "{plan:?}");
    }
}
