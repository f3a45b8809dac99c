//! Builds the roles from the configuration, starts them under the supervisor and drains them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::classify::{Classifier, ClassifyStage, Destinations, Models};
use crate::config::{Config, InputSettings};
use crate::decode::Decoder;
use crate::escalate::{EscalateStage, Tiers};
use crate::forecast::Forecaster;
use crate::incidents::{IncidentStage, IncidentWatch};
use crate::metrics::Metrics;
use crate::ops::{ApiServer, OpsServer};
use crate::readiness::{Readiness, RoleReadiness};
use crate::record::Kind;
use crate::reports::ReportSender;
use crate::stream::{self, RoleSpec, Topics};
use crate::supervisor::{Shutdown, Supervisor};
use crate::tally::{DriftWatch, TallyStage};
use crate::volumes::VolumeStore;

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

/// A daemon that is loaded and not yet running.
#[derive(Debug)]
pub struct App {
    config: Config,
    roles: Vec<Role>,
    metrics: Metrics,
    supervisor: Supervisor,
    /// For the classify role and the API, who share it.
    classifier: Option<Arc<Classifier>>,
    /// For the escalate role alone.
    tiers: Option<Arc<Tiers>>,
    store: VolumeStore,
}

impl App {
    /// Loads rules and models. Nothing is connected yet.
    pub fn load(config: Config, roles: &[Role]) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let classifier = match roles.contains(&Role::Classify) || config.api.listen.is_some() {
            true => Some(Arc::new(load_classifier(&config, &metrics)?)),
            false => None,
        };
        // Without escalations there is nothing to do, and the role stays out.
        let tiers = match roles.contains(&Role::Escalate) && config.output.escalate {
            true => Some(Arc::new(load_tiers(&config, classifier.as_deref())?)),
            false => None,
        };
        let store = VolumeStore::new(&config);
        Ok(App { config, roles: roles.to_vec(), metrics, supervisor: Supervisor::new(), classifier, tiers, store })
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
                }
                Role::Incidents => {
                    self.start_incidents(&readiness)?;
                    self.start_watch(&readiness)?;
                }
            }
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
        let classifier = self.classifier.clone().expect("`load` loads it where the API listens");
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let server = ApiServer::bind(address, &self.config, classifier, store, metrics).await?;
        self.supervisor.spawn_service("api", server.serve(self.supervisor.service_shutdown()));
        Ok(())
    }

    fn start_classify(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = Role::Classify.as_str();
        let config = &self.config;
        let destinations = Arc::new(Destinations::new(config));
        let inputs = |input: &InputSettings| (Arc::clone(&input.topic), input.decode.kind.as_str());
        let role = RoleSpec {
            name,
            inputs: config.inputs.iter().map(inputs).collect(),
            outputs: destinations.topics().clone(),
        };
        let decoders: Arc<[Decoder]> = config.inputs.iter().map(|input| Decoder::new(&input.decode)).collect();
        let (kafka, stream) = (config.kafka.clone(), config.stream.clone());
        let classifier = self.classifier.clone().expect("`load` loads it for the role");
        let metrics = self.metrics.clone();
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            let stage = || {
                let (classifier, decoders) = (Arc::clone(&classifier), Arc::clone(&decoders));
                ClassifyStage::new(classifier, decoders, Arc::clone(&destinations), &metrics)
            };
            stream::run(&kafka, &stream, role, &metrics, readiness, shutdown, stage)
        })?;
        Ok(())
    }

    fn start_escalate(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let Some(tiers) = self.tiers.clone() else { return Ok(()) };
        let name = Role::Escalate.as_str();
        let config = self.config.clone();
        let (topics, events) = EscalateStage::topics(&config);
        let role =
            RoleSpec { name, inputs: vec![(Arc::from(&*config.output.escalations), "escalation")], outputs: topics };
        let stream = config.escalate.stream_settings(&config.stream);
        let (metrics, runtime) = (self.metrics.clone(), Handle::current());
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            let stage = || EscalateStage::new(Arc::clone(&tiers), &config, events.clone(), runtime.clone(), &metrics);
            stream::run(&config.kafka, &stream, role, &metrics, readiness, shutdown, stage)
        })?;
        Ok(())
    }

    fn start_tally(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = Role::Tally.as_str();
        let config = self.config.clone();
        let mut inputs = event_topics(&config);
        let feedback = inputs.len();
        inputs.push((Arc::from(&*config.feedback.topic), "feedback"));
        let role = RoleSpec { name, inputs, outputs: Topics::new(&config.output.dead_letters) };
        let stream = config.tally.stream_settings(&config.stream);
        let (store, metrics, runtime) = (self.store.clone(), self.metrics.clone(), Handle::current());
        let (readiness, shutdown) = (readiness.role(name), self.supervisor.shutdown());
        self.supervisor.spawn_role_thread(name, move || {
            if !prepare(&store, &config, &runtime, &readiness, &shutdown) {
                return Ok(());
            }
            let drift = DriftWatch::load(&config, &metrics);
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
}

/// Every topic that events are written to.
fn event_topics(config: &Config) -> Vec<(Arc<str>, &'static str)> {
    let mut topics: Vec<Arc<str>> = vec![Arc::from(&*config.output.events)];
    topics.extend(config.output.topics.values().map(|topic| Arc::from(&**topic)));
    topics.sort_unstable();
    topics.dedup();
    topics.into_iter().map(|topic| (topic, "event")).collect()
}

/// The labels come from the fast models, which are loaded for that where the classify role runs elsewhere.
fn load_tiers(config: &Config, classifier: Option<&Classifier>) -> anyhow::Result<Tiers> {
    let models = match classifier {
        Some(classifier) => classifier.models().clone(),
        None => Models::load(config)?,
    };
    let labels = |kind| models.of(kind).map_or_else(Vec::new, |model| model.labels().to_vec());
    Ok(Tiers::load(config, labels)?)
}

fn load_classifier(config: &Config, metrics: &Metrics) -> anyhow::Result<Classifier> {
    let classifier = Classifier::load(config)?;
    for kind in Kind::ALL {
        if let Some(model) = classifier.models().of(kind) {
            metrics.set_model(kind, model.id());
        }
    }
    Ok(classifier)
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
