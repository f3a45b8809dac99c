//! What people say about events: the list of what to look at, claims, and what they found, on its way to Kafka.
//!
//! ```text
//! reviews ◄── store: events that are unsure and not judged yet      claim, release ──► store
//! submit ──► checks ──► outbox ──► Kafka: feedback ──► tally ──► store
//! ```
//!
//! Plain requests and answers; whoever serves them (HTTP, a test) adds who asks. Feedback takes the way through Kafka, so
//! that nothing is lost while the store is away, and so that a ticket system can take the same.

mod desk;
mod queues;
mod request;

pub use desk::{Desk, DeskError, DeskSetupError};
pub use queues::{KnownQueues, QueuesError};
pub use request::{
    BulkAnswer, BulkItem, ClaimAnswer, FeedbackBulk, FeedbackReceipt, FeedbackSubmission, QueueNames, ReviewPage,
    ReviewQuery,
};
