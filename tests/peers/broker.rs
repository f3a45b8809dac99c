//! A Kafka broker (noida-db) in a process of its own, on a free port, with a data folder that lives as long as the
//! value. It keeps everything in memory and writes it down every second or two and when it is told to stop. A broker
//! killed outright would forget what it had acknowledged, and so may one that is stopped while it writes, so `stop` is
//! orderly and who stops it under load calls `wait_written` first.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::client::{self, Isolation, Reader, Watch};
use super::{fetch, free_port, signal, tail, wait_until};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);
/// Longer than the time between two of the broker's writes.
const QUIET: Duration = Duration::from_secs(4);
const WRITTEN: Duration = Duration::from_secs(60);

pub(crate) struct Broker {
    port: u16,
    data: tempfile::TempDir,
    child: Option<Child>,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        let data = tempfile::tempdir().expect("the system has a temporary folder");
        let mut broker = Broker { port: free_port(), data, child: None };
        broker.spawn();
        broker
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> =
            client::config(&self.bootstrap()).create().expect("the client's settings are right");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let created = client::block_on(admin.create_topics([&topic], &AdminOptions::new()));
        for result in created.expect("the broker answers") {
            result.expect("the topic is new");
        }
    }

    pub(crate) fn delete_topics(&self, names: &[&str]) {
        let admin: AdminClient<DefaultClientContext> =
            client::config(&self.bootstrap()).create().expect("the client's settings are right");
        let deleted = client::block_on(admin.delete_topics(names, &AdminOptions::new()));
        for result in deleted.expect("the broker answers") {
            result.expect("the topic is there");
        }
    }

    /// Publishes all records and waits until all are acknowledged.
    pub(crate) fn produce<K, V>(&self, topic: &str, records: impl IntoIterator<Item = (K, V)>)
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        client::produce(&self.bootstrap(), topic, records);
    }

    /// Reads a topic from its start.
    pub(crate) fn reader(&self, topic: &str, isolation: Isolation) -> Reader {
        Reader::open(&self.bootstrap(), topic, isolation)
    }

    /// Follows how much has been written to a topic.
    pub(crate) fn watch(&self, topic: &str) -> Watch {
        Watch::open(&self.bootstrap(), topic, "test-watch")
    }

    /// Follows how far a group has committed a topic.
    pub(crate) fn watch_group(&self, topic: &str, group: &str) -> Watch {
        Watch::open(&self.bootstrap(), topic, group)
    }

    /// Waits until nothing has been written down for a while: all that was acknowledged is then on disk. Nobody may
    /// publish or commit meanwhile.
    pub(crate) fn wait_written(&self) {
        let written = || fs::metadata(self.data.path().join("data/kafka.json")).and_then(|file| file.modified()).ok();
        let mut last = (written(), Instant::now());
        wait_until("the broker has written its data", WRITTEN, || {
            let now = written();
            if now != last.0 {
                last = (now, Instant::now());
            }
            last.1.elapsed() > QUIET
        });
    }

    /// Stops the broker in order; its data stays.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), "TERM");
        wait_until("the broker stops", STOP, || child.try_wait().expect("the child is ours").is_some());
    }

    /// Starts it again on the same port and data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.spawn();
    }

    fn spawn(&mut self) {
        let log = File::create(self.log()).expect("the data folder can be written");
        let child = Command::new(fetch::broker_binary())
            .args(["start", "--only", "kafka", "--kafka-port", &self.port.to_string()])
            .arg("--data-dir")
            .arg(self.data.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("the broker's binary starts");
        self.child = Some(child);
        let consumer: BaseConsumer =
            client::config(&self.bootstrap()).create().expect("the client's settings are right");
        wait_until("the broker answers", START, || {
            let child = self.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait().expect("the child is ours") {
                panic!("the broker ended with {status}:\n{}", tail(&self.data.path().join("log"), 20));
            }
            consumer.fetch_metadata(None, Duration::from_millis(500)).is_ok()
        });
    }

    fn log(&self) -> PathBuf {
        self.data.path().join("log")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // No waiting for an orderly stop: the data goes with the value.
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
