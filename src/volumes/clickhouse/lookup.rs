//! What is read for those who look: events, counts by queue and decision, forecasts as a whole, the audit log.

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;

use crate::volumes::audit::AuditEntry;
use crate::volumes::question::{DecisionCount, EventQuery, QueueCount};
use crate::volumes::row::ForecastTotalRow;
use crate::volumes::stored::StoredEvent;

use super::{ClickHouseStore, StoreError, second};

impl ClickHouseStore {
    pub(in crate::volumes) async fn event(&self, id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM queue_events WHERE event_id = toUUID({id:String})
                 ORDER BY decided_at DESC LIMIT 1",
            )
            .param("id", id.to_string());
        Ok(self.rows::<StoredEvent>("reading an event", query).await?.into_iter().next())
    }

    /// FINAL: of a record that was decided anew only the newest decision is shown, as it will be kept.
    pub(in crate::volumes) async fn events(&self, asked: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        let mut statement = "SELECT ?fields FROM queue_events FINAL
             WHERE occurred_at >= fromUnixTimestamp64Milli({from:Int64}) AND occurred_at < fromUnixTimestamp64Milli({to:Int64})"
            .to_owned();
        if asked.queue.is_some() {
            statement += " AND queue = {queue:String}";
        }
        if asked.routing.is_some() {
            statement += " AND routing = {routing:String}";
        }
        // As text, because ClickHouse has an order of its own for UUIDs.
        if asked.after.is_some() {
            statement += " AND (occurred_at, toString(event_id)) < (fromUnixTimestamp64Milli({at:Int64}), {id:String})";
        }
        statement += " ORDER BY occurred_at DESC, toString(event_id) DESC LIMIT {limit:UInt64}";
        let mut query = self
            .client
            .query(&statement)
            .param("from", asked.from)
            .param("to", asked.to)
            .param("limit", asked.limit as u64);
        if let Some(queue) = &asked.queue {
            query = query.param("queue", queue);
        }
        if let Some(routing) = asked.routing {
            query = query.param("routing", routing.as_str());
        }
        if let Some(cursor) = asked.after {
            query = query.param("at", cursor.occurred_at).param("id", cursor.event_id.to_string());
        }
        self.rows("reading events", query).await
    }

    pub(in crate::volumes) async fn queue_counts(&self, from: i64, to: i64) -> Result<Vec<QueueCount>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            queue: String,
            kind: i8,
            priority: i8,
            events: u64,
            newest: i64,
        }
        // Offsets are unique within a topic's partition only, so sets are united within each and their sizes are added.
        let query = self
            .client
            .query(
                "SELECT queue, kind, priority, sum(size) AS events, max(minute_of_newest) AS newest FROM (
                     SELECT toString(volumes.queue) AS queue, kind, priority, groupBitmapMerge(offsets) AS size,
                         toInt64(toUnixTimestamp(max(minute))) AS minute_of_newest
                     FROM volumes
                     WHERE minute >= toDateTime({from:UInt32}, 'UTC') AND minute < toDateTime({to:UInt32}, 'UTC')
                     GROUP BY queue, kind, priority, source_topic, source_partition)
                 GROUP BY queue, kind, priority",
            )
            .param("from", second(from))
            .param("to", second(to));
        let found = self.rows::<Found>("reading volumes", query).await?;
        let count =
            |Found { queue, kind, priority, events, newest }| QueueCount::new(queue, kind, priority, events, newest);
        Ok(found.into_iter().map(count).collect())
    }

    pub(in crate::volumes) async fn decision_counts(
        &self,
        from: i64,
        to: i64,
    ) -> Result<Vec<DecisionCount>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            routing: i8,
            tier: String,
            events: u64,
        }
        let query = self
            .client
            .query(
                "SELECT routing, if(startsWith(decided_by, 'rule:'), 'rule', toString(decided_by)) AS tier,
                     count() AS events
                 FROM queue_events FINAL
                 WHERE occurred_at >= fromUnixTimestamp64Milli({from:Int64})
                   AND occurred_at < fromUnixTimestamp64Milli({to:Int64})
                 GROUP BY routing, tier",
            )
            .param("from", from)
            .param("to", to);
        let found = self.rows::<Found>("counting events", query).await?;
        Ok(found.into_iter().map(|found| DecisionCount::new(found.routing, &found.tier, found.events)).collect())
    }

    pub(in crate::volumes) async fn forecast_totals(
        &self,
        window: &str,
        starts_at: u32,
    ) -> Result<Vec<ForecastTotalRow>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM forecast_totals FINAL
                 WHERE window = {window:String} AND starts_at = toDateTime({start:UInt32}, 'UTC')
                 ORDER BY queue",
            )
            .param("window", window)
            .param("start", starts_at);
        self.rows("reading forecasts", query).await
    }

    pub(in crate::volumes) async fn audit_log(
        &self,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM audit_log FINAL
                 WHERE at >= fromUnixTimestamp64Milli({from:Int64}) AND at < fromUnixTimestamp64Milli({to:Int64})
                 ORDER BY at DESC, entry_id LIMIT {limit:UInt64}",
            )
            .param("from", from)
            .param("to", to)
            .param("limit", limit as u64);
        self.rows("reading the audit log", query).await
    }
}
