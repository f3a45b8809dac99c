//! The work of a role, as the engine sees it: a batch of records in, a batch of outputs out.

use std::error::Error;

use super::batch::Batch;
use super::output::Outputs;

/// One worker's share of a role. The engine makes one stage for each worker thread, so a stage may keep scratch
/// memory and needs no locks.
pub trait Stage: Send {
    /// Gives every record of the batch an outcome in `outputs`. Records that cannot be processed are dead-lettered
    /// here; an error concerns the whole batch, which is processed again or stops the role.
    fn process(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), StageError>;
}

/// Why a whole batch could not be processed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Something outside is not available; the batch is read again after a pause.
    #[error("the batch cannot be processed at the moment")]
    Retry(#[source] Box<dyn Error + Send + Sync>),
    /// Going on would lose or falsify records.
    #[error("the stage cannot go on")]
    Stop(#[source] Box<dyn Error + Send + Sync>),
}
