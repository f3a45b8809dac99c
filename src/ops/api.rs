//! The HTTP API: `/v1` for programs, `/docs` for people.
//!
//! ```text
//! listener ─► measure ─► headers ─► CORS ─► rate of the address ─► /docs, /v1/openapi.json
//!                                                              └─► who calls, rate of the key ─► time ─► role ─► handler
//! ```
//!
//! A part of the API is a file with its handlers, their parameters and answers. To add one: put its paths into the router
//! of the role that they need (`router`) and into the document (`openapi::Paths`), each with `security(("key" = [role]))`
//! unless that is read. A handler that changes something takes `Caller` and writes `caller.change(…)` through
//! `VolumeStore::audit`.

mod access;
mod audit;
mod classify;
mod events;
mod forecasts;
mod incidents;
mod limits;
mod measure;
mod models;
mod openapi;
mod problem;
mod reload;
mod reports;
mod request;
mod reviews;
mod volumes;
mod workers;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower_http::cors::CorsLayer;

use crate::config::{ApiSettings, Config, WindowSettings};
use crate::feedback::KnownQueues;
use crate::mail::MailError;
use crate::metrics::Metrics;
use crate::reload::{Live, ReloadHandle};
use crate::reports::Mailer;
use crate::supervisor::Shutdown;
use crate::volumes::VolumeStore;

use super::keyring::Keyring;
use super::keys::{KeysError, KeysFile, Moment, Permission};
use super::listener::{BindError, Limits, Listener};
use super::tls::{self, TlsError};
use super::{KeyState, Serving, headers};
use limits::RateLimits;
use problem::Problem;
use workers::Workers;

/// Uploads may take long, but nobody stays for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// Uploads at a time; each holds a connection and some buffers for as long as it moves.
const MOST_UPLOADS: usize = 64;
/// How long a browser may remember what CORS allows.
const CORS_AGE: Duration = Duration::from_secs(600);
/// First and longest pause before the audit log is tried again.
const AUDIT_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_AUDIT_PAUSE: Duration = Duration::from_secs(60);
/// How often the keys file is looked at for changes to note.
const KEYS_PAUSE: Duration = Duration::from_secs(5);

/// Why the API cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("the review desk cannot be opened")]
    Desk(#[from] crate::feedback::DeskSetupError),
    #[error("incidents cannot be changed")]
    Incidents(#[source] crate::stream::OutboxError),
    #[error("reports cannot be mailed")]
    Mail(#[from] MailError),
    #[error(
        "no valid key in {path}, and others can reach {address} (api.listen): run `triaged keys create --role admin`"
    )]
    NoKey { path: String, address: SocketAddr },
}

/// What all requests share.
struct Shared {
    settings: ApiSettings,
    windows: Vec<WindowSettings>,
    store: VolumeStore,
    workers: Arc<Workers>,
    /// `None`: every local caller is an administrator.
    keyring: Option<Keyring>,
    limits: RateLimits,
    uploads: Arc<Semaphore>,
    metrics: Metrics,
    document: String,
    /// Where reviewers are served.
    desk: crate::feedback::Desk,
    /// Where those who work on incidents are served.
    incidents: crate::incidents::IncidentDesk,
    /// `None`: no mail server, or nobody to write to.
    mailer: Option<Mailer>,
    reload: ReloadHandle,
    /// Held by whoever changes the registry.
    promoting: tokio::sync::Mutex<()>,
}

/// What the API is given beside its settings.
#[derive(Debug)]
pub struct ApiParts {
    pub serving: Live<Serving>,
    /// The queues that a correction may name.
    pub queues: Arc<KnownQueues>,
    pub reload: ReloadHandle,
}

#[derive(Clone)]
struct ApiState(Arc<Shared>);

impl Deref for ApiState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// The forecast window of a name.
    fn window(&self, name: &str) -> Result<&WindowSettings, Problem> {
        self.windows.iter().find(|window| window.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.windows.iter().map(|window| &*window.name).collect();
            Problem::invalid("invalid_parameter", format!("there is no such `window`; there are {}", known.join(", ")))
        })
    }
}

/// The bound port, not yet answering.
pub struct ApiServer {
    listener: Listener,
    tls: Option<TlsAcceptor>,
    state: ApiState,
    migrate: bool,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Reads keys and certificates and binds the port; port 0 takes a free one.
    pub async fn bind(
        address: SocketAddr,
        config: &Config,
        parts: ApiParts,
        store: VolumeStore,
        metrics: Metrics,
    ) -> Result<Self, ApiError> {
        let settings = &config.api;
        let keyring = match &settings.keys_file {
            None => None,
            Some(path) => Some(open_keyring(KeysFile::at(path), address)?),
        };
        let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        let listener = Listener::bind(address, "api.listen").await?;
        let ApiParts { serving, queues, reload } = parts;
        let desk = crate::feedback::Desk::with_queues(config, store.clone(), queues)?;
        let incidents = crate::incidents::IncidentDesk::open(config, store.clone()).map_err(ApiError::Incidents)?;
        let mailer = match config.smtp.server.is_empty() || config.reports.email_to.is_empty() {
            true => None,
            false => Some(Mailer::new(&config.smtp, &config.reports.email_to)?),
        };
        let shared = Shared {
            desk,
            incidents,
            mailer,
            windows: config.forecast.windows.clone(),
            store,
            workers: Arc::new(Workers::new(serving, config.stream.workers)),
            reload,
            promoting: tokio::sync::Mutex::default(),
            keyring,
            limits: RateLimits::new(settings),
            uploads: Arc::new(Semaphore::new(MOST_UPLOADS)),
            metrics,
            document: openapi::document(),
            settings: settings.clone(),
        };
        let (address, keys) = (listener.local_addr(), shared.keyring.is_some());
        tracing::info!(%address, keys, tls = tls.is_some(), "serving the API");
        Ok(ApiServer { listener, tls, state: ApiState(Arc::new(shared)), migrate: config.clickhouse.migrate })
    }

    /// The address with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Answers until `close` is requested.
    pub async fn serve(self, close: Shutdown) -> Result<(), Infallible> {
        let ApiServer { listener, tls, state, migrate } = self;
        let limits = Limits { connections: state.settings.connections, connection_age: CONNECTION_AGE };
        let router = router(state.clone());
        tokio::select! {
            () = listener.serve(router, tls, limits, close) => {}
            never = note_keys(&state, migrate) => match never {},
        }
        Ok(())
    }
}

fn open_keyring(file: KeysFile, address: SocketAddr) -> Result<Keyring, ApiError> {
    let keyring = Keyring::open(file)?;
    let now = Moment::now();
    if keyring.keys().iter().any(|key| key.state(now) == KeyState::Valid) {
        return Ok(keyring);
    }
    let path = keyring.file().path().display().to_string();
    if !address.ip().is_loopback() {
        return Err(ApiError::NoKey { path, address });
    }
    tracing::warn!(
        path,
        "no valid key in the keys file: the API refuses everyone until `triaged keys create` makes one"
    );
    Ok(keyring)
}

fn router(state: ApiState) -> Router {
    let read = Router::new()
        .route("/v1/classify", post(classify::classify))
        .route("/v1/stats", get(volumes::stats))
        .route("/v1/queues", get(volumes::queues))
        .route("/v1/volumes", get(volumes::volumes))
        .route("/v1/forecasts", get(forecasts::forecasts))
        .route("/v1/forecasts.csv", get(forecasts::forecasts_csv))
        .route("/v1/trends", get(forecasts::trends))
        .route("/v1/events", get(events::events))
        .route("/v1/events/{id}", get(events::event))
        .route("/v1/incidents", get(incidents::incidents))
        .route("/v1/incidents/{id}", get(incidents::incident))
        .route("/v1/models", get(models::models))
        .route("/v1/reports", get(reports::report))
        .route_layer(from_fn_with_state(Permission::Read, access::require));
    let write = Router::new()
        .route("/v1/reviews", get(reviews::reviews))
        .route("/v1/reviews/queues", get(reviews::queues))
        .route("/v1/reviews/{id}/claim", post(reviews::claim))
        .route("/v1/reviews/{id}/release", post(reviews::release))
        .route("/v1/incidents/{id}", post(incidents::escalate))
        .route("/v1/incidents/{id}/acknowledge", post(incidents::acknowledge))
        .route("/v1/incidents/{id}/resolve", post(incidents::resolve))
        .route("/v1/feedback", post(reviews::feedback))
        .route("/v1/feedback/bulk", post(reviews::bulk))
        .route_layer(from_fn_with_state(Permission::Write, access::require));
    let admin = Router::new()
        .route("/v1/reports/email", post(reports::email))
        .route("/v1/audit", get(audit::audit))
        .route("/v1/models/{name}/promote", post(models::promote))
        .route("/v1/models/{name}/rollback", post(models::rollback))
        .route("/v1/reload", post(reload::reload))
        .route_layer(from_fn_with_state(Permission::Admin, access::require));
    let known_callers = read
        .merge(write)
        .merge(admin)
        .route_layer(from_fn_with_state(state.clone(), limits::within_time))
        .route_layer(from_fn_with_state(state.clone(), access::identify));
    let limited = known_callers
        .merge(openapi::routes())
        .merge(reviews::page())
        .method_not_allowed_fallback(problem::no_such_method)
        .fallback(problem::no_such_path)
        .layer(from_fn_with_state(state.clone(), limits::per_address));
    // Without it no page of another origin gets an answer, which is the default.
    let shared = match state.settings.cors_origins.is_empty() {
        true => limited,
        false => limited.layer(cors(&state.settings)),
    };
    shared.layer(from_fn(headers::add)).layer(from_fn_with_state(state.clone(), measure::measure)).with_state(state)
}

fn cors(settings: &ApiSettings) -> CorsLayer {
    let origins = settings.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .max_age(CORS_AGE)
}

/// Makes sure of the tables, and notes in the audit log which keys were made and revoked, as long as the API runs.
async fn note_keys(state: &ApiState, migrate: bool) -> Infallible {
    let Some(keyring) = &state.keyring else { return std::future::pending().await };
    let mut noted = None;
    let mut pause = AUDIT_PAUSE;
    loop {
        let keys = keyring.keys();
        if noted.as_ref() == Some(&keys) {
            tokio::time::sleep(KEYS_PAUSE).await;
            continue;
        }
        let note = async {
            state.store.prepare(migrate).await?;
            for entry in audit::of_keys(&keys) {
                state.store.audit(&entry).await?;
            }
            Ok::<(), crate::volumes::StoreError>(())
        };
        match note.await {
            Ok(()) => {
                noted = Some(keys);
                pause = AUDIT_PAUSE;
            }
            Err(error) => {
                tracing::warn!(%error, ?pause, "the audit log cannot be written yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_AUDIT_PAUSE);
            }
        }
    }
}
