//! Delivery: the one engine under every Kafka role. rdkafka is named nowhere else.
//!
//! A role is a `Stage`: a batch of records in, a batch of outputs out. The engine polls, batches, runs stages on all
//! cores, publishes, waits for the acknowledgements, and commits the highest contiguous offset; see `engine` for the
//! threads and `progress` for the rule that keeps every record.

mod batch;
mod client;
mod embedded;
mod engine;
mod feeder;
mod intake;
mod leadership;
mod outbox;
mod output;
mod progress;
mod properties;
mod publisher;
mod stage;
mod telemetry;

pub use batch::{Batch, Input, InputIndex, Partition};
pub use embedded::EmbeddedBroker;
pub use engine::{EngineError, RoleSpec, run};
pub use feeder::{Feeder, PlainRecord, StreamError, TopicReader, count_records};
pub use leadership::{Announcement, Leadership, LeadershipError};
pub use outbox::{Outbox, OutboxError, Receipt};
pub use output::{Counts, Headers, Outcome, Outputs, TopicId, Topics, dead_letter_header};
pub use progress::Progress;
pub use properties::{PropertyFault, PropertyFaults, check_properties};
pub use stage::{Stage, StageError};
