//! One engine under every Kafka role: consumes, runs the stage on all cores, publishes, commits.
//!
//! ```text
//! intake thread ── batches ──► worker threads ── outputs ──► publisher thread ──► Kafka
//!      ▲                                                          │
//!      └───────────────── acknowledged, failed ◄──────────────────┘
//! ```
//!
//! The intake owns the consumer and the offsets. A record's offset is committed only after everything that was made
//! of it, and of all records before it, is acknowledged. After a failure the intake starts a new generation at the
//! last offset that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::{KafkaSettings, StreamSettings};
use crate::metrics::Metrics;
use crate::readiness::RoleReadiness;
use crate::supervisor::Shutdown;

use super::batch::Batch;
use super::client::{self, MAX_MESSAGE_BYTES, Shared};
use super::intake::{Intake, IntakeParts};
use super::output::{Outputs, Topics};
use super::publisher::{MAX_BATCHES, Publisher, PublisherParts};
use super::stage::{Stage, StageError};
use super::telemetry::Telemetry;

/// Why a role cannot go on, or must go back.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot create the kafka {client}")]
    Client { client: &'static str, source: KafkaError },
    #[error("cannot subscribe to {topics}")]
    Subscribe { topics: String, source: KafkaError },
    #[error("the kafka consumer failed for good")]
    Consume(#[source] KafkaError),
    #[error("{failed} outputs of a batch were not accepted")]
    Publish { failed: usize, code: RDKafkaErrorCode },
    #[error("the transaction failed at: {step}")]
    Transaction { step: &'static str, source: KafkaError },
    #[error(
        "the producer was refused {errors} times in a row; is another instance running under the same name? set \
         kafka.instance"
    )]
    Fenced {
        errors: u32,
        #[source]
        last: Box<EngineError>,
    },
    #[error("the broker accepts not even a dead letter without value for {record}")]
    Refused { record: String, code: RDKafkaErrorCode },
    #[error(transparent)]
    Stage(StageError),
    #[error("the stage panicked in the batch that begins at {record}")]
    Panicked { record: String },
    #[error("{batches} batches were not finished within {deadline:?}; they will be read again")]
    Drain { batches: usize, deadline: Duration },
    #[error("the publisher thread is gone")]
    PublisherGone,
    #[error("the system refuses a thread")]
    Thread(#[source] std::io::Error),
}

impl EngineError {
    /// Whether going back and trying again can help.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            EngineError::Publish { .. } | EngineError::Transaction { .. } => true,
            EngineError::Stage(StageError::Retry(_)) => true,
            EngineError::Client { .. }
            | EngineError::Subscribe { .. }
            | EngineError::Consume(_)
            | EngineError::Fenced { .. }
            | EngineError::Refused { .. }
            | EngineError::Stage(StageError::Stop(_))
            | EngineError::Panicked { .. }
            | EngineError::Drain { .. }
            | EngineError::PublisherGone
            | EngineError::Thread(_) => false,
        }
    }
}

/// A batch on its way to a worker.
pub(crate) struct Job {
    pub(crate) generation: u64,
    pub(crate) seq: u64,
    pub(crate) batch: Batch,
}

/// A batch on its way from a worker to the publisher.
pub(crate) struct Processed {
    pub(crate) generation: u64,
    pub(crate) seq: u64,
    pub(crate) batch: Batch,
    pub(crate) outputs: Outputs,
    pub(crate) result: Result<(), EngineError>,
}

/// What the publisher tells the intake.
pub(crate) enum Report {
    /// The producer has fenced its predecessor and ended what that left open. Only then are the committed offsets
    /// those to start from.
    Connected,
    Acknowledged {
        generation: u64,
        seq: u64,
    },
    Failed {
        generation: u64,
        failure: EngineError,
    },
}

/// What all threads of an engine look at.
#[derive(Debug, Default)]
pub(crate) struct EngineState {
    generation: AtomicU64,
    abandoned: AtomicBool,
}

impl EngineState {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Nobody waits for results any more.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(crate) fn is_obsolete(&self, generation: u64) -> bool {
        self.is_abandoned() || self.generation() != generation
    }
}

/// What a role is made of.
pub struct RoleSpec {
    /// The role's name; the consumer group is `<group_prefix>-<name>`.
    pub name: &'static str,
    /// Topics to read, each with what it carries (`ticket`, `log`, `event` or `feedback`). Their order gives `Input::input`.
    pub inputs: Vec<(Arc<str>, &'static str)>,
    /// Topics to write.
    pub outputs: Topics,
}

impl std::fmt::Debug for RoleSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleSpec").field("name", &self.name).field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

/// Runs a role on the calling thread until shutdown is requested and everything in flight is done.
pub fn run<S: Stage>(
    kafka: &KafkaSettings,
    stream: &StreamSettings,
    role: RoleSpec,
    metrics: &Metrics,
    readiness: RoleReadiness,
    shutdown: Shutdown,
    mut make_stage: impl FnMut() -> S,
) -> Result<(), EngineError> {
    let shared = Shared::new(kafka);
    let topics: Arc<[Arc<str>]> = role.inputs.iter().map(|(topic, _)| Arc::clone(topic)).collect();
    let telemetry = Telemetry::new(metrics, role.name, &role.inputs);
    let state = Arc::new(EngineState::default());

    let consumer_config = client::consumer_config(kafka, stream, role.name);
    let consumer = super::intake::connect(&consumer_config, shared.clone(), &topics)?;

    let (job_tx, job_rx) = crossbeam_channel::bounded::<Job>(MAX_BATCHES);
    let (processed_tx, processed_rx) = crossbeam_channel::bounded::<Processed>(MAX_BATCHES);
    let (spare_tx, spare_rx) = crossbeam_channel::bounded::<Outputs>(stream.workers * 2);
    // One acknowledgement a batch and one failure a generation: bounded by what is in flight.
    let (report_tx, report_rx) = crossbeam_channel::unbounded::<Report>();

    let publisher = Publisher::new(PublisherParts {
        producer_config: client::producer_config(kafka, stream, role.name),
        shared: shared.clone(),
        consumer: Arc::clone(&consumer),
        inputs: Arc::clone(&topics),
        topics: role.outputs,
        delivery: kafka.delivery,
        commit_interval: stream.commit_interval,
        state: Arc::clone(&state),
        telemetry: telemetry.clone(),
        processed_rx,
        spare_tx,
        report_tx,
    });
    let intake = Intake::new(IntakeParts {
        consumer,
        topics,
        connection: Arc::clone(&shared.connection),
        delivery: kafka.delivery,
        settings: stream.clone(),
        state: Arc::clone(&state),
        telemetry: telemetry.clone(),
        readiness,
        shutdown,
        job_tx,
        report_rx,
    });

    std::thread::scope(|scope| {
        let thread = |suffix: &str| std::thread::Builder::new().name(format!("{}-{suffix}", role.name));
        for worker in 0..stream.workers {
            let stage = make_stage();
            let (job_rx, processed_tx, spare_rx) = (job_rx.clone(), processed_tx.clone(), spare_rx.clone());
            let (state, telemetry) = (Arc::clone(&state), telemetry.clone());
            thread(&format!("worker-{worker}"))
                .spawn_scoped(scope, move || work(stage, &state, &telemetry, &job_rx, &processed_tx, &spare_rx))
                .map_err(EngineError::Thread)?;
        }
        drop((job_rx, processed_tx, spare_rx));
        thread("publisher").spawn_scoped(scope, move || publisher.run()).map_err(EngineError::Thread)?;
        intake.run()
    })
}

/// A worker: takes batches from whoever is next, in any order.
fn work(
    mut stage: impl Stage,
    state: &EngineState,
    telemetry: &Telemetry,
    job_rx: &Receiver<Job>,
    processed_tx: &Sender<Processed>,
    spare_rx: &Receiver<Outputs>,
) {
    for Job { generation, seq, batch } in job_rx {
        if state.is_obsolete(generation) {
            continue;
        }
        let started = Instant::now();
        let mut outputs = spare_rx.try_recv().unwrap_or_else(|_| Outputs::new(MAX_MESSAGE_BYTES));
        outputs.reset(batch.len());
        let work = std::panic::AssertUnwindSafe(|| stage.process(&batch, &mut outputs));
        let result = match std::panic::catch_unwind(work) {
            Ok(result) => result.map_err(EngineError::Stage),
            Err(_) => Err(EngineError::Panicked { record: batch.get(0).position().to_string() }),
        };
        if result.is_ok() {
            let forgotten: Vec<usize> = outputs.forgotten().collect();
            for index in forgotten {
                tracing::error!(record = %batch.get(index).position(), "the stage gave the record no outcome");
                outputs.dead_letter(batch.get(index), index, "internal_error", "the stage gave the record no outcome");
            }
        }
        telemetry.processed(started.elapsed());
        if processed_tx.send(Processed { generation, seq, batch, outputs, result }).is_err() {
            return;
        }
    }
}
