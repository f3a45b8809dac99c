//! Builds the roles from the configuration, starts them under the supervisor, exchanges what may change while they run, and
//! drains them.

mod accuracy;
mod loaded;
mod reloader;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::arms;
use crate::classify::ClassifyStage;
use crate::config::{Config, InputSettings};
use crate::escalate::EscalateStage;
use crate::feedback::KnownQueues;
use crate::finding::Finding;
use crate::forecast::Forecaster;
use crate::incidents::{IncidentStage, IncidentWatch};
use crate::metrics::Metrics;
use crate::ops::{ApiParts, ApiServer, OpsServer};
use crate::readiness::{Readiness, RoleReadiness};
use crate::reload::{Live, ReloadHandle, ReloadRequest, Watch};
use crate::reports::ReportSender;
use crate::retrain::Trainer;
use crate::stream::{self, RoleSpec, Topics};
use crate::supervisor::{Shutdown, Supervisor};
use crate::tally::{DriftAlarm, DriftWatch, TallyStage};
use crate::volumes::VolumeStore;

use loaded::Loaded;
use reloader::{Lives, Reloader};

/// The parts of the daemon that scale and fail alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Classify,
    Escalate,
    Tally,
    Forecast,
    Incidents,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Classify, Role::Escalate, Role::Tally, Role::Forecast, Role::Incidents];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Classify => "classify",
            Role::Escalate => "escalate",
            Role::Tally => "tally",
            Role::Forecast => "forecast",
            Role::Incidents => "incidents",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
            format!("the roles are: {}", known.join(", "))
        })
    }
}

/// The configuration names what is faulty.
#[derive(Debug, thiserror::Error)]
#[error("what the configuration names has faults:{}", .0.iter().map(|fault| format!("\n  {fault}")).collect::<String>())]
pub struct LoadFaults(pub Vec<Finding>);

/// A daemon that is loaded and not yet running.
#[derive(Debug)]
pub struct App {
    config: Config,
    loaded: Arc<Loaded>,
    roles: Vec<Role>,
    metrics: Metrics,
    supervisor: Supervisor,
    lives: Lives,
    store: VolumeStore,
    reload: ReloadHandle,
    /// Requests for reloads, where the daemon takes them.
    reload_rx: Option<mpsc::Receiver<ReloadRequest>>,
    /// What was in the files before they were read.
    seen: Vec<(PathBuf, Option<u64>)>,
}

impl App {
    /// Loads rules and models. Nothing is connected yet.
    pub fn load(config: Config, roles: &[Role]) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let own = config.file().map(|(path, hash)| (path.to_owned(), Some(hash)));
        let seen = own.into_iter().chain(Watch::look(loaded::files(&config))).collect();
        let loaded = Loaded::new(config.clone(), roles).map_err(LoadFaults)?;
        reloader::state(&loaded, &metrics);
        metrics.set_reloaded(true);
        Ok(App {
            store: VolumeStore::new(&config),
            config,
            loaded: Arc::new(loaded),
            roles: roles.to_vec(),
            metrics,
            supervisor: Supervisor::new(),
            lives: Lives::default(),
            reload: ReloadHandle::new().0,
            reload_rx: None,
            seen,
        })
    }

    /// A daemon that takes up changes of its configuration while it runs.
    pub fn reloading(mut self) -> Self {
        let (reload, reload_rx) = ReloadHandle::new();
        (self.reload, self.reload_rx) = (reload, Some(reload_rx));
        self
    }

    /// Where volumes and forecasts are kept.
    pub fn store(&self) -> &VolumeStore {
        &self.store
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Requesting it drains and ends the daemon.
    pub fn shutdown(&self) -> Shutdown {
        self.supervisor.shutdown()
    }

    /// Runs until a signal, a request for shutdown, or a failure, and drains.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let readiness = Readiness::new(self.metrics.clone());
        if let Some(address) = self.config.ops.listen {
            self.start_ops(address, readiness.clone()).await?;
        }
        if let Some(address) = self.config.api.listen {
            self.start_api(address).await?;
        }
        for role in self.roles.clone() {
            match role {
                Role::Classify => self.start_classify(&readiness)?,
                Role::Escalate => self.start_escalate(&readiness)?,
                Role::Tally => self.start_tally(&readiness)?,
                Role::Forecast => {
                    self.start_forecast(&readiness)?;
                    self.start_reports(&readiness)?;
                    self.start_trainings(&readiness)?;
                }
                Role::Incidents => {
                    self.start_incidents(&readiness)?;
                    self.start_watch(&readiness)?;
                }
            }
        }
        if let Some(request_rx) = self.reload_rx.take() {
            self.start_reloads(request_rx)?;
        }
        let drain_deadline = self.config.stream.drain_deadline;
        self.supervisor.run(drain_deadline).await?;
        info!("stopped");
        Ok(())
    }

    async fn start_ops(&mut self, address: SocketAddr, readiness: Readiness) -> anyhow::Result<()> {
        let server = OpsServer::bind(address).await.context("ops.listen")?;
        let (draining, close) = (self.supervisor.shutdown(), self.supervisor.service_shutdown());
        let serving = server.serve(self.metrics.clone(), readiness, draining, close);
        self.supervisor.spawn_service("ops", serving);
        Ok(())
    }

    async fn start_api(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let serving = Live::new(reloader::serving(&self.loaded));
        let classifier = self.loaded.classifier.as_ref().expect("it is loaded where the API listens");
        let models = classifier.models();
        let labels = models.all().flat_map(|(_, _, model)| model.labels()).map(|label| &**label);
        let queues = Arc::new(KnownQueues::new(&self.config, classifier.rules(), labels));
        (self.lives.api, self.lives.queues) = (Some(serving.clone()), Some(Arc::clone(&queues)));
        let parts = ApiParts { serving, queues, reload: self.reload.clone() };
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let server = ApiServer::bind(address, &self.config, parts, store, metrics).await?;
        self.supervisor.spawn_service("api", server.serve(self.supervisor.service_shutdown()));
        Ok(())
    }

    fn start_reloads(&mut self, request_rx: mpsc::Receiver<ReloadRequest>) -> anyhow::Result<()> {
        let (loaded, lives, seen) = (Arc::clone(&self.loaded), self.lives.clone(), std::mem::take(&mut self.seen));
        let reloader =
            Reloader::new(loaded, lives, seen, request_rx, self.metrics.clone()).context("cannot listen for SIGHUP")?;
        self.supervisor.spawn_service("reload", reloader.run(self.supervisor.service_shutdown()));
        Ok(())
    }

    fn start_classify(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = Role::Classify.as_str();
        let config = &self.config;
        let topics = Topics::new(&config.output.dead_letters);
        let live = Live::new(reloader::classify_generation(&self.loaded, &topics));
        self.lives.classify = Some((live.clone(), topics.clone()));
        let inputs = |input: &InputSettings| (Arc::clone(&input.topic), input.decode.kind.as_str());
        let role = RoleSpec { name, inputs: config.inputs.iter().map(inputs).collect(), outputs: topics };
        let (kafka, stream) = (config.kafka.clone(), config.stream.clone());
        let metrics = self.metrics.clone();
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            let stage = || ClassifyStage::new(live.clone(), &metrics);
            stream::run(&kafka, &stream, role, &metrics, readiness, shutdown, stage)
        })?;
        Ok(())
    }

    fn start_escalate(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let Some(tiers) = &self.loaded.tiers else { return Ok(()) };
        tiers.show(&self.metrics);
        let name = Role::Escalate.as_str();
        let config = self.config.clone();
        let topics = Topics::new(&config.output.dead_letters);
        let live = Live::new(reloader::escalate_generation(&self.loaded, &topics));
        self.lives.escalate = Some((live.clone(), topics.clone()));
        let role =
            RoleSpec { name, inputs: vec![(Arc::from(&*config.output.escalations), "escalation")], outputs: topics };
        let stream = config.escalate.stream_settings(&config.stream);
        let (metrics, runtime) = (self.metrics.clone(), Handle::current());
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            let stage = || EscalateStage::new(live.clone(), runtime.clone(), &metrics);
            stream::run(&config.kafka, &stream, role, &metrics, readiness, shutdown, stage)
        })?;
        Ok(())
    }

    fn start_tally(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = Role::Tally.as_str();
        let config = self.config.clone();
        let mut inputs = event_topics(&config);
        self.lives.counted = inputs.iter().map(|(topic, _)| Arc::clone(topic)).collect();
        let feedback = inputs.len();
        inputs.push((Arc::from(&*config.feedback.topic), "feedback"));
        let role = RoleSpec { name, inputs, outputs: Topics::new(&config.output.dead_letters) };
        let stream = config.tally.stream_settings(&config.stream);
        let alarm = DriftAlarm::open(&config)?;
        let (store, metrics, runtime) = (self.store.clone(), self.metrics.clone(), Handle::current());
        let drift = DriftWatch::load(&config, &metrics);
        self.lives.drift = Some(drift.clone());
        let pairs = Live::new(arms::pairs(&config).context("model.challenger")?);
        self.lives.pairs = Some(pairs.clone());
        let watched = accuracy::watch(store.clone(), pairs, self.metrics.clone(), self.supervisor.service_shutdown());
        self.supervisor.spawn_service("accuracy", watched);
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            if !prepare(&store, &config, &runtime, &readiness, &shutdown) {
                return Ok(());
            }
            let drift = (drift, alarm);
            let stage = || TallyStage::new(store.clone(), &config, feedback, drift.clone(), runtime.clone(), &metrics);
            stream::run(&config.kafka, &stream, role, &metrics, readiness, shutdown, stage)
        })?;
        Ok(())
    }

    fn start_forecast(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = Role::Forecast.as_str();
        let config = self.config.clone();
        let (store, runtime) = (self.store.clone(), Handle::current());
        let forecaster = Forecaster::new(config.clone(), store.clone(), runtime.clone(), &self.metrics);
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            if !prepare(&store, &config, &runtime, &readiness, &shutdown) {
                return Ok(());
            }
            forecaster.run(&readiness, &shutdown)
        })?;
        Ok(())
    }

    fn start_incidents(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = Role::Incidents.as_str();
        let config = self.config.clone();
        let mut inputs = event_topics(&config);
        let updates = inputs.len();
        inputs.push((Arc::from(&*config.incidents.updates), "incident-update"));
        let role = RoleSpec { name, inputs, outputs: Topics::new(&config.output.dead_letters) };
        let stream = config.incidents.stream_settings(&config.stream);
        let (store, metrics, runtime) = (self.store.clone(), self.metrics.clone(), Handle::current());
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            if !prepare(&store, &config, &runtime, &readiness, &shutdown) {
                return Ok(());
            }
            let stage = || IncidentStage::new(store.clone(), &config, updates, runtime.clone(), &metrics);
            stream::run(&config.kafka, &stream, role, &metrics, readiness, shutdown, stage)
        })?;
        Ok(())
    }

    /// Whichever instance leads places events, looks at the clock and has people told.
    fn start_watch(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = "incident-watch";
        let config = self.config.clone();
        let (store, runtime) = (self.store.clone(), Handle::current());
        let watch = IncidentWatch::new(config.clone(), store.clone(), runtime.clone(), &self.metrics)?;
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            if !prepare(&store, &config, &runtime, &readiness, &shutdown) {
                return Ok(());
            }
            watch.run(&readiness, &shutdown)
        })?;
        Ok(())
    }

    /// Reports are sent beside the forecasts, by whichever instance leads them, if anybody wants them.
    fn start_reports(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let config = self.config.clone();
        if config.reports.email_to.is_empty() {
            return Ok(());
        }
        let (store, runtime) = (self.store.clone(), Handle::current());
        let sender = ReportSender::new(config.clone(), store.clone(), runtime.clone(), &self.metrics)?;
        let (readiness, shutdown) = (readiness.role(Role::Forecast.as_str()), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread("reports", move || {
            if !prepare(&store, &config, &runtime, &readiness, &shutdown) {
                return Ok(());
            }
            sender.run(&shutdown)
        })?;
        Ok(())
    }

    /// Trainings too, if there is a schedule.
    fn start_trainings(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let config = self.config.clone();
        let Some(schedule) = config.retrain.schedule else { return Ok(()) };
        let (store, runtime) = (self.store.clone(), Handle::current());
        let trainer = Trainer::new(config.clone(), schedule, store.clone(), runtime.clone(), &self.metrics);
        let (readiness, shutdown) = (readiness.role(Role::Forecast.as_str()), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread("retrain", move || {
            if !prepare(&store, &config, &runtime, &readiness, &shutdown) {
                return Ok(());
            }
            trainer.run(&shutdown)
        })?;
        Ok(())
    }
}

/// Every topic that events are written to.
fn event_topics(config: &Config) -> Vec<(Arc<str>, &'static str)> {
    let mut topics: Vec<Arc<str>> = vec![Arc::from(&*config.output.events)];
    topics.extend(config.output.topics.values().map(|topic| Arc::from(&**topic)));
    topics.sort_unstable();
    topics.dedup();
    topics.into_iter().map(|topic| (topic, "event")).collect()
}

/// Waits until the tables are there, and creates or updates them if the configuration says so; false when shutdown came
/// first.
fn prepare(
    store: &VolumeStore,
    config: &Config,
    runtime: &Handle,
    readiness: &RoleReadiness,
    shutdown: &Shutdown,
) -> bool {
    let mut pause = config.stream.retry_backoff;
    while let Err(error) = runtime.block_on(store.prepare(config.clickhouse.migrate)) {
        let error = format!("{:#}", anyhow::Error::from(error));
        warn!(error, ?pause, "the tables are not ready yet");
        readiness.set_not_ready(format!("waiting for the tables: {error}"));
        if shutdown.wait_for(pause) {
            return false;
        }
        pause = (pause * 2).min(config.stream.retry_backoff_max);
    }
    !shutdown.is_requested()
}
