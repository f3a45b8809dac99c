-- Which configuration decided, and what two models say that are compared: whose record it was, and what a challenger in the
-- shadow would have decided (model, queue, confidence; one at most). Empty in most rows, which takes a byte each.
ALTER TABLE queue_events{{local}} {{on_cluster}}
    ADD COLUMN IF NOT EXISTS config LowCardinality(String) AFTER model,
    ADD COLUMN IF NOT EXISTS arm LowCardinality(String) AFTER config,
    ADD COLUMN IF NOT EXISTS shadow Array(Tuple(LowCardinality(String), LowCardinality(String), Float32)) AFTER arm;

-- only on a cluster: what is read and written has the columns too.
ALTER TABLE queue_events {{on_cluster}}
    ADD COLUMN IF NOT EXISTS config LowCardinality(String) AFTER model,
    ADD COLUMN IF NOT EXISTS arm LowCardinality(String) AFTER config,
    ADD COLUMN IF NOT EXISTS shadow Array(Tuple(LowCardinality(String), LowCardinality(String), Float32)) AFTER arm;

-- Which scheduled trainings have been done, by the kind of record.
CREATE TABLE IF NOT EXISTS scheduled_trainings{{local}} {{on_cluster}}
(
    kind Enum8('ticket' = 1, 'log' = 2),
    slot DateTime('UTC'),
    done_at DateTime64(3, 'UTC')
)
ENGINE = {{replicated}}ReplacingMergeTree(done_at)
ORDER BY (kind, slot);

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS scheduled_trainings {{on_cluster}}
AS scheduled_trainings{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), scheduled_trainings{{local}}, cityHash64(slot));
