-- Every event, one row for each original record.
--
-- The identity of a row is where its record lies in Kafka, so a replayed or repeated event replaces itself: the newest
-- decision wins. Sorted by that identity, neighbours come from one source and compress well; questions about time are
-- answered by the partitions and a minmax index, because offsets grow with time.
--
-- LowCardinality: the few names that repeat (queues, topics, models). Delta before ZSTD: numbers and times that grow
-- slowly. ZSTD(3) for the text, which is most of the bytes and is seldom read.
CREATE TABLE IF NOT EXISTS queue_events{{local}} {{on_cluster}}
(
    source_topic LowCardinality(String),
    source_partition Int32,
    source_offset UInt64 CODEC(Delta, ZSTD(1)),
    event_id UUID CODEC(NONE),
    kind Enum8('ticket' = 1, 'log' = 2),
    ticket_id String CODEC(ZSTD(1)),
    origin LowCardinality(String),
    occurred_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    decided_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    queue LowCardinality(String),
    category LowCardinality(String),
    priority Enum8('low' = 1, 'medium' = 2, 'high' = 3, 'critical' = 4),
    confidence Float32 CODEC(ZSTD(1)),
    routing Enum8('auto_route' = 1, 'human_verify' = 2, 'manual_triage' = 3),
    decided_by LowCardinality(String),
    -- Labels with their probabilities.
    alternatives Array(Tuple(LowCardinality(String), Float32)),
    tags Array(LowCardinality(String)),
    urls Array(String) CODEC(ZSTD(1)),
    ips Array(String) CODEC(ZSTD(1)),
    domains Array(String) CODEC(ZSTD(1)),
    emails Array(String) CODEC(ZSTD(1)),
    cves Array(String) CODEC(ZSTD(1)),
    hashes Array(String) CODEC(ZSTD(1)),
    model LowCardinality(String),
    template_id String CODEC(ZSTD(1)),
    text String CODEC(ZSTD(3)),
    INDEX occurred_at_range occurred_at TYPE minmax GRANULARITY 1,
    INDEX event_id_filter event_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX ticket_id_filter ticket_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {{replicated}}ReplacingMergeTree(decided_at)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (source_topic, source_partition, source_offset);

-- only on a cluster: what is read and written. The shard follows from the identity, so that repeats meet.
CREATE TABLE IF NOT EXISTS queue_events {{on_cluster}}
AS queue_events{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), queue_events{{local}}, cityHash64(source_topic, source_partition));
