//! A batch whose outputs have been handed to librdkafka and are not yet acknowledged.

use super::super::batch::{Batch, Input, Partition};
use super::super::output::{Counts, Outputs};

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) generation: u64,
    pub(super) seq: u64,
    pub(super) batch: Batch,
    pub(super) counts: Counts,
    /// The record that each message comes from.
    records: Vec<u32>,
}

impl Pending {
    pub(super) fn new(generation: u64, seq: u64, batch: Batch, outputs: &mut Outputs) -> Self {
        let records = outputs.messages.iter().map(|message| message.record).collect();
        Pending { generation, seq, batch, counts: std::mem::take(&mut outputs.counts), records }
    }

    pub(super) fn input_of(&self, message: usize) -> Input<'_> {
        self.batch.get(self.records[message] as usize)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = (Partition, i64)> {
        self.batch.iter().map(|input| (input.place(), input.offset()))
    }
}
