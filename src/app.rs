//! Builds the roles from the configuration, starts them under the supervisor and drains them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tracing::info;

use crate::classify::{Classifier, ClassifyStage, Destinations};
use crate::config::{Config, InputSettings};
use crate::decode::Decoder;
use crate::metrics::Metrics;
use crate::ops::OpsServer;
use crate::readiness::Readiness;
use crate::record::Kind;
use crate::stream::{self, RoleSpec};
use crate::supervisor::{Shutdown, Supervisor};

/// The parts of the daemon that scale and fail alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Classify,
}

impl Role {
    pub const ALL: [Role; 1] = [Role::Classify];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Classify => "classify",
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
    classifier: Arc<Classifier>,
}

impl App {
    /// Loads rules and models. Nothing is connected yet.
    pub fn load(config: Config, roles: &[Role]) -> anyhow::Result<Self> {
        let classifier = Classifier::load(&config)?;
        let metrics = Metrics::new();
        for kind in Kind::ALL {
            if let Some(model) = classifier.models().of(kind) {
                metrics.set_model(kind, model.id());
            }
        }
        Ok(App {
            config,
            roles: roles.to_vec(),
            metrics,
            supervisor: Supervisor::new(),
            classifier: Arc::new(classifier),
        })
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
        for role in self.roles.clone() {
            match role {
                Role::Classify => self.start_classify(&readiness)?,
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

    fn start_classify(&mut self, readiness: &Readiness) -> anyhow::Result<()> {
        let name = Role::Classify.as_str();
        let config = &self.config;
        let destinations = Arc::new(Destinations::new(config));
        let inputs = |input: &InputSettings| (Arc::clone(&input.topic), input.decode.kind);
        let role = RoleSpec {
            name,
            inputs: config.inputs.iter().map(inputs).collect(),
            outputs: destinations.topics().clone(),
        };
        let decoders: Arc<[Decoder]> = config.inputs.iter().map(|input| Decoder::new(&input.decode)).collect();
        let (kafka, stream) = (config.kafka.clone(), config.stream.clone());
        let (classifier, metrics) = (Arc::clone(&self.classifier), self.metrics.clone());
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
}
