//! Learning from what people said: feedback becomes rows, a challenger is trained, and it replaces the champion only when
//! it is not worse.
//!
//! ```text
//! judgements ──► corrections ──► merge with the base rows ──► train without the held-out rows ──┐
//!                                     │                        champion, on the held-out rows ──┴──► guard
//!                                     └──► train on all rows ──► a version of the registry ──► promoted, or not
//! ```

mod corrections;
mod guard;
mod merge;
mod run;
mod trainer;

pub use corrections::{Correction, Corrections, Unusable};
pub use guard::{Comparison, LabelChange, Ruling, compare};
pub use merge::{Conflict, Merged, held_out_rows, merge};
pub use run::{MOST_JUDGEMENTS, RetrainError, Retrained, model_name, retrain};
pub use trainer::{Trainer, TrainerError};
