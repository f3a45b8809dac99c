-- What people said about events, one row for each feedback. The same feedback sent again replaces itself, and of several
-- for one event the newest holds. Joined with queue_events when read: feedback may come before its event.
CREATE TABLE IF NOT EXISTS feedback{{local}} {{on_cluster}}
(
    event_id UUID,
    feedback_id UUID,
    source_topic LowCardinality(String),
    source_partition Int32,
    source_offset UInt64 CODEC(ZSTD(1)),
    kind Enum8('unknown' = 0, 'ticket' = 1, 'log' = 2),
    given_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    given_by LowCardinality(String),
    predicted_queue LowCardinality(String),
    corrected_queue LowCardinality(String),
    category LowCardinality(String),
    correct Enum8('unknown' = 0, 'no' = 1, 'yes' = 2),
    notes String CODEC(ZSTD(3)),
    keywords Array(String) CODEC(ZSTD(3)),
    -- 0: not said.
    difficulty UInt8,
    text String CODEC(ZSTD(3)),
    INDEX given_at_range given_at TYPE minmax GRANULARITY 1
)
ENGINE = {{replicated}}ReplacingMergeTree(given_at)
ORDER BY (event_id, feedback_id);

-- Who is looking at which event. `ticket` and `state` are those of Lamport's bakery: 0 means choosing a number, 1 chosen,
-- 2 released. The server's clock is the only one that counts.
CREATE TABLE IF NOT EXISTS review_claims{{local}} {{on_cluster}}
(
    event_id UUID,
    claim_id UUID,
    reviewer String,
    ticket UInt32,
    state UInt8,
    claimed_at DateTime64(3, 'UTC'),
    expires_at DateTime64(3, 'UTC')
)
ENGINE = {{replicated}}ReplacingMergeTree(state)
ORDER BY (event_id, claim_id)
TTL toDateTime(expires_at) + toIntervalDay(1);

-- Which scheduled reports have been sent.
CREATE TABLE IF NOT EXISTS report_deliveries{{local}} {{on_cluster}}
(
    slot DateTime('UTC'),
    sent_at DateTime64(3, 'UTC')
)
ENGINE = {{replicated}}ReplacingMergeTree(sent_at)
ORDER BY slot;

-- What the reviewer is shown beside the text: features with their weights.
ALTER TABLE queue_events{{local}} {{on_cluster}}
    ADD COLUMN IF NOT EXISTS reasons Array(Tuple(String, Float32)) CODEC(ZSTD(3)) AFTER alternatives;

-- only on a cluster: what is read and written has the column too.
ALTER TABLE queue_events {{on_cluster}}
    ADD COLUMN IF NOT EXISTS reasons Array(Tuple(String, Float32)) AFTER alternatives;

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS feedback {{on_cluster}}
AS feedback{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), feedback{{local}}, cityHash64(event_id));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS review_claims {{on_cluster}}
AS review_claims{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), review_claims{{local}}, cityHash64(event_id));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS report_deliveries {{on_cluster}}
AS report_deliveries{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), report_deliveries{{local}}, cityHash64(slot));
