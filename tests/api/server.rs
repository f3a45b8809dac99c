//! The API in this process, on a free port, over a store that a test fills; and what a caller of it needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use triaged::classify::{Classifier, Desk};
use triaged::config::Config;
use triaged::feedback::KnownQueues;
use triaged::metrics::Metrics;
use triaged::ops::{ApiParts, ApiServer, KeysFile, Permission, Serving};
use triaged::record::QueueEvent;
use triaged::reload::{Live, ReloadHandle};
use triaged::supervisor::Shutdown;
use triaged::volumes::{EventRow, ForecastRow, ForecastTotalRow, VolumeStore};

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Api {
    pub(super) address: SocketAddr,
    pub(super) store: VolumeStore,
    pub(super) metrics: Metrics,
    pub(super) runtime: Runtime,
    pub(super) folder: tempfile::TempDir,
    close: Shutdown,
    agent: ureq::Agent,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: ureq::http::HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("plain text"))
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The body as the problem document of this status.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.header("content-type")), (status, "application/problem+json"), "{}", self.body);
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()), "{problem}");
        assert!(problem["type"].is_string() && problem["title"].is_string() && problem["detail"].is_string());
        problem
    }
}

impl Api {
    /// Starts it with a configuration of the test's over the defaults, without any limit of rate, on a store in memory.
    pub(super) fn start(config: &str) -> Api {
        Api::start_with(|_| config.to_owned())
    }

    /// The same for a configuration that names files in a folder.
    pub(super) fn start_with(config: impl FnOnce(&std::path::Path) -> String) -> Api {
        let folder = tempfile::tempdir().expect("the system has a temporary folder");
        let own = config(folder.path());
        let mut text = own.clone();
        for (setting, value) in [
            ("api.listen", "\"127.0.0.1:0\""),
            ("api.key_rate", "0"),
            ("api.address_rate", "0"),
            ("volumes.store", "\"memory\""),
        ] {
            if !own.contains(setting) {
                text = format!("{setting} = {value}\n{text}");
            }
        }
        let config = Config::from_toml(&text).expect("a configuration");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let store = VolumeStore::new(&config);
        let (metrics, close) = (Metrics::new(), Shutdown::default());
        let classifier = Arc::new(Classifier::load(&config).expect("the shipped rules and models"));
        let serving = Live::new(Serving::new(&config, Desk::new(&config, "test".into(), classifier)));
        let queues = Arc::new(KnownQueues::load(&config).expect("the shipped rules and models"));
        let parts = ApiParts { serving, queues, reload: ReloadHandle::new().0 };
        let address = config.api.listen.expect("the API is on");
        let server = ApiServer::bind(address, &config, parts, store.clone(), metrics.clone());
        let server = runtime.block_on(server).expect("the API starts");
        let address = server.local_addr();
        runtime.spawn(server.serve(close.clone()));
        let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Api { address, store, metrics, runtime, folder, close, agent: agent.into() }
    }

    /// An API that needs keys, and a key of each role: read, write, admin.
    pub(super) fn with_keys(config: &str) -> (Api, [String; 3]) {
        let mut keys = Vec::new();
        let api = Api::start_with(|folder| {
            let file = KeysFile::at(&folder.join("keys.json"));
            keys = Permission::ALL
                .map(|role| file.create(role.as_str(), role, None).expect("a key").text.reveal().to_owned())
                .into();
            format!("api.keys_file = {:?}\n{config}", file.path())
        });
        (api, keys.try_into().expect("one for each role"))
    }

    pub(super) fn keys_file(&self) -> KeysFile {
        KeysFile::at(&self.folder.path().join("keys.json"))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.get_as("", path)
    }

    pub(super) fn get_as(&self, key: &str, path: &str) -> Answer {
        let mut request = self.agent.get(self.url(path));
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        answer(request.call())
    }

    pub(super) fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        answer(self.agent.post(self.url(path)).header("content-type", content_type).send(body))
    }

    pub(super) fn request(&self, request: ureq::http::Request<()>) -> Answer {
        answer(self.agent.run(request))
    }

    /// Puts events, as JSON, into the store.
    pub(super) fn insert(&self, events: &[String]) {
        let events: Vec<QueueEvent<'_>> =
            events.iter().map(|event| serde_json::from_str(event).expect("one")).collect();
        let rows: Vec<EventRow<'_>> = events.iter().map(|event| EventRow::of(event).expect("a row")).collect();
        self.runtime.block_on(self.store.insert_events(&rows)).expect("the store takes them");
    }

    /// Puts a forecast of two steps for each queue into the window `hours`.
    pub(super) fn insert_forecast(&self, starts_at: u32, queues: &[&str]) {
        let made_at = i64::from(starts_at) * 1000 + 20_000;
        let total = |queue: &&str| ForecastTotalRow {
            window: "hours".to_owned(),
            queue: (*queue).to_owned(),
            starts_at,
            made_at,
            steps: 2,
            bucket_seconds: 3600,
            mean: 12.0,
            lower80: 8.0,
            upper80: 16.0,
            lower95: 6.0,
            upper95: 20.0,
            probability_of_increase: 0.9,
            trend: 3,
            method: "mstl".to_owned(),
            scale: 1.0,
            backtest_mase: 0.75,
            backtest_coverage95: f64::NAN,
        };
        let step = |queue: &str, number: u32| ForecastRow {
            window: "hours".to_owned(),
            queue: queue.to_owned(),
            starts_at,
            made_at,
            at: starts_at + number * 3600,
            mean: 6.0,
            lower80: 4.0,
            upper80: 8.0,
            lower95: 3.0,
            upper95: 10.0,
            lower99: 2.0,
            upper99: 12.0,
        };
        let totals: Vec<ForecastTotalRow> = queues.iter().map(total).collect();
        let steps: Vec<ForecastRow> = queues.iter().flat_map(|queue| [step(queue, 0), step(queue, 1)]).collect();
        self.runtime.block_on(self.store.insert_forecasts(&totals, &steps)).expect("the store takes them");
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.close.request();
    }
}

#[track_caller]
pub(super) fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = result.expect("the API answers");
    let body = response.body_mut().with_config().limit(1 << 30).read_to_string().expect("the body is text");
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
}
