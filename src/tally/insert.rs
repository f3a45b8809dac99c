//! One batch into the store: tried again under one deadline, and halved down to the rows that no attempt can insert.

use std::future::Future;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::volumes::{Failure, StoreError};

/// Rows of a batch that are refused one by one, without one that is taken, before it is clear that it is not the rows.
const REFUSED_IN_A_ROW: usize = 8;

/// How long and how often an insert is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    pub(super) deadline: Duration,
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
}

/// A row that cannot be inserted.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) index: usize,
    pub(super) error: String,
}

/// Inserts `count` rows through `insert`, which is given a range of them. Rows may be inserted more than once.
///
/// Returns the rows that are refused for what they hold, in order. An error concerns the whole batch.
pub(super) async fn insert_all<F>(
    count: usize,
    retries: Retries,
    mut insert: impl FnMut(Range<usize>) -> F,
) -> Result<Vec<Rejected>, StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let end = Instant::now() + retries.deadline;
    let mut pause = retries.first_pause;
    let mut rejected: Vec<Rejected> = Vec::new();
    let mut any_inserted = false;
    let mut any_of_the_row = false;
    let mut first_answer = String::new();
    let mut open: Vec<Range<usize>> = std::iter::once(0..count).collect();
    while let Some(range) = open.pop().filter(|range| !range.is_empty()) {
        match insert(range.clone()).await {
            Ok(()) => any_inserted = true,
            Err(error) if error.failure() == Failure::Retry => {
                if Instant::now() + pause > end {
                    return Err(error);
                }
                tracing::debug!(?pause, error = %error, "an insert is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(retries.longest_pause);
                open.push(range);
            }
            Err(error) if range.len() == 1 => {
                any_of_the_row |= error.failure() == Failure::Row;
                if first_answer.is_empty() {
                    first_answer = error.to_string();
                }
                rejected.push(Rejected { index: range.start, error: error.detail() });
                if !any_inserted && !any_of_the_row && rejected.len() >= REFUSED_IN_A_ROW {
                    break;
                }
            }
            Err(_) => {
                let middle = range.start + range.len() / 2;
                open.push(middle..range.end);
                open.push(range.start..middle);
            }
        }
    }
    if !rejected.is_empty() && !any_inserted && !any_of_the_row {
        return Err(StoreError::AllRefused(first_answer));
    }
    Ok(rejected)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const RETRIES: Retries = Retries {
        deadline: Duration::from_millis(200),
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(2),
    };

    fn error(failure: Failure) -> StoreError {
        StoreError::answered("inserting", "no", failure)
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(work)
    }

    /// A store that refuses whatever holds one of the `bad` rows.
    fn run(count: usize, bad: &BTreeSet<usize>, failure: Failure) -> (Result<Vec<Rejected>, StoreError>, Vec<usize>) {
        let inserted = RefCell::new(Vec::new());
        let result = block_on(insert_all(count, RETRIES, |range| {
            let outcome = match range.clone().any(|row| bad.contains(&row)) {
                true => Err(error(failure)),
                false => {
                    inserted.borrow_mut().extend(range);
                    Ok(())
                }
            };
            async move { outcome }
        }));
        (result, inserted.into_inner())
    }

    #[test]
    fn one_bad_row_in_ten_thousand_is_found() {
        let (result, inserted) = run(10_000, &[7_531].into(), Failure::Row);
        let rejected: Vec<usize> = result.unwrap().into_iter().map(|row| row.index).collect();
        assert_eq!((rejected, inserted.len()), (vec![7_531], 9_999));
    }

    #[test]
    fn a_table_that_is_gone_is_no_fault_of_the_rows() {
        let (result, inserted) = run(1_000, &(0..1_000).collect(), Failure::Refused);
        assert!(matches!(result, Err(StoreError::AllRefused(_))) && inserted.is_empty());
        let (single, _) = run(1, &[0].into(), Failure::Refused);
        assert!(matches!(single, Err(StoreError::AllRefused(_))));
        let (bad_row, _) = run(1, &[0].into(), Failure::Row);
        assert_eq!(bad_row.unwrap().len(), 1);
    }

    #[test]
    fn a_server_that_comes_back_in_time_gets_everything() {
        let mut left = 5;
        let result = block_on(insert_all(10, RETRIES, |_| {
            left -= 1;
            let outcome = if left > 0 { Err(error(Failure::Retry)) } else { Ok(()) };
            async move { outcome }
        }));
        assert!(result.unwrap().is_empty() && left == 0);
    }

    #[test]
    fn the_deadline_ends_the_attempts() {
        let result = block_on(insert_all(10, RETRIES, |_| async { Err(error(Failure::Retry)) }));
        assert_eq!(result.unwrap_err().failure(), Failure::Retry);
    }

    proptest! {
        #[test]
        fn every_row_is_inserted_or_rejected(count in 1usize..300, bad in prop::collection::btree_set(0usize..300, 0..20)) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|row| *row < count).collect();
            let (result, mut inserted) = run(count, &bad, Failure::Row);
            let rejected: BTreeSet<usize> = result.unwrap().into_iter().map(|row| row.index).collect();
            inserted.sort_unstable();
            prop_assert_eq!(&rejected, &bad);
            prop_assert_eq!(inserted, (0..count).filter(|row| !bad.contains(row)).collect::<Vec<_>>());
        }
    }
}
