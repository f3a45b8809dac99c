//! The classify role: from the bytes of a record to the event that says which queue it belongs to.
//!
//! ```text
//! stage       decode ─► classifier ─► event
//! desk        the same for a record that somebody brings: the API
//! classifier  rules ─► template cache ─► fast model ─► decide
//! ```
//!
//! All of it is a `Generation`, which is exchanged as a whole while the daemon runs.

mod arms;
mod cache;
mod classifier;
mod decide;
mod desk;
mod event;
mod generation;
mod stage;
pub mod template;

pub use cache::TemplateCache;
pub use classifier::{Classifier, ClassifierError, ModelError, ModelFault, Models, Scratch};
pub use decide::{Action, Answer, Decider, ShadowVerdict, Verdict};
pub use desk::{Decision, Desk, Fate};
pub use generation::{Destinations, Generation};
pub use stage::ClassifyStage;
