//! The threads that decide: as many at a time as there are cores, each with its working memory, which is kept for the
//! next one. Whatever waits for a thread waits without one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::classify::{Decision, Scratch};
use crate::decode::Decoder;
use crate::ops::Serving;
use crate::reload::Live;

use super::problem::Problem;

/// What the API says about one record.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Outcome {
    Decided(Box<Decision>),
    Unreadable(Unreadable),
}

/// The record could not be decided on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Unreadable {
    pub(super) error: ReadError,
}

/// Why it is no record; the reasons are those of the dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadError {
    #[schema(value_type = String)]
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl Outcome {
    pub(super) fn unreadable(reason: &'static str, detail: impl Into<String>) -> Self {
        Outcome::Unreadable(Unreadable { error: ReadError { reason, detail: detail.into() } })
    }
}

pub(super) struct Workers {
    serving: Live<Serving>,
    places: Semaphore,
    scratches: Mutex<Vec<Scratch>>,
}

/// How the records of one request are read and explained.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// The configuration of when the request came, for all of its records.
    pub(super) serving: Arc<Serving>,
    pub(super) decoder: Arc<Decoder>,
    pub(super) explain: Option<usize>,
}

impl Workers {
    pub(super) fn new(serving: Live<Serving>, threads: usize) -> Self {
        Workers { serving, places: Semaphore::new(threads), scratches: Mutex::default() }
    }

    /// What decides now; a request asks once and keeps to it.
    pub(super) fn serving(&self) -> Arc<Serving> {
        self.serving.get()
    }

    /// Runs work on a thread of its own once there is a place.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.places.acquire().await.expect("the semaphore is never closed");
        // The place is given back by the thread, which may outlive the request.
        place.forget();
        let workers = Arc::clone(self);
        let worked = tokio::task::spawn_blocking(move || {
            let _place = Place(&workers.places);
            let mut worker = Worker { scratch: workers.take_scratch() };
            let result = work(&mut worker);
            workers.lock().push(worker.scratch);
            result
        });
        worked.await.map_err(|error| {
            tracing::error!(%error, "a request of the API could not be worked through");
            Problem::internal()
        })
    }

    fn take_scratch(&self) -> Scratch {
        self.lock().pop().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Scratch>> {
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a place back, also when the thread panics.
struct Place<'w>(&'w Semaphore);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

pub(super) struct Worker {
    scratch: Scratch,
}

impl Worker {
    /// A record that meets a bug of ours costs its own answer alone, as in the stream.
    pub(super) fn decide(&mut self, manner: &Manner, value: &[u8]) -> Outcome {
        let work = || manner.serving.desk().decide(&manner.decoder, value, manner.explain, &mut self.scratch);
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(decision)) => Outcome::Decided(Box::new(decision)),
            Ok(Err(reject)) => Outcome::unreadable(reject.reason(), reject.to_string()),
            Err(_) => {
                tracing::error!("a record of the API could not be processed");
                self.scratch = Scratch::default();
                Outcome::unreadable("internal_error", "the record could not be processed")
            }
        }
    }
}
