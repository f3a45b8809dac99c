//! The escalate `Stage`: a batch of escalations in, one final event for each out.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use prometheus::Histogram;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::config::{Config, IncludeText};
use crate::metrics::{self, Metrics, OutcomeCounts, StageName};
use crate::record::{DecidedBy, Escalation, Kind, LogLine, Record, Routing, Ticket, rfc3339, write_event};
use crate::reload::Live;
use crate::route::{self, EventTopics, Policy};
use crate::stream::{Batch, Outcome, Outputs, Stage, StageError, Topics};

use super::decide::{Opinion, final_event, is_final};
use super::llm::{LlmOutcome, Question};
use super::tiers::Tiers;

/// One configuration of the role, exchanged as a whole.
#[derive(Debug)]
pub struct Generation {
    /// What events name it by.
    version: Arc<str>,
    tiers: Tiers,
    policy: Policy,
    topics: EventTopics,
    include_text: IncludeText,
}

impl Generation {
    /// Adds the topics that events go to to the role's.
    pub fn new(config: &Config, version: Arc<str>, tiers: Tiers, topics: &Topics) -> Self {
        Generation {
            version,
            tiers,
            policy: Policy::new(&config.decide),
            topics: EventTopics::new(&config.output, topics),
            include_text: config.output.include_text,
        }
    }

    pub fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    fn keeps_text(&self, routing: Routing) -> bool {
        match self.include_text {
            IncludeText::Never => false,
            IncludeText::Unsure => routing != Routing::AutoRoute,
            IncludeText::Always => true,
        }
    }
}

/// One worker of the escalate role.
#[derive(Debug)]
pub struct EscalateStage {
    live: Live<Generation>,
    /// Where the connections to the LLM live; the engine's workers are plain threads.
    runtime: Handle,
    metrics: Metrics,
    encoder_duration: Histogram,
    llm_duration: Histogram,
}

impl EscalateStage {
    pub fn new(live: Live<Generation>, runtime: Handle, metrics: &Metrics) -> Self {
        EscalateStage {
            live,
            runtime,
            metrics: metrics.clone(),
            encoder_duration: metrics.stage(StageName::Encoder),
            llm_duration: metrics.stage(StageName::Llm),
        }
    }

    /// Asks the encoder about all records, kind by kind.
    fn ask_encoder(&self, tiers: &Tiers, climbing: &mut [Climbing<'_>]) {
        let started = Instant::now();
        let mut asked = false;
        for kind in Kind::ALL {
            let Some(model) = tiers.model(kind) else { continue };
            let places: Vec<usize> =
                (0..climbing.len()).filter(|&at| climbing[at].escalation.event.kind == kind).collect();
            if places.is_empty() {
                continue;
            }
            asked = true;
            let records: Vec<Record<'_>> = places.iter().map(|&at| record(&climbing[at].escalation)).collect();
            let predictions = match model.predict(&records) {
                Ok(predictions) => predictions,
                Err(error) => {
                    // The next tier, or a person, decides them.
                    tracing::error!(kind = kind.as_str(), error = %error, "the encoder failed");
                    continue;
                }
            };
            drop(records);
            for (at, prediction) in places.into_iter().zip(predictions) {
                climbing[at].opinions.push(Opinion {
                    label: Cow::Owned(model.labels()[prediction.label].to_string()),
                    confidence: rounded(prediction.confidence),
                    decided_by: DecidedBy::Encoder,
                    model: Cow::Owned(model.id().to_owned()),
                    doubted: false,
                });
            }
        }
        if asked {
            self.encoder_duration.observe(started.elapsed().as_secs_f64());
        }
    }

    /// Asks the LLM about what is still open, all at once; the tier itself keeps to its limits and deadlines.
    fn ask_llm(&self, generation: &Arc<Generation>, climbing: &mut [Climbing<'_>]) {
        let tiers = &generation.tiers;
        if tiers.llm.is_none() {
            return;
        }
        let started = Instant::now();
        let answers = self.runtime.block_on(async {
            let mut asked = JoinSet::new();
            for (at, open) in climbing.iter().enumerate().filter(|(_, climbing)| !climbing.is_final(&generation.policy))
            {
                let event = &open.escalation.event;
                let kind = event.kind;
                let (Some(text), true) = (event.text.as_deref(), tiers.llm(kind).is_some()) else { continue };
                let text = text.to_owned();
                let template_key = event.template_id.as_deref().and_then(|id| u64::from_str_radix(id, 16).ok());
                let generation = Arc::clone(generation);
                asked.spawn(async move {
                    let (llm, labels) = generation.tiers.llm(kind)?;
                    // The tier's own deadline is the shorter one.
                    let deadline = tokio::time::Instant::now() + LONGEST_WAIT;
                    let asked = Instant::now();
                    let outcome = llm.ask(Question { text: &text, kind, labels, template_key, deadline }).await;
                    Some((at, outcome, asked.elapsed().as_secs_f64()))
                });
            }
            asked.join_all().await
        });
        if answers.is_empty() {
            return;
        }
        let answer_duration = self.metrics.llm_duration();
        for (at, outcome, took) in answers.into_iter().flatten() {
            if !matches!(&outcome, LlmOutcome::Answer(answer) if answer.cached) {
                answer_duration.observe(took);
            }
            match outcome {
                LlmOutcome::Answer(answer) => {
                    self.metrics.llm_answers(if answer.cached { "cached" } else { "answer" }).inc();
                    self.metrics.llm_tokens("input").inc_by(answer.usage.input);
                    self.metrics.llm_tokens("output").inc_by(answer.usage.output);
                    climbing[at].opinions.push(Opinion {
                        label: Cow::Owned(answer.label.to_string()),
                        confidence: rounded(answer.confidence),
                        decided_by: DecidedBy::Llm,
                        model: Cow::Owned(tiers.llm_model().to_owned()),
                        doubted: answer.suspicion.is_some(),
                    });
                }
                LlmOutcome::NoAnswer(why) => self.metrics.llm_answers(why.as_str()).inc(),
            }
        }
        self.llm_duration.observe(started.elapsed().as_secs_f64());
    }
}

/// Longer than any deadline of the LLM tier.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// A record on its way up.
struct Climbing<'a> {
    index: usize,
    escalation: Escalation<'a>,
    opinions: Vec<Opinion<'static>>,
}

impl Climbing<'_> {
    fn is_final(&self, policy: &Policy) -> bool {
        self.opinions.iter().any(|opinion| is_final(opinion, policy))
    }
}

impl Stage for EscalateStage {
    fn process(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), StageError> {
        let generation = self.live.get();
        let mut outcomes = OutcomeCounts::default();
        let mut climbing = Vec::with_capacity(batch.len());
        for (index, input) in batch.iter().enumerate() {
            match serde_json::from_slice::<Escalation<'_>>(input.value()) {
                Ok(escalation) => climbing.push(Climbing { index, escalation, opinions: Vec::new() }),
                Err(error) => {
                    outputs.dead_letter(input, index, "invalid_escalation", &error);
                    outcomes.count(metrics::Outcome::DeadLetter, "none");
                    outputs.counts.increments.push((self.metrics.dead_letters("invalid_escalation"), 1));
                }
            }
        }
        self.ask_encoder(&generation.tiers, &mut climbing);
        self.ask_llm(&generation, &mut climbing);
        let decided_at = rfc3339(Utc::now().timestamp_millis());
        for Climbing { index, escalation, opinions } in climbing {
            let keep_text = |routing| generation.keeps_text(routing);
            let mut event = final_event(escalation, &opinions, &generation.policy, &decided_at, keep_text);
            event.config = Some(Cow::Borrowed(&generation.version));
            let key = event.ticket_id.as_deref().map(str::as_bytes).or(batch.get(index).key());
            let topic = generation.topics.of(&event.queue);
            let headers = route::headers(&event, false);
            let written = outputs.message(batch, index, topic, key, headers, |value| write_event(value, &event));
            let increments = &mut outputs.counts.increments;
            if written == Outcome::DeadLetter {
                outcomes.count(metrics::Outcome::DeadLetter, "none");
                increments.push((self.metrics.dead_letters("output_too_large"), 1));
                continue;
            }
            // Without the name of a rule, as `DecidedBy::tier` has it.
            let tier = event.decided_by.split(':').next().unwrap_or_default();
            outcomes.count(metrics::Outcome::Event, tier);
            increments.push((self.metrics.routing(event.routing), 1));
            increments.push((self.metrics.queue_events(&event.queue, event.priority), 1));
        }
        outputs.counts.outcomes.merge(&outcomes);
        Ok(())
    }
}

/// The record that an escalation carries, as the fast tiers saw it.
fn record<'a>(escalation: &'a Escalation<'_>) -> Record<'a> {
    let event = &escalation.event;
    let text = Cow::Borrowed(event.text.as_deref().unwrap_or_default());
    let source = event.origin.as_deref().map(Cow::Borrowed);
    let occurred_at =
        DateTime::parse_from_rfc3339(&event.occurred_at).map_or(0, |occurred_at| occurred_at.timestamp_millis());
    match event.kind {
        Kind::Ticket => Record::Ticket(Ticket {
            ticket_id: event.ticket_id.as_deref().map(Cow::Borrowed),
            title_len: escalation.title_len.min(text.len()),
            text,
            email_address: escalation.email_address.as_deref().map(Cow::Borrowed),
            priority: escalation.stated_priority,
            source,
            occurred_at,
        }),
        Kind::Log => {
            let level = escalation.level.as_deref().map(Cow::Borrowed);
            Record::Log(LogLine { text, source, level, occurred_at })
        }
    }
}

/// Four decimals, as the fast tiers have them.
fn rounded(probability: f32) -> f32 {
    (probability * 1e4).round() / 1e4
}
