//! Who is told what, when, by which way. The leader alone has a notifier.
//!
//! A channel is told the entries of an incident's history that it does not know yet: several that come together, or while
//! its cool-down lasts, are one message, and none is left out. A channel of a later step is told from that step on. What was
//! told, or given up, is noted in the store; what is not noted there is told again, with the same delivery id.

mod message;
mod send;
mod template;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::config::{ChannelSettings, Config, IncidentSettings};
use crate::metrics::Metrics;
use crate::record::IncidentChange;
use crate::volumes::{IncidentNotificationRow, IncidentRow, Notified};

use message::Message;
pub(super) use send::SetupError;
use send::{Outcome, Way};

/// What is older when it could be told, in milliseconds, is left to the list of incidents.
const MOST_AGE: i64 = 86_400_000;

/// How far a channel has been told about an incident.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Entries of the history.
    through: u32,
    /// Milliseconds since 1970-01-01 UTC; 0: never.
    last_at: i64,
    attempts: u32,
    not_before: Option<Instant>,
}

/// One configured channel.
#[derive(Debug)]
struct Channel {
    settings: ChannelSettings,
    /// The step from which on it is told; `None`: nothing names it.
    first_step: Option<u8>,
    way: Arc<Way>,
    limiter: DefaultDirectRateLimiter,
    is_busy: bool,
    /// The server wants to be left alone, or the rate is used up.
    not_before: Option<Instant>,
}

/// A message that was on its way, and what became of it.
#[derive(Debug)]
struct Returned {
    channel: usize,
    incident_id: Uuid,
    sequence: u32,
    delivery_id: Uuid,
    outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Notifier {
    channels: Vec<Channel>,
    told: HashMap<(Uuid, usize), Told>,
    returned_tx: Sender<Returned>,
    returned_rx: Receiver<Returned>,
    /// Where connections live.
    runtime: Handle,
    metrics: Metrics,
    clock: DefaultClock,
}

impl Notifier {
    /// Nothing is connected before the first message.
    pub(super) fn new(config: &Config, runtime: Handle, metrics: &Metrics) -> Result<Self, SetupError> {
        let settings = &config.incidents;
        let channels = settings.channels.iter().enumerate().map(|(index, channel)| {
            let per_minute = NonZeroU32::new(channel.per_minute).unwrap_or(NonZeroU32::MIN);
            for outcome in ["sent", "retried", "failed"] {
                metrics.incident_notifications(&channel.name, outcome).inc_by(0);
            }
            Ok(Channel {
                settings: channel.clone(),
                first_step: first_step(settings, index),
                way: Arc::new(Way::new(channel, &config.smtp)?),
                limiter: RateLimiter::direct(Quota::per_minute(per_minute)),
                is_busy: false,
                not_before: None,
            })
        });
        let (returned_tx, returned_rx) = channel();
        Ok(Notifier {
            channels: channels.collect::<Result<_, SetupError>>()?,
            told: HashMap::new(),
            returned_tx,
            returned_rx,
            runtime,
            metrics: metrics.clone(),
            clock: DefaultClock::default(),
        })
    }

    /// Takes over what the store knows, beside what this one has told itself.
    pub(super) fn load(&mut self, notified: Vec<Notified>) {
        for known in notified {
            if let Some(index) = self.channels.iter().position(|channel| channel.settings.name == known.channel) {
                let told = self.told.entry((known.incident_id, index)).or_insert(UNTOLD);
                told.through = told.through.max(known.through);
                told.last_at = told.last_at.max(known.last_at);
            }
        }
    }

    pub(super) fn forget(&mut self, ids: &[Uuid]) {
        self.told.retain(|(id, _), _| !ids.contains(id));
    }

    /// Takes what has come back, and returns what is to be noted of it in the store.
    pub(super) fn collect(&mut self, now: i64) -> Vec<IncidentNotificationRow> {
        let mut rows = Vec::new();
        while let Ok(returned) = self.returned_rx.try_recv() {
            rows.extend(self.settle(&returned, now));
        }
        rows
    }

    /// Waits for what is on its way, at most until `deadline`.
    pub(super) fn finish(&mut self, deadline: Instant, now: i64) -> Vec<IncidentNotificationRow> {
        let mut rows = Vec::new();
        while self.channels.iter().any(|channel| channel.is_busy) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(returned) = self.returned_rx.recv_timeout(left) else { break };
            rows.extend(self.settle(&returned, now));
        }
        rows
    }

    fn settle(&mut self, returned: &Returned, now: i64) -> Option<IncidentNotificationRow> {
        let Returned { channel: index, incident_id, sequence, delivery_id, ref outcome } = *returned;
        let channel = &mut self.channels[index];
        channel.is_busy = false;
        let name = &channel.settings.name;
        let told = self.told.entry((incident_id, index)).or_insert(UNTOLD);
        told.attempts += 1;
        let attempts = told.attempts;
        let is_sent = match outcome {
            Outcome::Sent => true,
            Outcome::Later { after, why } if attempts < channel.settings.attempts => {
                let pause = backoff(&channel.settings, attempts).max(after.unwrap_or_default());
                told.not_before = Some(Instant::now() + pause);
                if let Some(after) = after {
                    channel.not_before = Some(Instant::now() + *after);
                }
                self.metrics.incident_notifications(name, "retried").inc();
                tracing::debug!(channel = name, %incident_id, attempts, ?pause, why, "a notification is sent again");
                return None;
            }
            Outcome::Later { why, .. } | Outcome::Never { why } => {
                tracing::error!(channel = name, %incident_id, attempts, why, "a notification is given up");
                false
            }
        };
        self.metrics.incident_notifications(name, if is_sent { "sent" } else { "failed" }).inc();
        *told = Told { through: told.through.max(sequence), last_at: now, attempts: 0, not_before: None };
        let outcome = if is_sent { 1 } else { 2 };
        let channel = name.clone();
        Some(IncidentNotificationRow { incident_id, channel, sequence, delivery_id, sent_at: now, attempts, outcome })
    }

    /// Sends the next message of every channel that has one and may send it.
    pub(super) fn send<'a>(&mut self, incidents: impl Iterator<Item = &'a IncidentRow> + Clone, now: i64) {
        let present = Instant::now();
        for index in 0..self.channels.len() {
            let channel = &self.channels[index];
            if channel.is_busy || channel.not_before.is_some_and(|until| present < until) {
                continue;
            }
            let due = incidents.clone().filter_map(|row| Some((row, self.news(index, row, (present, now))?)));
            let Some((row, first)) = due.min_by_key(|(row, first)| row.history[*first].0) else { continue };
            if let Err(until) = channel.limiter.check() {
                self.channels[index].not_before = Some(present + until.wait_time_from(self.clock.now()));
                continue;
            }
            self.start(index, row, first, now);
        }
    }

    /// The first entry of an incident's history that a channel is to be told now.
    fn news(&self, index: usize, row: &IncidentRow, (present, now): (Instant, i64)) -> Option<usize> {
        let channel = &self.channels[index];
        let first_step = channel.first_step?;
        if row.severity() < channel.settings.from || row.step < first_step {
            return None;
        }
        let told = self.told.get(&(row.incident_id, index)).copied().unwrap_or(UNTOLD);
        let cooled = told.last_at + channel.settings.cooldown.as_millis() as i64;
        if now < cooled || told.not_before.is_some_and(|until| present < until) {
            return None;
        }
        // From the entry on that brought it to the channel's step, and nothing of yesterday.
        let concerns = |(at, _, _, step, _, _): &&(i64, String, String, u8, String, String)| {
            *step >= first_step && *at >= now - MOST_AGE
        };
        let skipped = told.through as usize;
        row.history.iter().enumerate().skip(skipped).find(|(_, entry)| concerns(entry)).map(|(index, _)| index)
    }

    fn start(&mut self, index: usize, row: &IncidentRow, first: usize, now: i64) {
        let channel = &mut self.channels[index];
        channel.is_busy = true;
        let (incident_id, sequence) = (row.incident_id, row.history.len() as u32);
        let changes: Vec<IncidentChange> =
            row.history[first..].iter().filter_map(|entry| entry.1.parse().ok()).collect();
        let message = Message::new(row, changes, &channel.settings.name, sequence);
        let (way, returned_tx, delivery_id) = (Arc::clone(&channel.way), self.returned_tx.clone(), message.delivery_id);
        self.runtime.spawn(async move {
            let outcome = way.send(&message, now).await;
            // Nobody waits any more when the process ends.
            drop(returned_tx.send(Returned { channel: index, incident_id, sequence, delivery_id, outcome }));
        });
    }
}

const UNTOLD: Told = Told { through: 0, last_at: 0, attempts: 0, not_before: None };

/// The first step at which a channel is named.
fn first_step(settings: &IncidentSettings, channel: usize) -> Option<u8> {
    let steps = std::iter::once(&settings.notify).chain(settings.escalation.iter().map(|step| &step.notify));
    steps.enumerate().find(|(_, named)| named.contains(&channel)).map(|(step, _)| step as u8)
}

/// The pause before the attempt behind `attempt`, which counts from 1: doubled each time, and varied by half.
fn backoff(settings: &ChannelSettings, attempt: u32) -> Duration {
    let full = settings.retry_backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20));
    let share = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
    full.min(settings.retry_backoff_max).mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::sighting::tests::{NOW, event, sightings};
    use super::super::state::Incident;
    use super::*;

    const MINUTE: i64 = 60_000;

    fn notifier(runtime: &Handle) -> (Config, Notifier) {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "0123456789abcdef").expect("written");
        // Nothing listens there: what is sent comes back at once.
        let channel = |name: &str, rest: &str| {
            format!(
                "[[incidents.channel]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\n\
                 secret = {{ file = {secret:?} }}\n{rest}"
            )
        };
        let text = format!(
            "incidents.notify = [\"first\"]\n{}{}{}[[incidents.escalation]]\nafter = \"30m\"\nnotify = [\"second\"]\n",
            channel("first", ""),
            channel("second", ""),
            channel("unnamed", "")
        );
        let config = Config::from_toml(&text).expect("settings");
        let notifier = Notifier::new(&config, runtime.clone(), &Metrics::new()).expect("clients");
        (config, notifier)
    }

    fn returned(channel: usize, row: &IncidentRow, outcome: Outcome) -> Returned {
        let (incident_id, sequence) = (row.incident_id, row.history.len() as u32);
        Returned { channel, incident_id, sequence, delivery_id: Uuid::nil(), outcome }
    }

    #[tokio::test]
    async fn each_channel_is_told_what_it_does_not_know() {
        let (config, mut notifier) = notifier(&Handle::current());
        let settings = &config.incidents;
        let first = sightings("").of(&event(1, NOW, &[]), NOW).expect("it counts");
        let mut incident = Incident::open(&first, Uuid::from_u128(1), settings, NOW);
        let news = |notifier: &Notifier, incident: &Incident, at: i64| {
            [0, 1, 2].map(|index| notifier.news(index, &incident.row, (Instant::now(), at)))
        };
        assert_eq!(
            news(&notifier, &incident, NOW),
            [Some(0), None, None],
            "the second is for later, the third for nobody"
        );
        let row = notifier.settle(&returned(0, &incident.row, Outcome::Sent), NOW).expect("to be noted");
        assert_eq!((row.sequence, row.outcome), (1, 1));
        incident.pass_time(settings, NOW + 30 * MINUTE);
        assert_eq!(news(&notifier, &incident, NOW + 30 * MINUTE), [Some(1), Some(1), None], "from the step on");
        notifier.settle(&returned(0, &incident.row, Outcome::Sent), NOW + 58 * MINUTE);
        incident.pass_time(settings, NOW + 60 * MINUTE);
        assert_eq!(news(&notifier, &incident, NOW + 60 * MINUTE)[0], None, "it cools down");
        assert_eq!(news(&notifier, &incident, NOW + 63 * MINUTE)[0], Some(2), "and then hears all");
        assert_eq!(news(&notifier, &incident, NOW + 2 * MOST_AGE), [None; 3], "nobody is told of yesterday");
    }

    #[tokio::test]
    async fn what_does_not_arrive_is_tried_again_and_given_up() {
        let (config, mut notifier) = notifier(&Handle::current());
        let first = sightings("").of(&event(1, NOW, &[]), NOW).expect("it counts");
        let incident = Incident::open(&first, Uuid::from_u128(1), &config.incidents, NOW);
        let later = || Outcome::Later { after: None, why: "503".to_owned() };
        for _ in 1..8 {
            assert_eq!(notifier.settle(&returned(0, &incident.row, later()), NOW), None);
            assert_eq!(notifier.news(0, &incident.row, (Instant::now(), NOW)), None, "not at once");
        }
        let row = notifier.settle(&returned(0, &incident.row, later()), NOW).expect("given up");
        assert_eq!((row.attempts, row.outcome), (8, 2));
        let never = Outcome::Never { why: "404".to_owned() };
        assert_eq!(notifier.settle(&returned(1, &incident.row, never), NOW).expect("given up").attempts, 1);
    }

    #[tokio::test]
    async fn one_that_was_told_before_a_restart_is_not_told_again() {
        let (config, mut notifier) = notifier(&Handle::current());
        let first = sightings("").of(&event(1, NOW, &[]), NOW).expect("it counts");
        let incident = Incident::open(&first, Uuid::from_u128(1), &config.incidents, NOW);
        let known = Notified { incident_id: incident.id(), channel: "first".to_owned(), through: 1, last_at: NOW };
        notifier.load(vec![known, Notified { channel: "gone".to_owned(), ..notified_nothing() }]);
        assert_eq!(notifier.news(0, &incident.row, (Instant::now(), NOW + 60 * MINUTE)), None);
    }

    fn notified_nothing() -> Notified {
        Notified { incident_id: Uuid::nil(), channel: String::new(), through: 0, last_at: 0 }
    }
}
