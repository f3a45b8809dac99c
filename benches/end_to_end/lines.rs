//! The log lines of the bench: the generator's mix of plain text, JSON, syslog and CEF, the same for the same seed.

use triaged::generate::{Generator, GeneratorSettings, Timeline};

pub(crate) fn mix(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let settings = GeneratorSettings {
        ticket_share: 0.0,
        broken_share: 0.0,
        // A fixed past, so that two runs send the same bytes.
        timeline: Timeline::Rhythm { from_ms: 1_750_000_000_000, records_per_day: 10_000_000.0 },
        ..GeneratorSettings::default()
    };
    Generator::new(seed, settings).map(|record| record.value)
}
