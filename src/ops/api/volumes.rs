//! How much comes in: `GET /v1/stats`, `/v1/queues`, `/v1/volumes`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::config::parse_duration;
use crate::record::rfc3339;
use crate::volumes::{TOTAL, VolumeQuery};

use super::ApiState;
use super::problem::Problem;
use super::request::{Query, Span};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// Buckets of one answer and queue.
const MOST_BUCKETS: i64 = 10_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SpanParameters {
    /// Start of event time, RFC 3339; a day before the end if absent.
    #[param(format = "date-time")]
    from: Option<String>,
    /// End of event time, which no longer counts; now if absent.
    #[param(format = "date-time")]
    to: Option<String>,
}

impl SpanParameters {
    fn span(&self) -> Result<Span, Problem> {
        Span::read(self.from.as_deref(), self.to.as_deref(), DAY)
    }
}

type Counts = BTreeMap<String, u64>;

/// Events of a span of event time, in whole minutes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    #[schema(format = "date-time")]
    from: String,
    #[schema(format = "date-time")]
    to: String,
    /// Each event once, whatever queues it was decided for.
    events: u64,
    queues: usize,
    by_kind: Counts,
    by_priority: Counts,
    /// Of the events that are still kept, as they were decided last; this and what follows.
    by_routing: Counts,
    /// By the tier that decided: rule, cache, fast, encoder, llm, none.
    by_tier: Counts,
}

/// Count events
///
/// An event that was decided anew for another queue or priority counts in both; `events` counts it once.
#[utoipa::path(
    get, path = "/v1/stats", tag = "volumes", params(SpanParameters),
    responses((status = 200, description = "The counts.", body = Stats)),
)]
pub(super) async fn stats(
    State(state): State<ApiState>,
    Query(parameters): Query<SpanParameters>,
) -> Result<Json<Stats>, Problem> {
    let span = parameters.span()?;
    let (from, to) = (span.first_second(), span.end_second());
    let store = &state.store;
    // One bucket that holds everything: the total's set is then united over the whole span.
    let everything = VolumeQuery { from, to, bucket: i64::from(u32::MAX) + 1 };
    let events = store.volumes_of(everything, Some(TOTAL)).await?.iter().map(|volume| volume.events).sum();
    let queues = store.queue_counts(from, to).await?;
    let decisions = store.decision_counts(span.from, span.to).await?;
    let mut names: Vec<&str> = queues.iter().map(|count| &*count.queue).collect();
    names.dedup();
    Ok(Json(Stats {
        from: rfc3339(span.from),
        to: rfc3339(span.to),
        events,
        queues: names.len(),
        by_kind: add_up(queues.iter().map(|count| (count.kind.as_str(), count.events))),
        by_priority: add_up(queues.iter().map(|count| (count.priority.as_str(), count.events))),
        by_routing: add_up(decisions.iter().map(|count| (count.routing.as_str(), count.events))),
        by_tier: add_up(decisions.iter().map(|count| (&*count.tier, count.events))),
    }))
}

fn add_up<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> Counts {
    let mut sums = Counts::new();
    for (name, count) in counts {
        *sums.entry(name.to_owned()).or_default() += count;
    }
    sums
}

/// The queues that had events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Queues {
    #[schema(format = "date-time")]
    from: String,
    #[schema(format = "date-time")]
    to: String,
    queues: Vec<Queue>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Queue {
    queue: String,
    events: u64,
    by_kind: Counts,
    by_priority: Counts,
    /// The minute of the newest event.
    #[schema(format = "date-time")]
    newest: String,
}

/// List the queues
///
/// Those that had events in the span, with counts by kind and priority, in the order of their names.
#[utoipa::path(
    get, path = "/v1/queues", tag = "volumes", params(SpanParameters),
    responses((status = 200, description = "The queues.", body = Queues)),
)]
pub(super) async fn queues(
    State(state): State<ApiState>,
    Query(parameters): Query<SpanParameters>,
) -> Result<Json<Queues>, Problem> {
    let span = parameters.span()?;
    let counts = state.store.queue_counts(span.first_second(), span.end_second()).await?;
    let queues = counts.chunk_by(|a, b| a.queue == b.queue).map(|counts| Queue {
        queue: counts[0].queue.clone(),
        events: counts.iter().map(|count| count.events).sum(),
        by_kind: add_up(counts.iter().map(|count| (count.kind.as_str(), count.events))),
        by_priority: add_up(counts.iter().map(|count| (count.priority.as_str(), count.events))),
        newest: rfc3339(counts.iter().map(|count| count.newest).max().unwrap_or_default() * 1000),
    });
    Ok(Json(Queues { from: rfc3339(span.from), to: rfc3339(span.to), queues: queues.collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VolumeParameters {
    /// This queue alone; `*`: all together. All of them if absent.
    queue: Option<String>,
    /// Length of a bucket, such as `5m`, `1h` or `1d`; whole minutes, `1h` if absent.
    bucket: Option<String>,
    /// Instead of `bucket`: the name of a forecast window of the configuration, whose buckets are taken.
    window: Option<String>,
    /// Start of event time, RFC 3339, rounded down to a bucket; a day before the end if absent, or 50 buckets if that is
    /// longer.
    #[param(format = "date-time")]
    from: Option<String>,
    /// End of event time, which no longer counts; now if absent.
    #[param(format = "date-time")]
    to: Option<String>,
}

/// Events by queue and bucket of event time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Volumes {
    #[schema(format = "date-time")]
    from: String,
    #[schema(format = "date-time")]
    to: String,
    bucket_seconds: i64,
    volumes: Vec<QueueVolumes>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueVolumes {
    /// `*`: all queues together.
    queue: String,
    points: Vec<VolumePoint>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VolumePoint {
    /// Start of the bucket.
    #[schema(format = "date-time")]
    at: String,
    events: u64,
}

/// Volumes over time
///
/// Events by queue and bucket, each counted once however often it was delivered. Buckets lie on UTC; those without events
/// are left out. The queue `*` stands for all together.
#[utoipa::path(
    get, path = "/v1/volumes", tag = "volumes", params(VolumeParameters),
    responses((status = 200, description = "The volumes.", body = Volumes)),
)]
pub(super) async fn volumes(
    State(state): State<ApiState>,
    Query(parameters): Query<VolumeParameters>,
) -> Result<Json<Volumes>, Problem> {
    let bucket = bucket(&state, &parameters)?;
    let span = Span::read(parameters.from.as_deref(), parameters.to.as_deref(), DAY.max(bucket * 50))?;
    let bucket = bucket.as_secs() as i64;
    let query = VolumeQuery { from: span.first_second() / bucket * bucket, to: span.end_second(), bucket };
    if (query.to - query.from) / bucket >= MOST_BUCKETS {
        let detail = format!("the span has more than {MOST_BUCKETS} buckets; take longer ones or a shorter span");
        return Err(Problem::invalid("invalid_parameter", detail));
    }
    let found = state.store.volumes_of(query, parameters.queue.as_deref()).await?;
    let of_queue = found.chunk_by(|a, b| a.queue == b.queue).map(|volumes| QueueVolumes {
        queue: volumes[0].queue.clone(),
        points: volumes
            .iter()
            .map(|volume| VolumePoint { at: rfc3339(volume.at * 1000), events: volume.events })
            .collect(),
    });
    Ok(Json(Volumes {
        from: rfc3339(query.from * 1000),
        to: rfc3339(query.to * 1000),
        bucket_seconds: bucket,
        volumes: of_queue.collect(),
    }))
}

fn bucket(state: &ApiState, parameters: &VolumeParameters) -> Result<Duration, Problem> {
    let invalid = |detail: String| Problem::invalid("invalid_parameter", detail);
    match (&parameters.bucket, &parameters.window) {
        (None, None) => Ok(HOUR),
        (None, Some(name)) => Ok(state.window(name)?.bucket),
        (Some(_), Some(_)) => Err(invalid("give either `bucket` or `window`".to_owned())),
        (Some(text), None) => match parse_duration(text) {
            Ok(bucket)
                if bucket.is_zero() || bucket > 366 * DAY || !bucket.as_nanos().is_multiple_of(MINUTE.as_nanos()) =>
            {
                Err(invalid("`bucket` must be whole minutes, and a year at most".to_owned()))
            }
            Ok(bucket) => Ok(bucket),
            Err(rule) => Err(invalid(format!("`bucket`: {rule}"))),
        },
    }
}
