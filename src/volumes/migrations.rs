//! The tables: `schemas/clickhouse/*.sql` in order, each applied once, recorded in `schema_migrations`, and checked by
//! hash for ever after.
//!
//! The files are templates, so that the same ones serve a single server and a cluster:
//!
//! | written | single server | cluster |
//! |---|---|---|
//! | `{{local}}` | | `_local` |
//! | `{{replicated}}` | | `Replicated` |
//! | `{{on_cluster}}` | | ``ON CLUSTER `name` `` |
//! | `{{cluster}}` | | `` `name` `` |
//!
//! A statement whose comment begins with `-- only on a cluster` is left out on a single server.

use clickhouse::Row;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::config::ClickHouseSettings;

use super::clickhouse::StoreError;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    pub version: u32,
    pub name: &'static str,
    text: &'static str,
}

const MIGRATIONS: [Migration; 7] = [
    Migration {
        version: 1,
        name: "0001_queue_events.sql",
        text: include_str!("../../schemas/clickhouse/0001_queue_events.sql"),
    },
    Migration { version: 2, name: "0002_volumes.sql", text: include_str!("../../schemas/clickhouse/0002_volumes.sql") },
    Migration {
        version: 3,
        name: "0003_forecasts.sql",
        text: include_str!("../../schemas/clickhouse/0003_forecasts.sql"),
    },
    Migration {
        version: 4,
        name: "0004_audit_log.sql",
        text: include_str!("../../schemas/clickhouse/0004_audit_log.sql"),
    },
    Migration {
        version: 5,
        name: "0005_feedback.sql",
        text: include_str!("../../schemas/clickhouse/0005_feedback.sql"),
    },
    Migration { version: 6, name: "0006_arms.sql", text: include_str!("../../schemas/clickhouse/0006_arms.sql") },
    Migration {
        version: 7,
        name: "0007_incidents.sql",
        text: include_str!("../../schemas/clickhouse/0007_incidents.sql"),
    },
];

const RECORDS: &str = "CREATE TABLE IF NOT EXISTS schema_migrations {{on_cluster}}
(
    version UInt32,
    name String,
    hash String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {{replicated}}ReplacingMergeTree(applied_at)
ORDER BY version";

impl Migration {
    /// SHA-256 of the file in hexadecimal digits.
    pub fn hash(&self) -> String {
        data_encoding::HEXLOWER.encode(&Sha256::digest(self.text))
    }
}

/// A row of `schema_migrations`.
#[derive(Debug, Clone, Row, Deserialize)]
pub(super) struct Recorded {
    pub(super) version: u32,
    pub(super) name: String,
    pub(super) hash: String,
}

/// What the tables shall be like.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    cluster: Option<String>,
    events_retention: u64,
    volumes_retention: u64,
}

impl Schema {
    pub(super) fn new(settings: &ClickHouseSettings) -> Self {
        Schema {
            cluster: settings.cluster.clone(),
            events_retention: settings.events_retention.as_secs(),
            volumes_retention: settings.volumes_retention.as_secs(),
        }
    }

    /// Tables whose rows expire, each with the expression of the time when they do; `None`: they stay for ever.
    pub(super) fn retention(&self) -> [(String, Option<String>); 2] {
        let local = if self.cluster.is_some() { "_local" } else { "" };
        let expiry = |column: &str, seconds: u64| {
            (seconds > 0).then(|| format!("toDateTime({column}) + toIntervalSecond({seconds})"))
        };
        [
            (format!("queue_events{local}"), expiry("occurred_at", self.events_retention)),
            (format!("volumes{local}"), expiry("minute", self.volumes_retention)),
        ]
    }

    fn fill_in(&self, text: &str) -> String {
        let (local, replicated, on_cluster, cluster) = match &self.cluster {
            None => ("", "", String::new(), String::new()),
            Some(name) => ("_local", "Replicated", format!("ON CLUSTER `{name}`"), format!("`{name}`")),
        };
        text.replace("{{local}}", local)
            .replace("{{replicated}}", replicated)
            .replace("{{on_cluster}}", &on_cluster)
            .replace("{{cluster}}", &cluster)
    }

    /// The statements of a file. Comments stay with the statement that follows them.
    fn statements(&self, text: &str) -> Vec<String> {
        let is_for_us = |statement: &&str| {
            self.cluster.is_some() || !statement.lines().any(|line| line.starts_with("-- only on a cluster"))
        };
        let statements = text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty());
        statements.filter(is_for_us).map(|statement| self.fill_in(statement)).collect()
    }
}

/// Something that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    name: String,
    migration: Option<Migration>,
    statements: Vec<String>,
}

impl Pending {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn statements(&self) -> &[String] {
        &self.statements
    }

    /// `None` for what follows from the configuration and is compared with the tables themselves.
    pub(super) fn migration(&self) -> Option<&Migration> {
        self.migration.as_ref()
    }
}

/// What is to be done, given what is recorded and the engines of the tables with a retention, in `Schema::retention`'s
/// order.
pub(super) fn pending(
    schema: &Schema,
    records_exist: bool,
    recorded: &[Recorded],
    engines: &[String],
) -> Result<Vec<Pending>, StoreError> {
    let mut pending = Vec::new();
    if !records_exist {
        let statements = vec![schema.fill_in(RECORDS)];
        pending.push(Pending { name: "schema_migrations".to_owned(), migration: None, statements });
    }
    for migration in &MIGRATIONS {
        let here = migration.hash();
        match recorded.iter().find(|record| record.version == migration.version) {
            None => pending.push(Pending {
                name: migration.name.to_owned(),
                migration: Some(*migration),
                statements: schema.statements(migration.text),
            }),
            Some(record) if record.hash != here => {
                return Err(StoreError::ChangedMigration {
                    name: migration.name.to_owned(),
                    recorded: record.hash.clone(),
                    here,
                });
            }
            Some(_) => {}
        }
    }
    for newer in recorded.iter().filter(|record| MIGRATIONS.iter().all(|known| known.version != record.version)) {
        // A newer instance has been here. What it adds is optional, so an older one goes on.
        tracing::warn!(migration = newer.name, "the tables are newer than this program");
    }
    let on_cluster = schema.fill_in("{{on_cluster}}");
    for ((table, expiry), engine) in schema.retention().iter().zip(engines) {
        let statement = match expiry {
            Some(expiry) if !engine.contains(expiry.as_str()) => {
                format!("ALTER TABLE {table} {on_cluster} MODIFY TTL {expiry}")
            }
            None if engine.contains(" TTL ") => format!("ALTER TABLE {table} {on_cluster} REMOVE TTL"),
            _ => continue,
        };
        pending.push(Pending { name: format!("retention of {table}"), migration: None, statements: vec![statement] });
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn schema(text: &str) -> Schema {
        Schema::new(&Config::from_toml(text).unwrap().clickhouse)
    }

    fn all(schema: &Schema) -> Vec<Pending> {
        pending(schema, false, &[], &[String::new(), String::new()]).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_listed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/clickhouse");
        let mut files: Vec<String> =
            folder.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, MIGRATIONS.map(|migration| migration.name));
        let is_named = |migration: &Migration| migration.name.starts_with(&format!("{:04}_", migration.version));
        assert!(MIGRATIONS.iter().all(is_named) && MIGRATIONS.is_sorted_by_key(|migration| migration.version));
    }

    #[test]
    fn a_single_server_has_plain_tables_and_a_cluster_replicated_and_distributed_ones() {
        let text = |schema: &Schema| all(schema).iter().flat_map(|step| step.statements.clone()).collect::<String>();
        let single = text(&schema(""));
        assert!(
            !single.contains("{{") && !single.contains("Replicated") && !single.contains("Distributed("),
            "{single}"
        );
        let cluster = text(&schema("[clickhouse]\ncluster = \"main\""));
        assert!(!cluster.contains("{{"), "{cluster}");
        for part in ["queue_events_local ON CLUSTER `main`", "ReplicatedAggregatingMergeTree", "Distributed(`main`,"] {
            assert!(cluster.contains(part), "{part} is missing in {cluster}");
        }
    }

    #[test]
    fn what_is_applied_is_not_pending_and_may_not_change() {
        let schema = schema("");
        let mut recorded: Vec<Recorded> = MIGRATIONS
            .iter()
            .map(|migration| Recorded {
                version: migration.version,
                name: migration.name.to_owned(),
                hash: migration.hash(),
            })
            .collect();
        let engines = schema.retention().map(|(_, expiry)| format!("MergeTree TTL {}", expiry.unwrap()));
        assert_eq!(pending(&schema, true, &recorded, &engines).unwrap(), []);
        recorded[1].hash.clear();
        let error = pending(&schema, true, &recorded, &engines).unwrap_err().to_string();
        assert!(error.starts_with("0002_volumes.sql was applied with another content"), "{error}");
    }

    #[test]
    fn a_new_retention_is_pending() {
        let engines =
            ["MergeTree TTL toDateTime(occurred_at) + toIntervalSecond(60)".to_owned(), "MergeTree".to_owned()];
        let names = |text: &str| -> Vec<String> {
            let recorded: Vec<Recorded> = MIGRATIONS
                .iter()
                .map(|m| Recorded { version: m.version, name: m.name.to_owned(), hash: m.hash() })
                .collect();
            let pending = pending(&schema(text), true, &recorded, &engines).unwrap();
            pending.iter().flat_map(|pending| pending.statements().to_vec()).collect()
        };
        let same = "[clickhouse]\nevents_retention = \"60s\"\nvolumes_retention = \"0s\"";
        assert_eq!(names(same), Vec::<String>::new());
        let other = "[clickhouse]\nevents_retention = \"0s\"\nvolumes_retention = \"1m\"";
        assert_eq!(
            names(other),
            [
                "ALTER TABLE queue_events  REMOVE TTL",
                "ALTER TABLE volumes  MODIFY TTL toDateTime(minute) + toIntervalSecond(60)"
            ]
        );
    }
}
