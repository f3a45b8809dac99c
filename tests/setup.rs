//! A configuration of the daemon for tests: small batches and short waits, so that a short test sees many batches,
//! commits and rebalances.

use std::collections::BTreeMap;

use crate::peers::daemon::Daemon;

/// Settings by dotted name, each with its value as TOML.
#[derive(Clone)]
pub(crate) struct Setup(BTreeMap<String, String>);

impl Setup {
    pub(crate) fn new(bootstrap: &str, delivery: &str) -> Setup {
        let mut setup = Setup(BTreeMap::new());
        for (name, value) in [
            ("kafka.brokers", bootstrap),
            ("kafka.instance", "one"),
            ("kafka.delivery", delivery),
            ("kafka.properties.\"heartbeat.interval.ms\"", "300"),
            ("kafka.properties.\"reconnect.backoff.max.ms\"", "500"),
            ("stream.batch_age", "20ms"),
            ("stream.commit_interval", "50ms"),
            ("stream.retry_backoff_max", "500ms"),
            ("output.include_text", "always"),
            ("log.filter", "triaged=debug,info"),
            // Several daemons run at a time.
            ("api.listen", ""),
        ] {
            setup = setup.with(name, &format!("'{value}'"));
        }
        setup.with("stream.batch_records", "200").with("output.escalate", "true").with("stream.workers", "2")
    }

    /// Sets or replaces a setting; `value` is TOML.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Setup {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn instance(self, name: &str) -> Setup {
        self.with("kafka.instance", &format!("'{name}'"))
    }

    /// A static member of its group: one that dies is replaced by its successor, not waited for. The test broker needs
    /// it wherever the daemon is killed, for it never gives up a member that is gone.
    pub(crate) fn static_member(self) -> Setup {
        self.with("kafka.properties.\"group.instance.id\"", "'one'")
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::start(&self.toml())
    }

    pub(crate) fn start_ready(&self) -> Daemon {
        Daemon::start_ready(&self.toml())
    }

    /// Writes the configuration file, for commands other than `run`.
    pub(crate) fn write(&self, path: &std::path::Path) {
        std::fs::write(path, self.toml()).expect("the file can be written");
    }

    pub(crate) fn toml(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name} = {value}\n")).collect()
    }
}

/// The consumer group of the classify role under the default prefix.
pub(crate) const GROUP: &str = "triaged-classify";

/// A seed that differs from run to run, printed so that a failure can be repeated with `TRIAGED_TEST_SEED`.
pub(crate) fn seed(test: &str) -> u64 {
    let given =
        std::env::var("TRIAGED_TEST_SEED").ok().map(|text| text.parse().expect("TRIAGED_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
        u64::from(since.subsec_nanos()) ^ u64::from(std::process::id())
    });
    eprintln!("{test}: TRIAGED_TEST_SEED={seed}");
    seed
}
