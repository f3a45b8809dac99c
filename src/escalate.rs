//! The escalate role: what the fast tiers were not sure of climbs to slower ones, at its own pace, and gets its one final
//! event.
//!
//! ```text
//! stage    escalation ─► encoder ─► LLM ─► decide ─► event
//! decide   which answer counts, and who must look at it; pure
//! llm      an OpenAI-compatible server, within limits
//! ```
//!
//! Each tier is asked only about what the one before left open. A tier that is missing, late or over budget is passed
//! over: the record goes to a person with what is known, and nothing waits for ever.

mod decide;
pub mod llm;
mod stage;
mod tiers;

pub use stage::{EscalateStage, Generation};
pub use tiers::{Tiers, TiersError};
