//! The tally role: batches of queue events into the volume store, one insert each, offsets committed afterwards.

mod insert;
mod stage;

pub use stage::TallyStage;
