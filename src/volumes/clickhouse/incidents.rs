//! Incidents in ClickHouse.

use uuid::Uuid;

use super::super::incidents::{
    IncidentEventRow, IncidentMembers, IncidentQuery, IncidentRow, IncidentUpdateRow, MOST_TOKENS, Notified,
};
use super::super::row::LAST_MILLISECOND;
use super::{ClickHouseStore, StoreError};

/// Ids come as texts, because that is how parameters hold them.
const THESE: &str = "incident_id IN (SELECT toUUID(arrayJoin({ids:Array(String)})))";

impl ClickHouseStore {
    /// FINAL: a place that was written counts, whatever came again after it.
    pub(in crate::volumes) async fn events_to_place(
        &self,
        occurred_from: i64,
        limit: usize,
    ) -> Result<Vec<IncidentEventRow>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM incident_events FINAL
                 WHERE occurred_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND version = 0
                 ORDER BY occurred_at, source_topic, source_partition, source_offset LIMIT {limit:UInt64}",
            )
            .param("from", in_range(occurred_from))
            .param("limit", limit as u64);
        self.rows("reading incident_events", query).await
    }

    pub(in crate::volumes) async fn incident_members(&self, ids: &[Uuid]) -> Result<Vec<IncidentMembers>, StoreError> {
        let statement = format!(
            "SELECT incident_id, count() AS events, toUnixTimestamp64Milli(min(occurred_at)) AS first_seen,
                 toUnixTimestamp64Milli(max(occurred_at)) AS last_seen, max(CAST(priority, 'Int8')) AS severity,
                 arraySort(groupUniqArrayArray({MOST_TOKENS})(tokens)) AS all_tokens
             FROM incident_events FINAL WHERE {THESE} GROUP BY incident_id ORDER BY toString(incident_id)"
        );
        self.rows("reading incident_events", self.client.query(&statement).param("ids", texts(ids))).await
    }

    pub(in crate::volumes) async fn incident_of_event(&self, event_id: Uuid) -> Result<Option<Uuid>, StoreError> {
        #[derive(clickhouse::Row, serde::Deserialize)]
        struct Found {
            #[serde(with = "clickhouse::serde::uuid")]
            incident_id: Uuid,
        }
        let query = self
            .client
            .query(
                "SELECT incident_id FROM incident_events FINAL
                 WHERE event_id = toUUID({id:String}) AND version > 0 LIMIT 1",
            )
            .param("id", event_id.to_string());
        let found = self.rows::<Found>("reading incident_events", query).await?;
        Ok(found.into_iter().next().map(|found| found.incident_id))
    }

    pub(in crate::volumes) async fn incident(&self, id: Uuid) -> Result<Option<IncidentRow>, StoreError> {
        let query = self
            .client
            .query("SELECT ?fields FROM incidents FINAL WHERE incident_id = toUUID({id:String})")
            .param("id", id.to_string());
        Ok(self.rows::<IncidentRow>("reading incidents", query).await?.into_iter().next())
    }

    pub(in crate::volumes) async fn incidents(&self, asked: &IncidentQuery) -> Result<Vec<IncidentRow>, StoreError> {
        let mut statement = "SELECT ?fields FROM incidents FINAL
             WHERE opened_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
               AND opened_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')"
            .to_owned();
        for (is_asked, condition) in [
            (asked.status.is_some(), " AND status = {status:String}"),
            (asked.severity.is_some(), " AND severity = {severity:String}"),
            (asked.queue.is_some(), " AND queue = {queue:String}"),
            // As text, because ClickHouse has an order of its own for UUIDs.
            (
                asked.after.is_some(),
                " AND (opened_at, toString(incident_id)) < (fromUnixTimestamp64Milli({at:Int64}, 'UTC'), {id:String})",
            ),
        ] {
            if is_asked {
                statement += condition;
            }
        }
        statement += " ORDER BY opened_at DESC, toString(incident_id) DESC LIMIT {limit:UInt64}";
        let mut query = self
            .client
            .query(&statement)
            .param("from", in_range(asked.from))
            .param("to", in_range(asked.to))
            .param("limit", asked.limit as u64);
        if let Some(status) = asked.status {
            query = query.param("status", status.as_str());
        }
        if let Some(severity) = asked.severity {
            query = query.param("severity", severity.as_str());
        }
        if let Some(queue) = &asked.queue {
            query = query.param("queue", queue);
        }
        if let Some(cursor) = asked.after {
            query = query.param("at", in_range(cursor.occurred_at)).param("id", cursor.event_id.to_string());
        }
        self.rows("reading incidents", query).await
    }

    pub(in crate::volumes) async fn live_incidents(
        &self,
        updated_from: i64,
        limit: usize,
    ) -> Result<Vec<IncidentRow>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM incidents FINAL
                 WHERE status != 'resolved' OR updated_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
                 ORDER BY opened_at DESC, toString(incident_id) DESC LIMIT {limit:UInt64}",
            )
            .param("from", in_range(updated_from))
            .param("limit", limit as u64);
        self.rows("reading incidents", query).await
    }

    pub(in crate::volumes) async fn pending_incident_updates(
        &self,
        limit: usize,
    ) -> Result<Vec<IncidentUpdateRow>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM incident_updates FINAL WHERE version = 0
                 ORDER BY given_at, toString(update_id) LIMIT {limit:UInt64}",
            )
            .param("limit", limit as u64);
        self.rows("reading incident_updates", query).await
    }

    pub(in crate::volumes) async fn incident_notifications(&self, ids: &[Uuid]) -> Result<Vec<Notified>, StoreError> {
        let statement = format!(
            "SELECT incident_id, toString(incident_notifications.channel) AS channel, max(sequence) AS through,
                 toUnixTimestamp64Milli(max(sent_at)) AS last_at
             FROM incident_notifications WHERE {THESE}
             GROUP BY incident_id, channel ORDER BY toString(incident_id), channel"
        );
        self.rows("reading incident_notifications", self.client.query(&statement).param("ids", texts(ids))).await
    }
}

fn texts(ids: &[Uuid]) -> Vec<String> {
    ids.iter().map(Uuid::to_string).collect()
}

/// Milliseconds that the tables can hold.
fn in_range(milliseconds: i64) -> i64 {
    milliseconds.clamp(0, LAST_MILLISECOND + 1)
}
