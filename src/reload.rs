//! Changes of a daemon that runs: what can be exchanged under its feet (`Live`), how it is asked to (`ReloadHandle`), what
//! came of it, and the files whose changes ask for it by themselves (`Watch`).
//!
//! Who does it is `app`; this is what everybody else needs to know of it.

mod live;
mod watch;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use crate::finding::Finding;

pub use live::Live;
pub use watch::Watch;

/// Requests that may wait; they are worked off one after the other.
const MOST_WAITING: usize = 16;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    Signal,
    Api,
    File,
}

impl Trigger {
    pub const ALL: [Trigger; 3] = [Trigger::Signal, Trigger::Api, Trigger::File];

    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Signal => "signal",
            Trigger::Api => "api",
            Trigger::File => "file",
        }
    }
}

/// How much is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The configuration, rules and models.
    Everything,
    /// The models that the running configuration names.
    Models,
}

/// What runs now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// Version of the configuration: a hash of all that decides what becomes of a record, as events name it.
    pub version: String,
    /// The one before; the same when nothing that decides has changed.
    pub previous_version: String,
    /// Whether anything was exchanged.
    pub changed: bool,
    /// Version of the rules: a hash of their files.
    pub rules: String,
    /// Names and versions of the models, champions and challengers.
    pub models: Vec<String>,
    /// Settings that differ from those that run, and stay as they are until a restart.
    pub restart_required: Vec<String>,
}

/// Why all stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadError {
    /// Everything that is wrong; never empty.
    Refused(Vec<Finding>),
    /// The daemon is stopping.
    Stopping,
}

pub type ReloadResult = Result<Reloaded, ReloadError>;

/// One request, and where its answer goes.
#[derive(Debug)]
pub struct ReloadRequest {
    pub scope: Scope,
    pub answer_tx: oneshot::Sender<ReloadResult>,
}

/// Asks for reloads; cloning shares it.
#[derive(Debug, Clone)]
pub struct ReloadHandle(mpsc::Sender<ReloadRequest>);

impl ReloadHandle {
    /// A handle, and the requests that come through it.
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (request_tx, request_rx) = mpsc::channel(MOST_WAITING);
        (ReloadHandle(request_tx), request_rx)
    }

    /// Reloads, and says what came of it.
    pub async fn reload(&self, scope: Scope) -> ReloadResult {
        let (answer_tx, answer_rx) = oneshot::channel();
        self.0.send(ReloadRequest { scope, answer_tx }).await.map_err(|_| ReloadError::Stopping)?;
        answer_rx.await.unwrap_or(Err(ReloadError::Stopping))
    }
}
