//! Reviews, claims and feedback in ClickHouse.

use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;

use super::super::feedback::{
    CHOOSING, CONFIDENCE_BINS, Claimed, ConfidenceCount, FeedbackRow, Judgement, JudgementQuery, ReviewCursor,
    ReviewFilter,
};
use super::super::row::LAST_MILLISECOND;
use super::super::stored::StoredEvent;
use super::{ClickHouseStore, StoreError};

/// Rows of feedback or events that one answer may have.
const MOST_ROWS: usize = 1_000_000;
/// How often the other claims are looked at while one of them is still choosing its number.
const LOOK: Duration = Duration::from_millis(20);

impl ClickHouseStore {
    pub(in crate::volumes) async fn insert_feedback(&self, rows: &[FeedbackRow]) -> Result<(), StoreError> {
        let operation = "inserting feedback";
        let insert = self.within(operation, self.client.insert::<FeedbackRow>("feedback")).await?;
        let mut insert = insert.with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout));
        for row in rows {
            insert.write(row).await.map_err(|error| StoreError::new(operation, error))?;
        }
        insert.end().await.map_err(|error| StoreError::new(operation, error))
    }

    pub(in crate::volumes) async fn reviews(
        &self,
        filter: &ReviewFilter,
        limit: usize,
        after: Option<ReviewCursor>,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let mut conditions = vec![
            "occurred_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')",
            "occurred_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')",
            "has({routings:Array(Int8)}, CAST(routing, 'Int8'))",
            "event_id GLOBAL NOT IN (SELECT event_id FROM feedback)",
            "event_id GLOBAL NOT IN (SELECT event_id FROM review_claims FINAL
                 WHERE state < 2 AND expires_at > now64(3) AND reviewer != {reviewer:String})",
        ];
        if filter.queue.is_some() {
            conditions.push("queue = {queue:String}");
        }
        if filter.kind.is_some() {
            conditions.push("CAST(kind, 'Int8') = {kind:Int8}");
        }
        match filter.has_text {
            Some(true) => conditions.push("text != ''"),
            Some(false) => conditions.push("text = ''"),
            None => {}
        }
        if after.is_some() {
            conditions.push("(reinterpretAsUInt32(confidence), toString(event_id)) > ({bits:UInt32}, {id:String})");
        }
        let statement = format!(
            "SELECT ?fields FROM queue_events FINAL WHERE {}
             ORDER BY reinterpretAsUInt32(confidence), toString(event_id) LIMIT {{limit:UInt64}}",
            conditions.join(" AND ")
        );
        let routings: Vec<i8> = filter.routings.iter().map(|routing| *routing as i8 + 1).collect();
        let mut query = self
            .client
            .query(&statement)
            .param("from", in_range(filter.from))
            .param("to", in_range(filter.to))
            .param("routings", routings)
            .param("reviewer", &filter.reviewer)
            .param("limit", limit as u64);
        if let Some(queue) = &filter.queue {
            query = query.param("queue", queue);
        }
        if let Some(kind) = filter.kind {
            query = query.param("kind", kind as i8 + 1);
        }
        if let Some(after) = after {
            query = query.param("bits", after.confidence).param("id", after.event_id.to_string());
        }
        self.rows("reading reviews", query).await
    }

    /// Lamport's bakery algorithm ("A new solution of Dijkstra's concurrent programming problem", 1974), which needs no
    /// more than reads and writes: whoever asks draws a number above all that it sees, waits until nobody is choosing any
    /// more, and has won when nobody has a lower one. Of those that ask at once exactly one wins, and who comes later
    /// draws a higher number.
    pub(in crate::volumes) async fn claim(
        &self,
        event_id: Uuid,
        claim_id: Uuid,
        reviewer: &str,
        lease: Duration,
    ) -> Result<Claimed, StoreError> {
        let mine = Own { event_id, claim_id, reviewer, lease };
        if let Some(held) =
            self.claims(event_id).await?.into_iter().filter(|claim| claim.state == 1).min_by_key(|claim| claim.ticket)
        {
            return Ok(held.answer(reviewer));
        }
        self.write_claim(&mine, 0, CHOOSING_STATE).await?;
        let highest = self.claims(event_id).await?.iter().map(|claim| claim.ticket).max().unwrap_or(0);
        self.write_claim(&mine, highest + 1, CHOSEN_STATE).await?;
        loop {
            let claims = self.claims(event_id).await?;
            let place = |claim: &ActiveClaim| (claim.ticket, claim.claim_id.clone());
            let Some(own) = claims.iter().find(|claim| claim.claim_id == claim_id.to_string()) else {
                // The lease is over before the claim was settled.
                return Ok(Claimed::Taken { by: String::new(), until: 0 });
            };
            let first = claims.iter().filter(|claim| claim.state == 1).min_by_key(|claim| place(claim));
            match first {
                Some(first) if place(first) < place(own) => {
                    let answer = first.answer(reviewer);
                    self.write_claim(&mine, highest + 1, RELEASED_STATE).await?;
                    return Ok(answer);
                }
                _ => {}
            }
            let someone_chooses =
                claims.iter().any(|claim| claim.state == 0 && claim.age_ms < CHOOSING.as_millis() as i64);
            if !someone_chooses {
                return Ok(Claimed::Won { until: own.until });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gives up whatever this reviewer has claimed of the event.
    pub(in crate::volumes) async fn release(&self, event_id: Uuid, reviewer: &str) -> Result<(), StoreError> {
        let query = self
            .client
            .query(
                "INSERT INTO review_claims (event_id, claim_id, reviewer, ticket, state, claimed_at, expires_at)
                 SELECT event_id, claim_id, reviewer, ticket, 2, claimed_at, expires_at FROM review_claims FINAL
                 WHERE event_id = {id:UUID} AND reviewer = {reviewer:String} AND state < 2",
            )
            .param("id", event_id.to_string())
            .param("reviewer", reviewer);
        self.within("releasing a review", query.execute()).await
    }

    async fn claims(&self, event_id: Uuid) -> Result<Vec<ActiveClaim>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT toString(claim_id) AS claim_id, reviewer, ticket, state,
                     dateDiff('millisecond', claimed_at, now64(3)) AS age_ms, toUnixTimestamp64Milli(expires_at) AS until
                 FROM review_claims FINAL
                 WHERE event_id = {id:UUID} AND state < 2 AND expires_at > now64(3)",
            )
            .param("id", event_id.to_string());
        self.rows("reading claims", query).await
    }

    async fn write_claim(&self, own: &Own<'_>, ticket: u32, state: u8) -> Result<(), StoreError> {
        let query = self
            .client
            .query(
                "INSERT INTO review_claims (event_id, claim_id, reviewer, ticket, state, claimed_at, expires_at)
                 SELECT {id:UUID}, {claim:UUID}, {reviewer:String}, {ticket:UInt32}, {state:UInt8},
                     now64(3), now64(3) + toIntervalMillisecond({lease:UInt64})",
            )
            .param("id", own.event_id.to_string())
            .param("claim", own.claim_id.to_string())
            .param("reviewer", own.reviewer)
            .param("ticket", ticket)
            .param("state", state)
            .param("lease", own.lease.as_millis() as u64);
        self.within("claiming a review", query.execute()).await
    }

    /// The newest feedback of each event, joined here with the events: a join in the server would have to move the same
    /// rows between the shards.
    pub(in crate::volumes) async fn judgements(&self, query: &JudgementQuery) -> Result<Vec<Judgement>, StoreError> {
        let limit = query.limit.min(MOST_ROWS) as u64;
        let given = "given_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
                     AND given_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";
        let newest =
            "SELECT ?fields FROM (SELECT * FROM feedback FINAL ORDER BY given_at DESC, toString(feedback_id) DESC
                      LIMIT 1 BY event_id)";
        let statement =
            format!("{newest} WHERE {given} ORDER BY given_at DESC, toString(event_id) LIMIT {{limit:UInt64}}");
        let (from, to) = (in_range(query.from), in_range(query.to));
        let find = self.client.query(&statement).param("from", from).param("to", to).param("limit", limit);
        let mut feedback = self.rows::<FeedbackRow>("reading feedback", find).await?;
        let statement = format!(
            "SELECT ?fields FROM queue_events FINAL WHERE event_id GLOBAL IN (SELECT event_id FROM feedback WHERE {given})"
        );
        let find = self.client.query(&statement).param("from", from).param("to", to);
        let events = self.rows::<StoredEvent>("reading events with feedback", find).await?;
        let mut events: std::collections::HashMap<Uuid, StoredEvent> =
            events.into_iter().map(|event| (event.event_id, event)).collect();
        if !query.with_text {
            feedback.iter_mut().for_each(|feedback| feedback.text = String::new());
            events.values_mut().for_each(|event| event.text = String::new());
        }
        let join = |feedback: FeedbackRow| Judgement { event: events.remove(&feedback.event_id), feedback };
        Ok(feedback.into_iter().map(join).collect())
    }

    pub(in crate::volumes) async fn confidence(&self, from: i64, to: i64) -> Result<Vec<ConfidenceCount>, StoreError> {
        let statement = format!(
            "SELECT toString(queue_events.queue) AS queue,
                 if(startsWith(decided_by, 'rule:'), 'rule', toString(decided_by)) AS tier,
                 CAST(queue_events.routing, 'Int8') AS routing,
                 toUInt8(least(floor(toFloat64(confidence) * {CONFIDENCE_BINS}), {CONFIDENCE_BINS} - 1)) AS bin,
                 count() AS events, sum(toFloat64(confidence)) AS sum
             FROM queue_events FINAL
             WHERE occurred_at >= fromUnixTimestamp64Milli({{from:Int64}}, 'UTC')
               AND occurred_at < fromUnixTimestamp64Milli({{to:Int64}}, 'UTC')
             GROUP BY queue, tier, routing, bin ORDER BY queue, tier, routing, bin"
        );
        let query = self.client.query(&statement).param("from", in_range(from)).param("to", in_range(to));
        self.rows("reading confidences", query).await
    }

    pub(in crate::volumes) async fn queues(&self) -> Result<Vec<String>, StoreError> {
        let query = self.client.query("SELECT DISTINCT toString(queue) FROM volumes ORDER BY 1");
        self.rows("reading queues", query).await
    }

    pub(in crate::volumes) async fn last_report(&self) -> Result<Option<u32>, StoreError> {
        let query = self.client.query("SELECT toUnixTimestamp(max(slot)) FROM report_deliveries");
        let newest = self.rows::<u32>("reading report_deliveries", query).await?;
        // `max` of nothing is zero.
        Ok(newest.into_iter().next().filter(|slot| *slot > 0))
    }

    pub(in crate::volumes) async fn report_sent(&self, slot: u32) -> Result<(), StoreError> {
        let statement =
            "INSERT INTO report_deliveries (slot, sent_at) SELECT toDateTime({slot:UInt32}, 'UTC'), now64(3)";
        let query = self.client.query(statement).param("slot", slot);
        self.within("writing report_deliveries", query.execute()).await
    }
}

/// Milliseconds that the tables can hold; the end of all time is no longer included.
fn in_range(milliseconds: i64) -> i64 {
    milliseconds.clamp(0, LAST_MILLISECOND + 1)
}

const CHOOSING_STATE: u8 = 0;
const CHOSEN_STATE: u8 = 1;
const RELEASED_STATE: u8 = 2;

/// The claim that is being made.
struct Own<'a> {
    event_id: Uuid,
    claim_id: Uuid,
    reviewer: &'a str,
    lease: Duration,
}

/// A claim that is neither released nor over.
#[derive(Debug, Clone, Row, Deserialize)]
struct ActiveClaim {
    claim_id: String,
    reviewer: String,
    ticket: u32,
    state: u8,
    age_ms: i64,
    until: i64,
}

impl ActiveClaim {
    /// What this claim, which stands, means for somebody who asks.
    fn answer(&self, asker: &str) -> Claimed {
        match self.reviewer == asker {
            true => Claimed::Won { until: self.until },
            false => Claimed::Taken { by: self.reviewer.clone(), until: self.until },
        }
    }
}
