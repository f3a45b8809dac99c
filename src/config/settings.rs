//! The checked settings, as the rest of the daemon uses them. Plain data: nothing here can be wrong any more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Kind, Priority};

use super::change::Source;
use super::llm::LlmSettings;
use super::secret::Secret;

/// Everything that the daemon is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    pub kafka: KafkaSettings,
    pub stream: StreamSettings,
    pub inputs: Vec<InputSettings>,
    pub rules: RuleSettings,
    pub model: ModelSettings,
    pub cache: CacheSettings,
    pub decide: DecideSettings,
    pub output: OutputSettings,
    pub volumes: VolumeSettings,
    pub clickhouse: ClickHouseSettings,
    pub tally: TallySettings,
    pub forecast: ForecastSettings,
    pub escalate: EscalateSettings,
    pub drift: DriftSettings,
    pub feedback: FeedbackSettings,
    pub incidents: IncidentSettings,
    pub reports: ReportSettings,
    pub smtp: SmtpSettings,
    pub retrain: RetrainSettings,
    pub ops: OpsSettings,
    pub api: ApiSettings,
    pub reload: ReloadSettings,
    pub log: LogSettings,
    /// As it was written, for telling what another one changes.
    pub(super) source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Debug, Clone)]
pub struct KafkaSettings {
    pub brokers: String,
    pub group_prefix: String,
    pub instance: String,
    pub delivery: Delivery,
    /// Passed to librdkafka as they are; none of them is one that delivery depends on.
    pub properties: BTreeMap<String, Secret>,
    pub oauth_token_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct StreamSettings {
    pub batch_records: usize,
    pub batch_bytes: usize,
    pub batch_age: Duration,
    pub max_in_flight_bytes: usize,
    pub max_prefetch_bytes: usize,
    pub commit_interval: Duration,
    pub workers: usize,
    pub drain_deadline: Duration,
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
}

/// How the values of a topic are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON when the value starts with `{`, else CEF or syslog when it looks like it, else plain text.
    Auto,
    Json,
    Text,
    Syslog,
    Cef,
}

#[derive(Debug, Clone)]
pub struct InputSettings {
    pub topic: Arc<str>,
    pub decode: DecodeSettings,
}

/// How one topic's values become records.
#[derive(Debug, Clone)]
pub struct DecodeSettings {
    pub kind: Kind,
    pub format: Format,
    pub fields: FieldNames,
    pub max_record_bytes: usize,
    pub max_json_depth: usize,
    /// Seconds east of UTC for times that name no zone.
    pub default_utc_offset: i32,
}

/// JSON field names by meaning, each tried in order; a dot descends into an object. A meaning that does not apply to
/// the kind is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldNames {
    pub ticket_id: Vec<String>,
    pub title: Vec<String>,
    pub text: Vec<String>,
    pub timestamp: Vec<String>,
    pub email_address: Vec<String>,
    pub priority: Vec<String>,
    pub source: Vec<String>,
    pub level: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct RuleSettings {
    /// Paths, or `builtin:NAME`.
    pub files: Vec<String>,
}

/// The device that runs Burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Flex,
    NdArray,
}

#[derive(Debug, Clone)]
pub struct ModelSettings {
    pub device: DeviceKind,
    /// A folder, `builtin:NAME` or `registry:NAME`; `None`: this kind has no model.
    pub ticket: Option<String>,
    pub log: Option<String>,
    /// The folder of trained versions that `registry:NAME` looks in.
    pub registry: Option<PathBuf>,
    pub challenger: ChallengerSettings,
}

/// What a challenger may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengerMode {
    /// It is asked about every record and decides none.
    Shadow,
    /// It decides a share of the keys.
    Split,
}

impl ChallengerMode {
    pub fn as_str(self) -> &'static str {
        match self {
            ChallengerMode::Shadow => "shadow",
            ChallengerMode::Split => "split",
        }
    }
}

/// Models that are tried beside those that decide.
#[derive(Debug, Clone)]
pub struct ChallengerSettings {
    /// As in `ModelSettings`; `None`: this kind has no challenger.
    pub ticket: Option<String>,
    pub log: Option<String>,
    pub mode: ChallengerMode,
    /// Share of the keys that the challenger decides in a split, 0 to 1.
    pub share: f64,
}

/// What the template cache masks before lines are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mask {
    Number,
    Hex,
    Ip,
    Uuid,
    Path,
    Email,
    Url,
    Quoted,
}

#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// Entries; 0 switches the cache off.
    pub capacity: usize,
    /// 0 to 1.
    pub recheck_share: f64,
    pub masks: Vec<Mask>,
}

#[derive(Debug, Clone)]
pub struct DecideSettings {
    pub auto_route: f32,
    pub human_verify: f32,
    pub fallback_queue: Arc<str>,
    pub default_priority: Priority,
    /// Category to priority.
    pub priorities: BTreeMap<String, Priority>,
    /// Category to queue; a category that is not listed is its own queue.
    pub queues: BTreeMap<String, Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncludeText {
    Never,
    Unsure,
    Always,
}

#[derive(Debug, Clone)]
pub struct OutputSettings {
    pub events: String,
    pub escalations: String,
    pub dead_letters: String,
    pub escalate: bool,
    pub include_text: IncludeText,
    pub alternatives: usize,
    /// Reasons that an event lists; 0: none.
    pub explain: usize,
    pub indicators: bool,
    /// Queue to topic; a queue that is not listed goes to `events`.
    pub topics: BTreeMap<String, String>,
    pub forecasts: String,
    pub anomalies: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    ClickHouse,
    Memory,
}

#[derive(Debug, Clone)]
pub struct VolumeSettings {
    pub store: StoreKind,
    pub memory_sets: usize,
}

#[derive(Debug, Clone)]
pub struct ClickHouseSettings {
    pub url: String,
    pub database: String,
    pub user: String,
    pub password: Option<Secret>,
    /// `None`: a single server.
    pub cluster: Option<String>,
    pub migrate: bool,
    /// Zero: for ever.
    pub events_retention: Duration,
    /// Zero: for ever.
    pub volumes_retention: Duration,
    pub insert_timeout: Duration,
    pub query_timeout: Duration,
    pub retry_deadline: Duration,
}

#[derive(Debug, Clone)]
pub struct TallySettings {
    pub batch_records: usize,
    pub batch_bytes: usize,
    pub batch_age: Duration,
    pub workers: usize,
}

impl TallySettings {
    /// The engine's settings for this role: its own batches, and room for those under way.
    pub fn stream_settings(&self, stream: &StreamSettings) -> StreamSettings {
        StreamSettings {
            batch_records: self.batch_records,
            batch_bytes: self.batch_bytes,
            batch_age: self.batch_age,
            max_in_flight_bytes: stream.max_in_flight_bytes.max(self.batch_bytes * (self.workers + 1)),
            // Else the next batch would have to be fetched while this one is inserted, a part at a time.
            max_prefetch_bytes: stream.max_prefetch_bytes.max(2 * self.batch_bytes),
            workers: self.workers,
            ..stream.clone()
        }
    }
}

#[derive(Debug, Clone)]
pub struct ForecastSettings {
    pub settle: Duration,
    pub anomaly_cooldown: usize,
    pub windows: Vec<WindowSettings>,
}

/// How an encoder computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// int8 where the processor has instructions for it, else f32.
    Auto,
    F32,
    Int8,
}

#[derive(Debug, Clone)]
pub struct EscalateSettings {
    pub batch_records: usize,
    pub batch_age: Duration,
    pub workers: usize,
    /// The encoder's folder; `None`: that tier is left out.
    pub encoder: Option<String>,
    pub precision: Precision,
    /// Folders of the heads that were trained over the encoder.
    pub ticket: Option<String>,
    pub log: Option<String>,
    pub llm: LlmSettings,
}

impl EscalateSettings {
    /// The engine's settings for this role: small batches, as each record costs much.
    pub fn stream_settings(&self, stream: &StreamSettings) -> StreamSettings {
        StreamSettings {
            batch_records: self.batch_records,
            batch_age: self.batch_age,
            workers: self.workers,
            ..stream.clone()
        }
    }
}

/// One kind of rolling forecast. `lookback`, `horizon`, `every` and the seasons are multiples of `bucket`.
#[derive(Debug, Clone)]
pub struct WindowSettings {
    pub name: String,
    pub bucket: Duration,
    pub lookback: Duration,
    pub horizon: Duration,
    pub seasons: Vec<Duration>,
    pub every: Duration,
}

impl WindowSettings {
    pub fn bucket_seconds(&self) -> i64 {
        self.bucket.as_secs() as i64
    }

    /// Buckets of the horizon.
    pub fn steps(&self) -> usize {
        (self.horizon.as_secs() / self.bucket.as_secs()) as usize
    }

    /// Buckets of the lookback.
    pub fn history(&self) -> usize {
        (self.lookback.as_secs() / self.bucket.as_secs()) as usize
    }

    /// Lengths of the seasons in buckets.
    pub fn season_lengths(&self) -> Vec<usize> {
        self.seasons.iter().map(|season| (season.as_secs() / self.bucket.as_secs()) as usize).collect()
    }
}

#[derive(Debug, Clone)]
pub struct DriftSettings {
    /// Events.
    pub window: usize,
    /// Population stability index above which it is announced; 0: never.
    pub label_shift: f64,
    /// 0: never.
    pub confidence_drop: f64,
    pub topic: String,
    /// Between two announcements of one shift that lasts.
    pub cooldown: Duration,
}

#[derive(Debug, Clone)]
pub struct FeedbackSettings {
    pub topic: String,
    /// Whether a correction may name a queue that nothing here knows.
    pub unknown_queues: bool,
    pub claim_lease: Duration,
    pub send_deadline: Duration,
}

/// What events of one incident have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correlation {
    Template,
    Url,
    Ip,
    Domain,
    Email,
    Cve,
    Hash,
}

#[derive(Debug, Clone)]
pub struct IncidentSettings {
    pub topic: String,
    pub updates: String,
    /// The lowest priority that opens one.
    pub from: Priority,
    pub window: Duration,
    pub longest: Duration,
    pub max_event_age: Duration,
    /// Zero: never.
    pub auto_resolve: Duration,
    pub correlate_by: Vec<Correlation>,
    /// Values of indicators that say nothing.
    pub ignore: Vec<String>,
    pub batch_records: usize,
    pub batch_age: Duration,
    pub send_deadline: Duration,
    /// By priority, the lowest first.
    pub sla: [SlaSettings; 4],
    /// Places in `channels`, here and below.
    pub notify: Vec<usize>,
    /// The soonest first.
    pub escalation: Vec<EscalationSettings>,
    pub channels: Vec<ChannelSettings>,
}

impl IncidentSettings {
    /// The engine's settings for this role: small batches, one after the other.
    pub fn stream_settings(&self, stream: &StreamSettings) -> StreamSettings {
        StreamSettings { batch_records: self.batch_records, batch_age: self.batch_age, workers: 1, ..stream.clone() }
    }
}

/// Until when somebody must act, from the opening on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlaSettings {
    pub acknowledge: Duration,
    pub resolve: Duration,
}

/// Who is told as well when nobody has acknowledged an incident for so long.
#[derive(Debug, Clone)]
pub struct EscalationSettings {
    pub after: Duration,
    pub notify: Vec<usize>,
}

#[derive(Debug, Clone)]
pub struct ChannelSettings {
    pub name: String,
    pub target: ChannelTarget,
    /// Incidents of lower severity are not told.
    pub from: Priority,
    /// Between two messages about one incident.
    pub cooldown: Duration,
    pub per_minute: u32,
    pub attempts: u32,
    pub timeout: Duration,
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    /// `None`: the channel's own.
    pub template: Option<Template>,
    /// Of e-mails.
    pub subject: Option<Template>,
}

#[derive(Debug, Clone)]
pub enum ChannelTarget {
    Webhook { url: Secret, secret: Secret },
    Slack { url: Secret },
    Email { to: Vec<String> },
}

/// A message with places for what is known of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<TemplatePiece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePiece {
    Text(String),
    Field(TemplateField),
}

/// What a template can name. None of it is the text of a ticket or line; `CorrelatedBy` repeats parts of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateField {
    IncidentId,
    EventId,
    Status,
    Severity,
    Queue,
    Category,
    Events,
    Changes,
    Step,
    OpenedAt,
    FirstSeen,
    LastSeen,
    AcknowledgeBy,
    ResolveBy,
    By,
    CorrelatedBy,
}

/// When a report is made: at this minute of each day, or of one day of the week. UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// 0 is Monday; `None`: every day.
    pub weekday: Option<u8>,
    pub minute: u16,
}

#[derive(Debug, Clone)]
pub struct ReportSettings {
    /// Empty: no report is sent.
    pub email_to: Vec<String>,
    pub schedule: Schedule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Begins in the clear and refuses to go on without encryption.
    StartTls,
    Tls,
    None,
}

#[derive(Debug, Clone)]
pub struct SmtpSettings {
    /// Empty: no mail.
    pub server: String,
    pub port: u16,
    pub tls: SmtpTls,
    /// Empty: no authentication.
    pub user: String,
    pub password: Option<Secret>,
    pub from: String,
}

#[derive(Debug, Clone)]
pub struct RetrainSettings {
    /// `None`: never by itself.
    pub schedule: Option<Schedule>,
    /// Labelled rows by kind; `None`: this kind is not trained.
    pub ticket: Option<PathBuf>,
    pub log: Option<PathBuf>,
    /// How far back feedback is read.
    pub since: Duration,
    /// Work of the search for settings.
    pub time_budget: Duration,
}

#[derive(Debug, Clone)]
pub struct OpsSettings {
    pub listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub listen: Option<std::net::SocketAddr>,
    /// `None`: no keys, every local caller is an administrator.
    pub keys_file: Option<PathBuf>,
    pub key_rate: RateSettings,
    pub address_rate: RateSettings,
    pub connections: usize,
    /// Bytes of a JSON body.
    pub max_body: usize,
    /// Bytes of an upload that is worked through line by line.
    pub max_upload: usize,
    pub request_timeout: Duration,
    /// Origins whose pages may call; empty: none.
    pub cors_origins: Vec<String>,
    /// `None`: plain HTTP.
    pub tls: Option<TlsSettings>,
}

/// How many requests are answered in the long run and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSettings {
    /// Requests a second; 0: no limit.
    pub per_second: u32,
    pub burst: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates that clients must show; `None`: they need none.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct ReloadSettings {
    /// How often the files are looked at; `None`: never.
    pub watch: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone)]
pub struct LogSettings {
    pub filter: String,
    pub format: LogFormat,
}
