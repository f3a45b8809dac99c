-- Who changed what, and when: one row for each change, kept for ever. The id follows from the content, so an entry that
-- is written again (after a time-out, by another instance) replaces itself.
CREATE TABLE IF NOT EXISTS audit_log{{local}} {{on_cluster}}
(
    at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    entry_id UUID CODEC(NONE),
    -- The name and id of the key, or what else made the change.
    actor String CODEC(ZSTD(1)),
    -- From where; empty when it came from this machine's own files.
    address String CODEC(ZSTD(1)),
    action LowCardinality(String),
    -- What was changed.
    subject String CODEC(ZSTD(1)),
    -- JSON.
    detail String CODEC(ZSTD(3))
)
ENGINE = {{replicated}}ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (at, entry_id);

-- only on a cluster: what is read and written.
CREATE TABLE IF NOT EXISTS audit_log {{on_cluster}}
AS audit_log{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), audit_log{{local}}, cityHash64(entry_id));
