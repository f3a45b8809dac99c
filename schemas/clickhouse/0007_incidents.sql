-- Events that are urgent enough to open an incident, or that a person escalated. The identity of a row is where its record
-- lies in Kafka, so a repeat replaces itself and an incident's count is that of distinct records. `incident_id` is nil
-- (version 0) until the event is placed (version 1): a repeat never takes an event out of its incident again.
CREATE TABLE IF NOT EXISTS incident_events{{local}} {{on_cluster}}
(
    source_topic LowCardinality(String),
    source_partition Int32,
    source_offset UInt64 CODEC(Delta, ZSTD(1)),
    event_id UUID CODEC(NONE),
    incident_id UUID CODEC(ZSTD(1)),
    occurred_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    seen_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    queue LowCardinality(String),
    category LowCardinality(String),
    priority Enum8('low' = 1, 'medium' = 2, 'high' = 3, 'critical' = 4),
    -- What it is correlated by: `template:…`, `ip:…`, `url:…`.
    tokens Array(String) CODEC(ZSTD(1)),
    version UInt8,
    INDEX occurred_at_range occurred_at TYPE minmax GRANULARITY 1,
    INDEX event_id_filter event_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX incident_id_filter incident_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {{replicated}}ReplacingMergeTree(version)
PARTITION BY toMonday(occurred_at)
ORDER BY (source_topic, source_partition, source_offset)
TTL toDateTime(occurred_at) + toIntervalDay(90);

-- Incidents, each with its whole present state: the row with the highest version holds. Times that have not come are 0.
CREATE TABLE IF NOT EXISTS incidents{{local}} {{on_cluster}}
(
    incident_id UUID,
    version UInt64,
    -- The first event.
    event_id UUID,
    status Enum8('open' = 1, 'acknowledged' = 2, 'resolved' = 3),
    severity Enum8('low' = 1, 'medium' = 2, 'high' = 3, 'critical' = 4),
    queue LowCardinality(String),
    category LowCardinality(String),
    opened_at DateTime64(3, 'UTC'),
    first_seen DateTime64(3, 'UTC'),
    last_seen DateTime64(3, 'UTC'),
    events UInt64,
    tokens Array(String) CODEC(ZSTD(1)),
    step UInt8,
    acknowledge_by DateTime64(3, 'UTC'),
    resolve_by DateTime64(3, 'UTC'),
    acknowledged_at DateTime64(3, 'UTC'),
    acknowledged_by String,
    resolved_at DateTime64(3, 'UTC'),
    resolved_by String,
    acknowledge_breached_at DateTime64(3, 'UTC'),
    resolve_breached_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    -- When, what, by whom, escalation step, note, the update that asked for it.
    history Array(Tuple(DateTime64(3, 'UTC'), String, String, UInt8, String, String)) CODEC(ZSTD(1)),
    INDEX opened_at_range opened_at TYPE minmax GRANULARITY 1
)
ENGINE = {{replicated}}ReplacingMergeTree(version)
ORDER BY incident_id;

-- What people and other systems asked for. `outcome` is empty (version 0) until it was applied or refused (version 1).
CREATE TABLE IF NOT EXISTS incident_updates{{local}} {{on_cluster}}
(
    update_id UUID,
    incident_id UUID,
    event_id UUID,
    action Enum8('acknowledge' = 1, 'resolve' = 2, 'escalate' = 3),
    given_by String,
    given_at DateTime64(3, 'UTC'),
    note String CODEC(ZSTD(3)),
    outcome LowCardinality(String),
    version UInt8
)
ENGINE = {{replicated}}ReplacingMergeTree(version)
ORDER BY update_id;

-- What was sent, or given up, through which channel. `sequence`: how much of the incident's history it told.
CREATE TABLE IF NOT EXISTS incident_notifications{{local}} {{on_cluster}}
(
    incident_id UUID,
    channel LowCardinality(String),
    sequence UInt32,
    delivery_id UUID,
    sent_at DateTime64(3, 'UTC'),
    attempts UInt32,
    outcome Enum8('sent' = 1, 'failed' = 2)
)
ENGINE = {{replicated}}ReplacingMergeTree(sent_at)
ORDER BY (incident_id, channel, sequence)
TTL toDateTime(sent_at) + toIntervalDay(400);

-- only on a cluster: what is read and written. The shard follows from the identity, so that repeats meet.
CREATE TABLE IF NOT EXISTS incident_events {{on_cluster}}
AS incident_events{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), incident_events{{local}}, cityHash64(source_topic, source_partition));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS incidents {{on_cluster}}
AS incidents{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), incidents{{local}}, cityHash64(incident_id));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS incident_updates {{on_cluster}}
AS incident_updates{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), incident_updates{{local}}, cityHash64(update_id));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS incident_notifications {{on_cluster}}
AS incident_notifications{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), incident_notifications{{local}}, cityHash64(incident_id));
