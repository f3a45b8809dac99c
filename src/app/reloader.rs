//! Exchanges what runs for a new configuration: on SIGHUP, on request of the API, and when a file has changed.
//!
//! A new configuration is read, checked and loaded as at a start, beside the one that runs. Only when all of it is right is
//! it put in the place of the old one, so a faulty one changes nothing. One reload follows another.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::arms::{self, ArmPair};
use crate::classify::{self, Desk, Destinations};
use crate::config::Config;
use crate::escalate;
use crate::feedback::KnownQueues;
use crate::finding::{Finding, chain};
use crate::metrics::Metrics;
use crate::ops::Serving;
use crate::reload::{Live, ReloadError, ReloadRequest, ReloadResult, Reloaded, Scope, Trigger, Watch};
use crate::stream::{PropertyFaults, Topics, check_properties};
use crate::supervisor::Shutdown;
use crate::tally::DriftWatch;

use super::loaded::{Loaded, files};

/// What the parts of the daemon look at; only what this process runs is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Lives {
    /// With the topics that the role may write to.
    pub(super) classify: Option<(Live<classify::Generation>, Topics)>,
    pub(super) escalate: Option<(Live<escalate::Generation>, Topics)>,
    pub(super) api: Option<Live<Serving>>,
    pub(super) queues: Option<Arc<KnownQueues>>,
    pub(super) drift: Option<DriftWatch>,
    /// The topics of events that the role tally reads.
    pub(super) counted: Vec<Arc<str>>,
    /// Models that are compared, where feedback comes in.
    pub(super) pairs: Option<Live<Vec<ArmPair>>>,
}

impl Lives {
    /// Puts a configuration in the place of the one before, each part as a whole.
    fn exchange(&self, loaded: &Loaded) {
        if let Some((live, topics)) = &self.classify {
            live.set(classify_generation(loaded, topics));
        }
        if let Some((live, topics)) = &self.escalate {
            live.set(escalate_generation(loaded, topics));
        }
    }

    /// Routes to topics that nobody here counts before a restart.
    fn uncounted(&self, config: &Config) -> Vec<String> {
        let known = |topic: &str| self.counted.is_empty() || self.counted.iter().any(|known| **known == *topic);
        let routes = config.output.topics.iter().filter(|(_, topic)| !known(topic));
        routes.map(|(queue, _)| format!("output.topics.{queue}")).collect()
    }

    /// Takes up what the stream does not decide by.
    fn renew(&self, loaded: &Loaded) {
        if let Some(live) = &self.api {
            live.set(serving(loaded));
        }
        if let (Some(queues), Some(classifier)) = (&self.queues, &loaded.classifier) {
            let models = classifier.models();
            let labels = models.all().flat_map(|(_, _, model)| model.labels()).map(|label| &**label);
            queues.renew(&loaded.config, classifier.rules(), labels);
        }
        if let Some(drift) = &self.drift {
            drift.renew(&loaded.config);
        }
        if let Some(live) = &self.pairs {
            match arms::pairs(&loaded.config) {
                Ok(pairs) => live.set(pairs),
                Err(error) => warn!(error = chain(&error), "the models that are compared stay as they were"),
            }
        }
    }
}

pub(super) fn classify_generation(loaded: &Loaded, topics: &Topics) -> classify::Generation {
    let classifier = loaded.classifier.clone().expect("it is loaded for the role");
    let destinations = Destinations::new(&loaded.config, topics);
    classify::Generation::new(&loaded.config, Arc::clone(&loaded.version), classifier, destinations)
}

pub(super) fn escalate_generation(loaded: &Loaded, topics: &Topics) -> escalate::Generation {
    let tiers = loaded.tiers.clone().expect("they are loaded for the role");
    escalate::Generation::new(&loaded.config, Arc::clone(&loaded.version), tiers, topics)
}

pub(super) fn serving(loaded: &Loaded) -> Serving {
    let classifier = loaded.classifier.clone().expect("it is loaded where the API listens");
    let desk = Desk::new(&loaded.config, Arc::clone(&loaded.version), classifier);
    Serving::new(&loaded.config, desk)
}

/// States what runs.
pub(super) fn state(loaded: &Loaded, metrics: &Metrics) {
    if let Some(classifier) = &loaded.classifier {
        metrics.set_models(classifier.models().all().map(|(kind, arm, model)| (kind, arm, model.id())));
        metrics.set_config(&loaded.version, loaded.rules_version());
    }
}

/// What came of reading everything again.
struct Attempt {
    result: Result<(Loaded, Vec<String>), Vec<Finding>>,
    /// What was in the files, before they were read.
    seen: Vec<(PathBuf, Option<u64>)>,
}

/// Works off reloads.
pub(super) struct Reloader {
    running: Arc<Loaded>,
    lives: Lives,
    watch: Watch,
    looks: Option<Interval>,
    hangups: Signal,
    request_rx: mpsc::Receiver<ReloadRequest>,
    metrics: Metrics,
}

impl Reloader {
    /// `seen` is what was in the files before they were loaded. From now on SIGHUP does not end the process.
    pub(super) fn new(
        running: Arc<Loaded>,
        lives: Lives,
        seen: Vec<(PathBuf, Option<u64>)>,
        request_rx: mpsc::Receiver<ReloadRequest>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let mut watch = Watch::default();
        watch.know(seen);
        let hangups = signal(SignalKind::hangup())?;
        Ok(Reloader { looks: looks(running.config.reload.watch), running, lives, watch, hangups, request_rx, metrics })
    }

    /// Runs until `close` is requested.
    pub(super) async fn run(mut self, close: Shutdown) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = close.requested() => return Ok(()),
                Some(()) = self.hangups.recv() => self.reload_and_tell(Trigger::Signal).await,
                Some(request) = self.request_rx.recv() => {
                    let result = self.reload(Trigger::Api, request.scope).await;
                    // Who asked may have gone.
                    drop(request.answer_tx.send(result));
                }
                () = tick(&mut self.looks) => {
                    let files = self.watch.files();
                    let Ok(seen) = tokio::task::spawn_blocking(move || Watch::look(files)).await else { continue };
                    if self.watch.take(seen) {
                        self.reload_and_tell(Trigger::File).await;
                    }
                }
            }
        }
    }

    async fn reload_and_tell(&mut self, trigger: Trigger) {
        // The log has it.
        drop(self.reload(trigger, Scope::Everything).await);
    }

    async fn reload(&mut self, trigger: Trigger, scope: Scope) -> ReloadResult {
        let running = Arc::clone(&self.running);
        let attempt = tokio::task::spawn_blocking(move || attempt(&running, scope)).await;
        let Ok(Attempt { result, seen }) = attempt else {
            error!("a reload panicked, what runs goes on");
            self.metrics.reload(trigger, "refused");
            let problem = "it could not be loaded; the log of the daemon says more".to_owned();
            return Err(ReloadError::Refused(vec![Finding::of_config(problem)]));
        };
        match scope {
            Scope::Everything => self.watch.know(seen),
            Scope::Models => self.watch.learn(seen),
        }
        match result {
            Ok((loaded, restart_required)) => Ok(self.take_up(trigger, loaded, restart_required)),
            Err(faults) => {
                error!(
                    trigger = trigger.as_str(),
                    faults = faults.len(),
                    "the new configuration is refused, what runs goes on"
                );
                for fault in &faults {
                    error!(part = fault.part, "{fault}");
                }
                self.metrics.reload(trigger, "refused");
                Err(ReloadError::Refused(faults))
            }
        }
    }

    fn take_up(&mut self, trigger: Trigger, loaded: Loaded, mut restart_required: Vec<String>) -> Reloaded {
        restart_required.extend(self.lives.uncounted(&loaded.config));
        let changed = loaded.version != self.running.version;
        // Manifests are read.
        tokio::task::block_in_place(|| {
            if changed {
                self.lives.exchange(&loaded);
                state(&loaded, &self.metrics);
            }
            self.lives.renew(&loaded);
        });
        if loaded.config.reload.watch != self.running.config.reload.watch {
            self.looks = looks(loaded.config.reload.watch);
        }
        let reloaded = Reloaded {
            version: loaded.version.to_string(),
            previous_version: self.running.version.to_string(),
            changed,
            rules: loaded.rules_version().to_owned(),
            models: loaded.model_ids(),
            restart_required,
        };
        self.running = Arc::new(loaded);
        self.metrics.reload(trigger, if changed { "changed" } else { "unchanged" });
        info!(
            trigger = trigger.as_str(),
            version = reloaded.version,
            previous = reloaded.previous_version,
            changed,
            rules = reloaded.rules,
            models = reloaded.models.join(", "),
            "reloaded"
        );
        if !reloaded.restart_required.is_empty() {
            warn!(settings = reloaded.restart_required.join(", "), "these settings stay as they are until a restart");
        }
        reloaded
    }
}

fn looks(every: Option<Duration>) -> Option<Interval> {
    let mut looks = interval(every?);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(looks)
}

async fn tick(looks: &mut Option<Interval>) {
    match looks {
        Some(looks) => drop(looks.tick().await),
        None => std::future::pending().await,
    }
}

/// Reads and loads everything again, beside what runs.
fn attempt(running: &Loaded, scope: Scope) -> Attempt {
    let file = running.config.file().map(|(path, _)| path.to_owned());
    if scope == Scope::Models {
        let seen = Watch::look(files(&running.config));
        let result = running.again(running.config.clone(), scope).map(|loaded| (loaded, Vec::new()));
        return Attempt { result, seen };
    }
    let mut seen = Watch::look(file.clone());
    let asked = read(file.as_deref(), &running.config);
    // What is refused is watched as well: its rules may be mended before it is.
    let mut named = files(&running.config);
    named.extend(asked.iter().flat_map(|(config, _)| files(config)));
    named.sort_unstable();
    named.dedup();
    seen.extend(Watch::look(named));
    let result = asked.and_then(|(config, stay)| Ok((running.again(config, scope)?, stay)));
    if let Ok((loaded, _)) = &result {
        let runs = files(&loaded.config);
        seen.retain(|(path, _)| Some(path) == file.as_ref() || runs.contains(path));
    }
    Attempt { result, seen }
}

/// The configuration of now, with what cannot change taken from the one that runs.
fn read(file: Option<&Path>, running: &Config) -> Result<(Config, Vec<String>), Vec<Finding>> {
    let of = |faults: crate::config::ConfigFaults| faults.as_slice().iter().map(Finding::from).collect::<Vec<_>>();
    let config = Config::load(file).map_err(of)?;
    check_properties(&config.kafka).map_err(|PropertyFaults(faults)| {
        faults
            .iter()
            .map(|fault| Finding {
                key: Some(format!("kafka.properties.\"{}\"", fault.name)),
                ..Finding::of_config(fault.problem.clone())
            })
            .collect::<Vec<_>>()
    })?;
    config.over(running).map_err(of)
}
