//! The desk: one function for each thing that a reviewer can do.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use uuid::Uuid;

use crate::config::Config;
use crate::record::{Feedback, FeedbackFault, QueueEvent, new_id, rfc3339};
use crate::stream::{Headers, Outbox, OutboxError};
use crate::volumes::{Claimed, StoreError, VolumeStore};

use super::queues::{KnownQueues, QueuesError};
use super::request::{
    BulkAnswer, BulkItem, ClaimAnswer, FeedbackReceipt, FeedbackSubmission, MOST_SUBMISSIONS, QueueNames, ReviewPage,
    ReviewQuery,
};

const FEEDBACK_TYPE: &str = "dev.triaged.feedback.v1";

/// Why a reviewer does not get what they ask for.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    Fault(#[from] FeedbackFault),
    #[error("no event has the id {0}")]
    UnknownEvent(Uuid),
    #[error("no queue is named {0:?}")]
    UnknownQueue(String),
    #[error("{by} is looking at it until {until}")]
    Taken { by: String, until: String },
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    #[error("the feedback could not be written")]
    Write(#[from] OutboxError),
}

impl DeskError {
    /// The HTTP status that says the same.
    pub fn status(&self) -> u16 {
        match self {
            DeskError::BadRequest(_) => 400,
            DeskError::UnknownEvent(_) => 404,
            DeskError::Taken { .. } => 409,
            DeskError::Fault(_) | DeskError::UnknownQueue(_) => 422,
            DeskError::Write(error) if !error.is_retriable() => 500,
            DeskError::Store(_) | DeskError::Write(_) => 503,
        }
    }

    /// A name out of a small fixed set, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            DeskError::BadRequest(_) => "invalid_request",
            DeskError::Fault(_) => "invalid_feedback",
            DeskError::UnknownEvent(_) => "unknown_event",
            DeskError::UnknownQueue(_) => "unknown_queue",
            DeskError::Taken { .. } => "taken",
            DeskError::Store(_) => "store_unavailable",
            DeskError::Write(_) => "kafka_unavailable",
        }
    }
}

/// Why there is no desk.
#[derive(Debug, thiserror::Error)]
pub enum DeskSetupError {
    #[error(transparent)]
    Queues(#[from] QueuesError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Serves reviewers. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Desk {
    store: VolumeStore,
    outbox: Arc<Outbox>,
    queues: Arc<KnownQueues>,
    topic: String,
    unknown_queues: bool,
    claim_lease: Duration,
}

impl Desk {
    /// Reads the queues from the configuration, its rules and models. Nothing is connected before the first feedback.
    pub fn open(config: &Config, store: VolumeStore) -> Result<Self, DeskSetupError> {
        Desk::with_queues(config, store, Arc::new(KnownQueues::load(config)?))
    }

    /// The same, with queues that somebody else keeps up to date.
    pub fn with_queues(config: &Config, store: VolumeStore, queues: Arc<KnownQueues>) -> Result<Self, DeskSetupError> {
        let outbox = Outbox::new(&config.kafka, &config.stream, config.feedback.send_deadline)?;
        Ok(Desk::new(config, store, Arc::new(outbox), queues))
    }

    pub fn new(config: &Config, store: VolumeStore, outbox: Arc<Outbox>, queues: Arc<KnownQueues>) -> Self {
        let settings = &config.feedback;
        Desk {
            store,
            outbox,
            queues,
            topic: settings.topic.clone(),
            unknown_queues: settings.unknown_queues,
            claim_lease: settings.claim_lease,
        }
    }

    /// Events that nobody has judged and nobody else has claimed, the least confident first.
    pub async fn reviews(&self, query: &ReviewQuery, reviewer: &str) -> Result<ReviewPage, DeskError> {
        let (filter, limit, after) = query.resolve(reviewer).map_err(DeskError::BadRequest)?;
        let (events, next) = self.store.reviews(&filter, limit, after).await?;
        Ok(ReviewPage { events, next_cursor: next.map(|cursor| cursor.to_string()) })
    }

    /// Takes an event, so that nobody else is shown it until the lease is over.
    pub async fn claim(&self, event_id: Uuid, reviewer: &str) -> Result<ClaimAnswer, DeskError> {
        self.event(event_id).await?;
        match self.store.claim(event_id, reviewer, self.claim_lease).await? {
            Claimed::Won { until } => Ok(ClaimAnswer { event_id, until: rfc3339(until) }),
            Claimed::Taken { by, until } => Err(DeskError::Taken { by, until: rfc3339(until) }),
        }
    }

    /// Gives an event back.
    pub async fn release(&self, event_id: Uuid, reviewer: &str) -> Result<(), DeskError> {
        Ok(self.store.release(event_id, reviewer).await?)
    }

    /// Writes one person's feedback; it is in Kafka when this returns, and in the store soon after.
    pub async fn submit(&self, submission: &FeedbackSubmission, reviewer: &str) -> Result<FeedbackReceipt, DeskError> {
        submission.check().map_err(DeskError::BadRequest)?;
        if let Some(queue) = &submission.corrected_queue
            && !self.unknown_queues
            && !self.queues.contains(queue, &self.store).await?
        {
            return Err(DeskError::UnknownQueue(queue.clone()));
        }
        let event = self.event(submission.event_id).await?;
        let feedback_id = submission.feedback_id.unwrap_or_else(new_id);
        let feedback = feedback_of(submission, &event, feedback_id, reviewer);
        feedback.check()?;
        let correct = feedback.is_correct().unwrap_or(false);
        let queue = feedback.corrected_queue.as_deref().or(correct.then_some(&*event.queue)).map(str::to_owned);
        let value = serde_json::to_vec(&feedback).expect("plain data and memory cannot fail");
        let headers = Headers::with_capacity(5)
            .add("content-type", "application/json")
            .add("ce_specversion", "1.0")
            .add("ce_type", FEEDBACK_TYPE)
            .add("ce_source", "triaged/feedback")
            .add("ce_id", feedback_id.to_string());
        let key = submission.event_id.to_string();
        let receipt = self.outbox.send(&self.topic, key.as_bytes(), headers, &value).await?;
        tracing::debug!(partition = receipt.partition, offset = receipt.offset, correct, "feedback written");
        Ok(FeedbackReceipt { feedback_id, event_id: submission.event_id, correct, queue })
    }

    /// Writes several, one after the other. When Kafka or the store is away the rest is not tried.
    pub async fn submit_all(
        &self,
        submissions: &[FeedbackSubmission],
        reviewer: &str,
    ) -> Result<BulkAnswer, DeskError> {
        if submissions.is_empty() || submissions.len() > MOST_SUBMISSIONS {
            return Err(DeskError::BadRequest(format!("feedback must have 1 to {MOST_SUBMISSIONS} entries")));
        }
        let mut answer = BulkAnswer { accepted: 0, results: Vec::with_capacity(submissions.len()) };
        let mut away = false;
        for submission in submissions {
            let event_id = submission.event_id;
            if away {
                let error = Some("not tried: see the error before".to_owned());
                answer.results.push(BulkItem { event_id, receipt: None, error });
                continue;
            }
            let item = match self.submit(submission, reviewer).await {
                Ok(receipt) => {
                    answer.accepted += 1;
                    BulkItem { event_id, receipt: Some(receipt), error: None }
                }
                Err(error) => {
                    away = error.status() >= 500;
                    BulkItem { event_id, receipt: None, error: Some(error.to_string()) }
                }
            };
            answer.results.push(item);
        }
        Ok(answer)
    }

    /// The queues that a correction may name.
    pub async fn queues(&self) -> Result<QueueNames, DeskError> {
        Ok(QueueNames { queues: self.queues.list(&self.store).await? })
    }

    async fn event(&self, event_id: Uuid) -> Result<QueueEvent<'static>, DeskError> {
        self.store.event(event_id).await?.map(QueueEvent::from).ok_or(DeskError::UnknownEvent(event_id))
    }
}

/// The message: what was said, and what was known of the event then, so that it can be read without it.
fn feedback_of<'a>(
    submission: &'a FeedbackSubmission,
    event: &'a QueueEvent<'_>,
    feedback_id: Uuid,
    reviewer: &'a str,
) -> Feedback<'a> {
    let borrowed = |text: &'a Option<String>| text.as_deref().map(Into::into);
    Feedback {
        feedback_id: Some(feedback_id),
        event_id: submission.event_id,
        source: Some(event.source.clone()),
        kind: Some(event.kind),
        given_at: Some(rfc3339(Utc::now().timestamp_millis()).into()),
        given_by: Some(reviewer.into()),
        predicted_queue: Some((&*event.queue).into()),
        corrected_queue: borrowed(&submission.corrected_queue),
        category: borrowed(&submission.category),
        correct: submission.correct.or_else(|| Some(*submission.corrected_queue.as_ref()? == event.queue)),
        notes: borrowed(&submission.notes),
        keywords: submission.keywords.iter().map(|word| word.as_str().into()).collect(),
        difficulty: submission.difficulty,
        text: event.text.as_deref().map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SourcePosition;
    use crate::stream::EmbeddedBroker;
    use crate::volumes::{EventRow, FeedbackRow, MemoryStore};

    const EVENT: &str = r#"{"event_id":"00000000-0000-5000-8000-000000000007",
        "source":{"topic":"tickets","partition":1,"offset":7},"kind":"ticket","occurred_at":"2026-01-01T00:00:00.000Z",
        "decided_at":"2026-01-01T00:00:00.500Z","queue":"CTI","priority":"low","confidence":0.4,
        "routing":"manual_triage","decided_by":"fast","text":"indicators of a campaign"}"#;

    async fn desk() -> (EmbeddedBroker, Desk, Uuid) {
        let broker = EmbeddedBroker::start(&["feedback"], 1).expect("a broker");
        let config = Config::from_toml(&format!("[kafka]\nbrokers = \"{}\"", broker.bootstrap())).expect("settings");
        let store = VolumeStore::Memory(MemoryStore::new(1_000).into());
        let event: QueueEvent<'_> = serde_json::from_str(EVENT).expect("an event");
        store.insert_events(&[EventRow::of(&event).expect("a row")]).await.expect("memory");
        let desk = Desk::open(&config, store).expect("rules, models and a producer");
        (broker, desk, event.event_id)
    }

    fn correction(event_id: Uuid, queue: &str) -> FeedbackSubmission {
        FeedbackSubmission { event_id, corrected_queue: Some(queue.to_owned()), ..FeedbackSubmission::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_correction_is_checked_and_written() {
        let (_broker, desk, id) = desk().await;
        let receipt = desk.submit(&correction(id, "DFIR::phishing"), "ada").await.expect("written");
        assert_eq!((receipt.correct, receipt.queue.as_deref()), (false, Some("DFIR::phishing")));
        let confirmed = FeedbackSubmission { event_id: id, correct: Some(true), ..FeedbackSubmission::default() };
        let receipt = desk.submit(&confirmed, "ada").await.expect("written");
        assert_eq!((receipt.correct, receipt.queue.as_deref()), (true, Some("CTI")));
        let status = async |submission: FeedbackSubmission| {
            desk.submit(&submission, "ada").await.map_or_else(|error| error.status(), |_| 200)
        };
        assert_eq!(status(correction(id, "DFIR::fishing")).await, 422, "a slip of the pen");
        assert_eq!(status(correction(Uuid::nil(), "CTI")).await, 404);
        assert_eq!(status(FeedbackSubmission { event_id: id, ..Default::default() }).await, 422);
        let contradiction = FeedbackSubmission { correct: Some(true), ..correction(id, "Trash") };
        assert_eq!(status(contradiction).await, 422);
        let answer = desk.submit_all(&[confirmed, correction(Uuid::nil(), "CTI")], "ada").await.expect("an answer");
        assert_eq!((answer.accepted, answer.results[1].receipt.is_none()), (1, true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_claimed_review_is_hidden_from_others_until_it_is_released() {
        let (_broker, desk, id) = desk().await;
        let query = ReviewQuery { from: Some("2025-01-01T00:00:00Z".into()), ..ReviewQuery::default() };
        let seen = async |by: &str| desk.reviews(&query, by).await.expect("a page").events.len();
        assert_eq!(seen("bob").await, 1);
        desk.claim(id, "ada").await.expect("hers");
        desk.claim(id, "ada").await.expect("still hers");
        assert_eq!((seen("ada").await, seen("bob").await), (1, 0));
        assert_eq!(desk.claim(id, "bob").await.expect_err("taken").status(), 409);
        desk.release(id, "bob").await.expect("nothing of his");
        assert_eq!(seen("bob").await, 0);
        desk.release(id, "ada").await.expect("released");
        desk.claim(id, "bob").await.expect("his");
    }

    #[tokio::test]
    async fn what_was_judged_is_no_longer_to_be_reviewed() {
        let (_broker, desk, id) = desk().await;
        let text = format!("{{\"event_id\":\"{id}\",\"correct\":true}}");
        let feedback: Feedback<'_> = serde_json::from_str(&text).expect("feedback");
        let place = SourcePosition { topic: "feedback".into(), partition: 0, offset: 0 };
        let row = FeedbackRow::of(&feedback, &place, 1).expect("a row");
        desk.store.insert_feedback(&[row]).await.expect("memory");
        let query = ReviewQuery { from: Some("2025-01-01T00:00:00Z".into()), ..ReviewQuery::default() };
        assert_eq!(desk.reviews(&query, "ada").await.expect("a page").events, []);
    }
}
