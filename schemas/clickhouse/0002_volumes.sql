-- Volumes by minute of event time. A volume is no number but the set of the source offsets, kept as a roaring bitmap: an
-- event that is delivered twice, in another order or again after a crash is in the set already, and changes nothing.
CREATE TABLE IF NOT EXISTS volumes{{local}} {{on_cluster}}
(
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    kind Enum8('ticket' = 1, 'log' = 2),
    queue LowCardinality(String),
    category LowCardinality(String),
    priority Enum8('low' = 1, 'medium' = 2, 'high' = 3, 'critical' = 4),
    source_topic LowCardinality(String),
    source_partition Int32,
    offsets AggregateFunction(groupBitmap, UInt64)
)
ENGINE = {{replicated}}AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, queue, kind, category, priority, source_topic, source_partition);

CREATE MATERIALIZED VIEW IF NOT EXISTS volumes_from_events {{on_cluster}} TO volumes{{local}} AS
SELECT
    toStartOfMinute(toDateTime(occurred_at, 'UTC')) AS minute,
    kind,
    queue,
    category,
    priority,
    source_topic,
    source_partition,
    groupBitmapState(source_offset) AS offsets
FROM queue_events{{local}}
GROUP BY minute, kind, queue, category, priority, source_topic, source_partition;

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS volumes {{on_cluster}}
AS volumes{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), volumes{{local}}, cityHash64(source_topic, source_partition));

-- Plain counts for dashboards. Offsets are unique within a topic's partition only, so sets are united within each and
-- their sizes are added.
CREATE VIEW IF NOT EXISTS volumes_by_minute {{on_cluster}} AS
SELECT minute, kind, queue, category, priority, sum(size) AS events
FROM
(
    SELECT minute, kind, queue, category, priority, groupBitmapMerge(offsets) AS size
    FROM volumes
    GROUP BY minute, kind, queue, category, priority, source_topic, source_partition
)
GROUP BY minute, kind, queue, category, priority;

CREATE VIEW IF NOT EXISTS volumes_by_hour {{on_cluster}} AS
SELECT hour, kind, queue, category, priority, sum(size) AS events
FROM
(
    SELECT toStartOfHour(minute) AS hour, kind, queue, category, priority, groupBitmapMerge(offsets) AS size
    FROM volumes
    GROUP BY hour, kind, queue, category, priority, source_topic, source_partition
)
GROUP BY hour, kind, queue, category, priority;

CREATE VIEW IF NOT EXISTS volumes_by_day {{on_cluster}} AS
SELECT day, kind, queue, category, priority, sum(size) AS events
FROM
(
    SELECT toDate(minute) AS day, kind, queue, category, priority, groupBitmapMerge(offsets) AS size
    FROM volumes
    GROUP BY day, kind, queue, category, priority, source_topic, source_partition
)
GROUP BY day, kind, queue, category, priority;
