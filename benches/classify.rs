//! The template cache by itself, and the classify stage as a whole without Kafka: a batch of log lines in, serialised
//! events and their headers out.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use triaged::classify::{Answer, Classifier, ClassifyStage, Destinations, Generation, TemplateCache};
use triaged::config::Config;
use triaged::generate::{Generator, GeneratorSettings, Timeline};
use triaged::metrics::Metrics;
use triaged::reload::Live;
use triaged::stream::{Batch, Outputs, Partition, Stage, Topics};

/// Lines of a batch, as many as the daemon takes by default.
const BATCH: usize = 4096;
/// Templates of a busy installation, and a cache that holds them all or a tenth.
const TEMPLATES: u64 = 20_000;

fn cache(c: &mut Criterion) {
    let mut group = c.benchmark_group("cache");
    group.throughput(Throughput::Elements(TEMPLATES));
    for (name, capacity) in [("hits", 65_536), ("mostly misses", 2_000)] {
        let cache = TemplateCache::new(capacity, 0.0);
        let answer = Arc::new(Answer { ranked: vec![(0, 0.9), (1, 0.1)].into() });
        group.bench_function(name, |bench| {
            bench.iter(|| {
                for number in 0..TEMPLATES {
                    // Template ids are hashes: spread over all bits.
                    let template = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    if black_box(cache.get(template)).is_none() {
                        cache.insert(template, Arc::clone(&answer));
                    }
                }
            });
        });
    }
    group.finish();
}

fn stage(c: &mut Criterion) {
    let config = Config::from_toml("").expect("the defaults are a configuration");
    let classifier = Arc::new(Classifier::load(&config).expect("what is built in can be loaded"));
    let logs = config.inputs.iter().position(|input| &*input.topic == "logs").expect("a default input");
    let settings = GeneratorSettings {
        ticket_share: 0.0,
        broken_share: 0.0,
        timeline: Timeline::Rhythm { from_ms: 1_750_000_000_000, records_per_day: 10_000_000.0 },
        ..GeneratorSettings::default()
    };
    let mut batch = Batch::new(config.inputs.iter().map(|input| Arc::clone(&input.topic)).collect());
    for (offset, record) in Generator::new(7, settings).take(BATCH).enumerate() {
        let place = Partition { input: logs, partition: 0 };
        batch.push(place, offset as i64, record.occurred_at, None, &record.value, std::iter::empty());
    }
    let metrics = Metrics::new();
    let destinations = Destinations::new(&config, &Topics::new(&config.output.dead_letters));
    let generation = Generation::new(&config, "bench".into(), classifier, destinations);
    let mut stage = ClassifyStage::new(Live::new(generation), &metrics);
    let mut outputs = Outputs::new(1 << 20);
    let mut group = c.benchmark_group("stage");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("log lines, cache warm", |bench| {
        bench.iter(|| {
            outputs.reset(batch.len());
            stage.process(&batch, &mut outputs).expect("the stage does not fail");
            black_box(&outputs);
        });
    });
    group.finish();
}

criterion_group!(benches, cache, stage);
criterion_main!(benches);
