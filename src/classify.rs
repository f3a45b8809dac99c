//! The classify role: from the bytes of a record to the event that says which queue it belongs to.
//!
//! ```text
//! stage       decode ─► classifier ─► event
//! desk        the same for a record that somebody brings: the API
//! classifier  rules ─► template cache ─► fast model ─► decide
//! ```

mod cache;
mod classifier;
mod decide;
mod desk;
mod event;
mod stage;
pub mod template;

pub use cache::TemplateCache;
pub use classifier::{Classifier, ClassifierError, Models, Scratch};
pub use decide::{Action, Answer, Decider, Verdict};
pub use desk::{Decision, Desk, Fate};
pub use stage::{ClassifyStage, Destinations};
