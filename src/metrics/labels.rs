//! Values of labels, as closed sets: a label that anybody could fill would grow without bound.

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Event,
    Escalation,
    DeadLetter,
    /// A rule said so.
    Dropped,
    /// It ends here, in the volumes.
    Stored,
}

impl Outcome {
    pub const ALL: [Outcome; 5] =
        [Outcome::Event, Outcome::Escalation, Outcome::DeadLetter, Outcome::Dropped, Outcome::Stored];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Event => "event",
            Outcome::Escalation => "escalation",
            Outcome::DeadLetter => "dead_letter",
            Outcome::Dropped => "dropped",
            Outcome::Stored => "stored",
        }
    }
}

/// A part of the way whose time is measured, each once a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageName {
    Decode,
    Rules,
    Cache,
    Model,
    Decide,
    /// The stage as a whole: all of the above and building the outputs.
    Process,
    /// From the first output handed to the producer to the last acknowledgement.
    Publish,
    Commit,
    /// One insert into the volumes, with all its attempts.
    Insert,
    /// The forecasts of all series of a window.
    Forecast,
    /// A batch of escalations in the encoder.
    Encoder,
    /// What the encoder left open, in the LLM.
    Llm,
}

impl StageName {
    pub const ALL: [StageName; 12] = [
        StageName::Decode,
        StageName::Rules,
        StageName::Cache,
        StageName::Model,
        StageName::Decide,
        StageName::Process,
        StageName::Publish,
        StageName::Commit,
        StageName::Insert,
        StageName::Forecast,
        StageName::Encoder,
        StageName::Llm,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            StageName::Decode => "decode",
            StageName::Rules => "rules",
            StageName::Cache => "cache",
            StageName::Model => "model",
            StageName::Decide => "decide",
            StageName::Process => "process",
            StageName::Publish => "publish",
            StageName::Commit => "commit",
            StageName::Insert => "insert",
            StageName::Forecast => "forecast",
            StageName::Encoder => "encoder",
            StageName::Llm => "llm",
        }
    }
}

/// What the template cache answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    Hit,
    Miss,
    /// A hit that was classified again, with the same verdict.
    RecheckAgree,
    RecheckDisagree,
}

impl CacheResult {
    pub const ALL: [CacheResult; 4] =
        [CacheResult::Hit, CacheResult::Miss, CacheResult::RecheckAgree, CacheResult::RecheckDisagree];

    pub fn as_str(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Miss => "miss",
            CacheResult::RecheckAgree => "recheck_agree",
            CacheResult::RecheckDisagree => "recheck_disagree",
        }
    }
}
