//! The tally role: batches of queue events and feedback into the volume store, one insert each, offsets committed
//! afterwards.

mod alarm;
mod drift;
mod insert;
mod stage;

pub use alarm::DriftAlarm;
pub use drift::{DriftWatch, Shift};
pub use stage::TallyStage;
