//! Which offsets may be committed: the highest contiguous prefix of what has been acknowledged. Pure.
//!
//! Batches are taken in order and may be acknowledged in any order; a batch counts only when every earlier one has
//! been acknowledged too. A revoked partition is forgotten, so a late acknowledgement cannot commit for it, not even
//! when the partition has come back meanwhile.

use std::collections::{BTreeMap, VecDeque};

use super::batch::Partition;

#[derive(Debug)]
struct Owned {
    /// Distinguishes this ownership of the partition from earlier ones.
    tenure: u64,
    /// The next offset to process: everything below is acknowledged, or was before we got the partition.
    next: i64,
    /// What has been handed out for committing.
    committed: Option<i64>,
}

#[derive(Debug)]
struct InFlight {
    seq: u64,
    acknowledged: bool,
    /// Partition, tenure, and the offset after the last one in the batch.
    ends: Vec<(Partition, u64, i64)>,
}

/// Offsets in flight and the prefix that is done.
#[derive(Debug, Default)]
pub struct Progress {
    owned: BTreeMap<Partition, Owned>,
    in_flight: VecDeque<InFlight>,
    tenures: u64,
}

impl Progress {
    /// A batch with these first and last offsets by partition has been taken. `seq` must grow.
    pub fn taken(&mut self, seq: u64, spans: &[(Partition, i64, i64)]) {
        debug_assert!(self.in_flight.back().is_none_or(|last| last.seq < seq), "batches are numbered in order");
        let tenures = &mut self.tenures;
        let owned = &mut self.owned;
        let ends = spans
            .iter()
            .map(|&(place, first, last)| {
                let owner = owned.entry(place).or_insert_with(|| {
                    *tenures += 1;
                    Owned { tenure: *tenures, next: first, committed: None }
                });
                (place, owner.tenure, last + 1)
            })
            .collect();
        self.in_flight.push_back(InFlight { seq, acknowledged: false, ends });
    }

    /// All outputs of batch `seq` are acknowledged. Unknown numbers (forgotten by a rewind) are ignored.
    pub fn acknowledged(&mut self, seq: u64) {
        let Ok(index) = self.in_flight.binary_search_by_key(&seq, |batch| batch.seq) else {
            return;
        };
        self.in_flight[index].acknowledged = true;
        while self.in_flight.front().is_some_and(|batch| batch.acknowledged) {
            let batch = self.in_flight.pop_front().expect("just seen");
            for (place, tenure, end) in batch.ends {
                if let Some(owner) = self.owned.get_mut(&place).filter(|owner| owner.tenure == tenure) {
                    owner.next = end;
                }
            }
        }
    }

    /// Offsets that are done and have not been handed out before: partition and next offset.
    pub fn take_committable(&mut self) -> Vec<(Partition, i64)> {
        let mut offsets = Vec::new();
        for (&place, owner) in &mut self.owned {
            let advanced = match owner.committed {
                Some(committed) => owner.next > committed,
                None => true,
            };
            if advanced {
                owner.committed = Some(owner.next);
                offsets.push((place, owner.next));
            }
        }
        offsets
    }

    /// A commit failed: whatever is done will be handed out again.
    pub fn commit_failed(&mut self) {
        for owner in self.owned.values_mut() {
            owner.committed = None;
        }
    }

    /// Forgets partitions that are no longer ours.
    pub fn revoke(&mut self, places: &[Partition]) {
        for place in places {
            self.owned.remove(place);
        }
    }

    /// Forgets everything in flight and says where each partition must be read again.
    pub fn rewind(&mut self) -> Vec<(Partition, i64)> {
        self.in_flight.clear();
        self.owned.iter().map(|(&place, owner)| (place, owner.next)).collect()
    }

    /// Batches taken and not yet part of the contiguous prefix.
    pub fn batches_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Next offset of each partition that we have read from.
    pub fn positions(&self) -> impl Iterator<Item = (Partition, i64)> {
        self.owned.iter().map(|(&place, owner)| (place, owner.next))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    fn place(partition: i32) -> Partition {
        Partition { input: 0, partition }
    }

    #[test]
    fn a_later_batch_does_not_commit_past_an_earlier_one() {
        let mut progress = Progress::default();
        progress.taken(1, &[(place(0), 0, 9)]);
        progress.taken(2, &[(place(0), 10, 19)]);
        progress.acknowledged(2);
        assert_eq!(progress.take_committable(), [(place(0), 0)]);
        progress.acknowledged(1);
        assert_eq!(progress.take_committable(), [(place(0), 20)]);
        assert_eq!(progress.take_committable(), []);
        progress.commit_failed();
        assert_eq!(progress.take_committable(), [(place(0), 20)]);
    }

    #[test]
    fn a_late_acknowledgement_does_not_commit_for_a_partition_that_went_and_came_back() {
        let mut progress = Progress::default();
        progress.taken(1, &[(place(0), 0, 9), (place(1), 5, 5)]);
        progress.revoke(&[place(0)]);
        progress.taken(2, &[(place(0), 3, 3)]);
        progress.acknowledged(1);
        assert_eq!(progress.take_committable(), [(place(0), 3), (place(1), 6)]);
    }

    #[test]
    fn a_rewind_starts_again_after_the_contiguous_prefix() {
        let mut progress = Progress::default();
        progress.taken(1, &[(place(0), 0, 9)]);
        progress.taken(2, &[(place(0), 10, 19)]);
        progress.taken(3, &[(place(0), 20, 29)]);
        progress.acknowledged(1);
        progress.acknowledged(3);
        assert_eq!(progress.rewind(), [(place(0), 10)]);
        progress.acknowledged(2);
        assert_eq!(progress.positions().collect::<Vec<_>>(), [(place(0), 10)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take { partition: i32, records: i64 },
        Acknowledge { pick: usize },
        Revoke { partition: i32 },
        Rewind,
        Commit { fails: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3, 1..5_i64).prop_map(|(partition, records)| Step::Take { partition, records }),
            4 => any::<usize>().prop_map(|pick| Step::Acknowledge { pick }),
            1 => (0..3).prop_map(|partition| Step::Revoke { partition }),
            1 => Just(Step::Rewind),
            3 => any::<bool>().prop_map(|fails| Step::Commit { fails }),
        ]
    }

    proptest! {
        /// Whatever the order of acknowledgements, rebalances and failures: no committed offset passes a record
        /// that nobody has acknowledged, and everything acknowledged is committed in the end.
        #[test]
        fn a_committed_offset_never_passes_an_unacknowledged_record(steps in prop::collection::vec(step(), 1..200)) {
            let mut progress = Progress::default();
            let mut seq = 0;
            // Where the consumer reads next, what the broker has committed, and what was ever acknowledged.
            let mut position: HashMap<i32, i64> = HashMap::new();
            let mut committed: HashMap<i32, i64> = HashMap::new();
            let mut acknowledged: HashMap<i32, BTreeSet<i64>> = HashMap::new();
            let mut pending: Vec<(u64, i32, i64, i64)> = Vec::new();

            for step in steps {
                match step {
                    Step::Take { partition, records } => {
                        let first = *position.entry(partition).or_insert(0);
                        let last = first + records - 1;
                        position.insert(partition, last + 1);
                        seq += 1;
                        progress.taken(seq, &[(place(partition), first, last)]);
                        pending.push((seq, partition, first, last));
                    }
                    Step::Acknowledge { pick } if !pending.is_empty() => {
                        let (number, partition, first, last) = pending.remove(pick % pending.len());
                        acknowledged.entry(partition).or_default().extend(first..=last);
                        progress.acknowledged(number);
                    }
                    Step::Acknowledge { .. } => {}
                    Step::Revoke { partition } => {
                        progress.revoke(&[place(partition)]);
                        // The next owner, perhaps us again, starts at the committed offset.
                        position.insert(partition, committed.get(&partition).copied().unwrap_or(0));
                    }
                    Step::Rewind => {
                        for (place, next) in progress.rewind() {
                            position.insert(place.partition, next);
                        }
                    }
                    Step::Commit { fails } => {
                        let offsets = progress.take_committable();
                        if fails {
                            progress.commit_failed();
                            continue;
                        }
                        for (place, next) in offsets {
                            let done = acknowledged.entry(place.partition).or_default();
                            prop_assert!((0..next).all(|offset| done.contains(&offset)));
                            committed.insert(place.partition, next);
                        }
                    }
                }
            }
            for (number, partition, first, last) in pending {
                acknowledged.entry(partition).or_default().extend(first..=last);
                progress.acknowledged(number);
            }
            progress.commit_failed();
            for (place, next) in progress.take_committable() {
                prop_assert_eq!(next, position[&place.partition]);
            }
        }
    }
}
