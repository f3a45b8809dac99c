//! The ClickHouse side of the store: client, time-outs, statements, and what its errors mean. The `clickhouse` crate is
//! named nowhere else but in `row`.

mod arms;
mod columns;
mod incidents;
mod lookup;
mod reviews;

use std::future::Future;
use std::time::Duration;

use clickhouse::error::Error as ClientError;
use clickhouse::{Client, Row, RowOwned, RowRead, RowWrite};
use serde::Deserialize;

use crate::config::ClickHouseSettings;

use super::migrations::{self, Migration, Pending, Recorded, Schema};
use super::row::{EventRow, ForecastRow, ForecastTotalRow};
use super::store::{TOTAL, Volume, VolumeQuery};

/// What helps against an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Trying again later: the server is away, busy, or full.
    Retry,
    /// A row holds something that its column does not take.
    Row,
    /// Somebody has to do something: a table, a right or a setting is wrong.
    Refused,
}

impl Failure {
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Retry => "retry",
            Failure::Row => "row",
            Failure::Refused => "refused",
        }
    }
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `answer` is fit for a log; `detail` may hold what the rows hold.
    #[error("clickhouse: {operation} failed: {answer}")]
    ClickHouse { operation: &'static str, failure: Failure, answer: String, detail: String },
    #[error("clickhouse: {operation} took longer than {timeout:?}")]
    TimedOut { operation: &'static str, timeout: Duration },
    #[error("clickhouse refuses every row of a batch, so it is not the rows; the first: {0}")]
    AllRefused(String),
    #[error("{name} has not been applied to clickhouse; `triaged migrate` does it, or set clickhouse.migrate")]
    NotMigrated { name: String },
    #[error(
        "{name} was applied with another content ({recorded}, here {here}); a migration that is out must not be changed"
    )]
    ChangedMigration { name: String, recorded: String, here: String },
}

impl StoreError {
    pub fn failure(&self) -> Failure {
        match self {
            StoreError::ClickHouse { failure, .. } => *failure,
            StoreError::TimedOut { .. } => Failure::Retry,
            StoreError::AllRefused(_) | StoreError::NotMigrated { .. } | StoreError::ChangedMigration { .. } => {
                Failure::Refused
            }
        }
    }

    /// An answer of the server that means this failure.
    #[cfg(test)]
    pub(crate) fn answered(operation: &'static str, answer: &str, failure: Failure) -> Self {
        StoreError::ClickHouse { operation, failure, answer: answer.to_owned(), detail: answer.to_owned() }
    }

    fn new(operation: &'static str, error: ClientError) -> Self {
        let failure = failure_of(&error);
        let mut detail = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !detail.ends_with(&cause_text) {
                detail = format!("{detail}: {cause_text}");
            }
            source = cause.source();
        }
        // An answer about rows may quote them.
        let answer = match code_of(&detail) {
            Some(code) if failure == Failure::Row => format!("Code: {code}"),
            _ => detail.chars().take(MOST_ANSWER).collect(),
        };
        StoreError::ClickHouse { operation, failure, answer, detail }
    }

    /// Everything that is known, for whoever may read the rows as well.
    pub fn detail(&self) -> String {
        match self {
            StoreError::ClickHouse { detail, .. } => detail.clone(),
            other => other.to_string(),
        }
    }
}

/// Characters of an answer that are logged; the rest is a stack trace or a statement of ours.
const MOST_ANSWER: usize = 300;

/// Answers to be tried again (`src/Common/ErrorCodes.cpp`): files, time-outs, network, memory, space, too many parts,
/// queries or tables that are read-only for now, Keeper, overload.
const RETRY: [u32; 39] = [
    23, 32, 33, 74, 75, 107, 159, 160, 173, 198, 201, 202, 203, 204, 209, 210, 225, 236, 241, 242, 243, 252, 279, 285,
    286, 319, 394, 410, 425, 439, 473, 499, 667, 734, 745, 746, 999, 1000, 1001,
];
/// Answers about what a row holds: parsing, ranges, sizes, enums, constraints.
const ROW: [u32; 21] = [6, 25, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 190, 321, 349, 407, 441, 469, 590, 676, 691];

fn failure_of(error: &ClientError) -> Failure {
    match error {
        ClientError::Network(_) | ClientError::TimedOut => Failure::Retry,
        ClientError::BadResponse(text) => match code_of(text) {
            // A gateway's page, or a server that is just starting.
            None => Failure::Retry,
            Some(code) if RETRY.contains(&code) => Failure::Retry,
            Some(code) if ROW.contains(&code) => Failure::Row,
            Some(_) => Failure::Refused,
        },
        _ => Failure::Refused,
    }
}

/// A second since 1970-01-01 UTC as a `DateTime` can hold it.
fn second(second: i64) -> u32 {
    u32::try_from(second.max(0)).unwrap_or(u32::MAX)
}

/// `Code: 252. DB::Exception: ...`
fn code_of(text: &str) -> Option<u32> {
    let digits = text.split_once("Code: ")?.1;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// A ClickHouse server or cluster.
#[derive(Clone)]
pub struct ClickHouseStore {
    client: Client,
    schema: Schema,
    insert_timeout: Duration,
    query_timeout: Duration,
}

impl std::fmt::Debug for ClickHouseStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseStore").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl ClickHouseStore {
    pub fn new(settings: &ClickHouseSettings) -> Self {
        let mut client = Client::default()
            .with_url(&settings.url)
            .with_database(&settings.database)
            .with_user(&settings.user)
            .with_product_info("triaged", env!("CARGO_PKG_VERSION"))
            // Batches are ours: a server-side buffer would acknowledge before the rows are there, and row sets that are
            // equal by chance must not be taken for repeats.
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "0")
            // Repeats are merged in the background, and whoever reads expects them until then: merging each batch by itself
            // as well takes the server nearly half of the time of an insert.
            .with_setting("optimize_on_insert", "0")
            .with_setting("distributed_foreground_insert", "1");
        if let Some(password) = &settings.password {
            client = client.with_password(password.reveal());
        }
        ClickHouseStore {
            client,
            schema: Schema::new(settings),
            insert_timeout: settings.insert_timeout,
            query_timeout: settings.query_timeout,
        }
    }

    async fn within<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, StoreError> {
        let timeout = self.query_timeout;
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result.map_err(|error| StoreError::new(operation, error)),
            Err(_) => Err(StoreError::TimedOut { operation, timeout }),
        }
    }

    async fn rows<T: RowOwned + RowRead>(
        &self,
        operation: &'static str,
        query: clickhouse::query::Query,
    ) -> Result<Vec<T>, StoreError> {
        self.within(operation, query.fetch_all::<T>()).await
    }

    pub(super) async fn insert_events(&self, rows: &[EventRow<'_>]) -> Result<(), StoreError> {
        let operation = "inserting events";
        let insert = self.client.insert_formatted_with(columns::insert_statement());
        let mut insert = insert.with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout));
        for block in columns::blocks(rows) {
            insert.send(block.into()).await.map_err(|error| StoreError::new(operation, error))?;
        }
        insert.end().await.map_err(|error| StoreError::new(operation, error))
    }

    /// Rows of what the forecast role writes, a few thousand at most.
    pub(super) async fn insert<T>(&self, table: &'static str, rows: &[T]) -> Result<(), StoreError>
    where
        T: RowOwned + RowWrite,
    {
        if rows.is_empty() {
            return Ok(());
        }
        self.within(table, async {
            let mut insert = self.client.insert::<T>(table).await?;
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        })
        .await
    }

    /// Of all queues and the total, or of `only` one of them.
    pub(super) async fn volumes(&self, query: VolumeQuery, only: Option<&str>) -> Result<Vec<Volume>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            queue: String,
            at: i64,
            events: u64,
        }
        // Offsets are unique within a topic's partition only, so sets are united within each and their sizes are added.
        let statement = |queue: &str, condition: &str| {
            format!(
                "SELECT queue, at, sum(size) AS events FROM (
                     SELECT {queue} AS queue, intDiv(toInt64(toUnixTimestamp(minute)), {{bucket:Int64}}) * {{bucket:Int64}} AS at,
                         groupBitmapMerge(offsets) AS size
                     FROM volumes
                     WHERE minute >= toDateTime({{from:UInt32}}, 'UTC') AND minute < toDateTime({{to:UInt32}}, 'UTC')
                         {condition}
                     GROUP BY queue, at, source_topic, source_partition)
                 GROUP BY queue, at"
            )
        };
        let named = "toString(volumes.queue)";
        let (total, condition) = (format!("'{TOTAL}'"), "AND volumes.queue = {queue:String}");
        let statements = match only {
            None => vec![statement(named, ""), statement(&total, "")],
            Some(TOTAL) => vec![statement(&total, "")],
            Some(_) => vec![statement(named, condition)],
        };
        let mut volumes = Vec::new();
        for statement in statements {
            let query = self
                .client
                .query(&statement)
                .param("bucket", query.bucket)
                .param("from", second(query.from))
                .param("to", second(query.to))
                .param("queue", only.unwrap_or_default());
            let found = self.rows::<Found>("reading volumes", query).await?;
            volumes.extend(found.into_iter().map(|Found { queue, at, events }| Volume { queue, at, events }));
        }
        Ok(volumes)
    }

    pub(super) async fn newest_forecast(&self, window: &str) -> Result<Option<u32>, StoreError> {
        let query = self
            .client
            .query("SELECT toUnixTimestamp(max(starts_at)) FROM forecast_totals WHERE window = {window:String}")
            .param("window", window);
        let newest = self.rows::<u32>("reading forecasts", query).await?;
        // `max` of nothing is zero.
        Ok(newest.into_iter().next().filter(|second| *second > 0))
    }

    pub(super) async fn forecasts_to_compare(
        &self,
        window: &str,
        ended_after: u32,
        ended_by: u32,
    ) -> Result<Vec<ForecastTotalRow>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM forecast_totals FINAL
                 WHERE window = {window:String}
                   AND toUnixTimestamp(starts_at) + steps * bucket_seconds > {after:UInt32}
                   AND toUnixTimestamp(starts_at) + steps * bucket_seconds <= {by:UInt32}
                   AND (queue, starts_at) NOT IN
                       (SELECT queue, starts_at FROM forecast_accuracy WHERE window = {window:String})
                 ORDER BY starts_at, queue",
            )
            .param("window", window)
            .param("after", ended_after)
            .param("by", ended_by);
        self.rows("reading forecasts", query).await
    }

    pub(super) async fn forecast_steps(&self, window: &str, starts_at: u32) -> Result<Vec<ForecastRow>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT ?fields FROM forecasts FINAL
                 WHERE window = {window:String} AND starts_at = toDateTime({start:UInt32}, 'UTC')
                 ORDER BY queue, at",
            )
            .param("window", window)
            .param("start", starts_at);
        self.rows("reading forecasts", query).await
    }

    pub(super) async fn last_anomalies(&self, window: &str) -> Result<Vec<(String, u32)>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Found {
            queue: String,
            at: u32,
        }
        let query = self
            .client
            .query(
                "SELECT toString(anomalies.queue) AS queue, toUnixTimestamp(max(anomalies.at)) AS at FROM anomalies
                 WHERE window = {window:String} GROUP BY queue ORDER BY queue",
            )
            .param("window", window);
        let found = self.rows::<Found>("reading anomalies", query).await?;
        Ok(found.into_iter().map(|Found { queue, at }| (queue, at)).collect())
    }

    /// Brings the tables up to this version. Every statement may run twice, so several instances may do it at once.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        for pending in self.pending().await? {
            tracing::info!(migration = pending.name(), "migrating");
            for statement in pending.statements() {
                self.execute("migrating", statement).await?;
            }
            if let Some(migration) = pending.migration() {
                self.record(migration).await?;
            }
        }
        self.client.clear_cached_metadata().await;
        Ok(())
    }

    /// What `migrate` would do now.
    pub async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        let there = self.table_exists("schema_migrations").await?;
        let query = "SELECT version, argMax(name, applied_at) AS name, argMax(hash, applied_at) AS hash
                     FROM schema_migrations GROUP BY version ORDER BY version";
        let recorded = match there {
            true => self.rows::<Recorded>("reading schema_migrations", self.client.query(query)).await?,
            false => Vec::new(),
        };
        let mut tables = Vec::new();
        for (table, _) in self.schema.retention() {
            tables.push(self.engine_of(&table).await?);
        }
        migrations::pending(&self.schema, there, &recorded, &tables)
    }

    /// An error when a migration has not been applied.
    pub(super) async fn check_migrated(&self) -> Result<(), StoreError> {
        let pending = self.pending().await?;
        match pending.iter().find(|pending| pending.migration().is_some()) {
            Some(pending) => Err(StoreError::NotMigrated { name: pending.name().to_owned() }),
            None => Ok(()),
        }
    }

    async fn record(&self, migration: &Migration) -> Result<(), StoreError> {
        let query = self
            .client
            .query(
                "INSERT INTO schema_migrations (version, name, hash)
                 SELECT {version:UInt32}, {name:String}, {hash:String}",
            )
            .param("version", migration.version)
            .param("name", migration.name)
            .param("hash", migration.hash());
        self.within("writing schema_migrations", query.execute()).await
    }

    async fn table_exists(&self, table: &str) -> Result<bool, StoreError> {
        let query = self
            .client
            .query("SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = {table:String}")
            .param("table", table);
        Ok(self.rows::<u64>("reading system.tables", query).await?.into_iter().any(|count| count > 0))
    }

    /// The engine with all that belongs to it, which names the retention; empty when there is no such table.
    async fn engine_of(&self, table: &str) -> Result<String, StoreError> {
        let query = self
            .client
            .query(
                "SELECT engine_full FROM system.tables
                 WHERE database = currentDatabase() AND name = {table:String}",
            )
            .param("table", table);
        Ok(self.rows::<String>("reading system.tables", query).await?.into_iter().next().unwrap_or_default())
    }

    async fn execute(&self, operation: &'static str, statement: &str) -> Result<(), StoreError> {
        self.within(operation, self.client.query_raw(statement).execute()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let answer = |text: &str| failure_of(&ClientError::BadResponse(text.to_owned()));
        assert_eq!(answer("Code: 252. DB::Exception: Too many parts"), Failure::Retry);
        assert_eq!(answer("Code: 60. DB::Exception: Table does not exist"), Failure::Refused);
        assert_eq!(answer("Code: 516. DB::Exception: Authentication failed"), Failure::Refused);
        assert_eq!(answer("Code: 469. DB::Exception: Constraint violated"), Failure::Row);
        assert_eq!(answer("<html>502 Bad Gateway</html>"), Failure::Retry);
        assert_eq!(failure_of(&ClientError::TimedOut), Failure::Retry);
        assert_eq!(failure_of(&ClientError::SchemaMismatch("x".into())), Failure::Refused);
    }
}
