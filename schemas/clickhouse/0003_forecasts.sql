-- Forecasts as they were published: one row for each step. `queue` is `*` for all queues together. The same forecast
-- made again (after a restart, say) replaces itself.
CREATE TABLE IF NOT EXISTS forecasts{{local}} {{on_cluster}}
(
    window LowCardinality(String),
    queue LowCardinality(String),
    starts_at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    made_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    mean Float64 CODEC(ZSTD(1)),
    lower80 Float64 CODEC(ZSTD(1)),
    upper80 Float64 CODEC(ZSTD(1)),
    lower95 Float64 CODEC(ZSTD(1)),
    upper95 Float64 CODEC(ZSTD(1)),
    lower99 Float64 CODEC(ZSTD(1)),
    upper99 Float64 CODEC(ZSTD(1))
)
ENGINE = {{replicated}}ReplacingMergeTree(made_at)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (window, queue, starts_at, at);

-- What a forecast says as a whole: the sum over its horizon, and how it compares with the time before.
CREATE TABLE IF NOT EXISTS forecast_totals{{local}} {{on_cluster}}
(
    window LowCardinality(String),
    queue LowCardinality(String),
    starts_at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    made_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    steps UInt32,
    bucket_seconds UInt32,
    mean Float64,
    lower80 Float64,
    upper80 Float64,
    lower95 Float64,
    upper95 Float64,
    probability_of_increase Float64,
    trend Enum8('falling' = 1, 'steady' = 2, 'rising' = 3),
    method LowCardinality(String),
    scale Float64,
    backtest_mase Float64,
    backtest_coverage95 Float64
)
ENGINE = {{replicated}}ReplacingMergeTree(made_at)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (window, queue, starts_at);

-- How published forecasts compare with what came true, once their horizon has passed.
CREATE TABLE IF NOT EXISTS forecast_accuracy{{local}} {{on_cluster}}
(
    window LowCardinality(String),
    queue LowCardinality(String),
    starts_at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    compared_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    steps UInt32,
    method LowCardinality(String),
    mase Float64,
    coverage80 Float64,
    coverage95 Float64,
    forecast_total Float64,
    actual_total Float64
)
ENGINE = {{replicated}}ReplacingMergeTree(compared_at)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (window, queue, starts_at);

-- Buckets whose volume lies outside the 99 % interval that was forecast for them.
CREATE TABLE IF NOT EXISTS anomalies{{local}} {{on_cluster}}
(
    window LowCardinality(String),
    queue LowCardinality(String),
    at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    detected_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    actual Float64,
    expected Float64,
    lower99 Float64,
    upper99 Float64,
    direction Enum8('below' = 1, 'above' = 2)
)
ENGINE = {{replicated}}ReplacingMergeTree(detected_at)
PARTITION BY toYYYYMM(at)
ORDER BY (window, queue, at);

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS forecasts {{on_cluster}}
AS forecasts{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), forecasts{{local}}, cityHash64(window, queue));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS forecast_totals {{on_cluster}}
AS forecast_totals{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), forecast_totals{{local}}, cityHash64(window, queue));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS forecast_accuracy {{on_cluster}}
AS forecast_accuracy{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), forecast_accuracy{{local}}, cityHash64(window, queue));

-- only on a cluster: all shards together.
CREATE TABLE IF NOT EXISTS anomalies {{on_cluster}}
AS anomalies{{local}}
ENGINE = Distributed({{cluster}}, currentDatabase(), anomalies{{local}}, cityHash64(window, queue));
