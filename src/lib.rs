//! `triaged` reads tickets and log lines from Kafka, decides which queue each belongs to, and publishes routed queue
//! events.
//!
//! ```text
//! Kafka: tickets, logs
//!      │
//!      ▼
//! stream     polls, batches, publishes, commits in order          runs every role
//! decode     bytes ─► record, or the reason why not ────────────► dead-letters
//! rules      literals and regexes; a decisive rule ends here ───► queue-events
//! classify   template cache ─► model ─► decide: sure ───────────► queue-events
//!                                        not sure ──────────────► escalations
//! escalate   encoder ─► LLM ─► decide ──────────────────────────► queue-events
//! tally      queue-events, feedback ────────────────────────────► volumes (ClickHouse or memory)
//! forecast   volumes ───────────────────────────────────────────► forecasts, anomalies
//! incidents  queue-events, incident-updates ────────────────────► incidents; webhooks, Slack, e-mail
//!
//! volumes ─► reports, arms, retrain; people ─► feedback (reviews, claims) ─► Kafka: feedback
//! ops        over HTTP: health, metrics, and the API, which classifies, shows what is there and takes feedback
//! ```
//!
//! Modules stand in the order in which a record meets them. Dependencies point one way: `cli`, `app`, roles
//! (`classify`, `escalate`, `tally`, `forecast`, `incidents`), then `route`, `stream`, `rules`, `model`, `decode`, then
//! `record`, `config`, `metrics`. Roles never import one another. rdkafka is named only in `stream`, Burn only in `model`,
//! axum only in `ops`, the ClickHouse client only in `volumes`, lettre only in `mail`.

pub mod cli;

pub mod app;

pub mod stream;

pub mod decode;

pub mod rules;

pub mod model;

pub mod route;

pub mod classify;

pub mod escalate;

pub mod tally;

pub mod forecast;

pub mod feedback;

pub mod retrain;

pub mod reports;

pub mod arms;
pub mod incidents;

pub mod mail;

pub mod volumes;

pub mod ops;

pub mod record;

pub mod config;
pub mod finding;
mod https;
pub mod metrics;
pub mod readiness;
pub mod reload;
pub mod supervisor;
pub mod telemetry;

pub mod generate;

#[cfg(test)]
mod schemas;
