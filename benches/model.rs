//! The fast model: a 200-byte log line and a 2 KB ticket, features included, in batches of 256 records.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use triaged::config::DeviceKind;
use triaged::model::{FastModel, Scratch};
use triaged::record::{LogLine, Record, Ticket};

const BATCH: usize = 256;

const LINE_BYTES: usize = 200;
const TICKET_BYTES: usize = 2048;

const LINE_WORDS: &str = "nova.osapi_compute.wsgi.server req 54fadb412c4e40cdbaed9335e4c35a9e 10.11.10.1 GET servers detail \
    HTTP status 200 len 1893 time 0.2426732 user 4373 logged in backup completed successfully disk RAID failure admin \
    privileges escalated without authorization shard synchronization failed memory usage exceeded the configured limit";

const TICKET_WORDS: &str = "Dear CERT team, I am reporting a suspicious incident that occurred this morning while I was \
    preparing a report. Upon launching our internal platform I received an unexpected message claiming that a critical \
    security update was required to access my data. The sender asked me to confirm my credentials on an external page. \
    Several colleagues in the finance unit received the same e-mail, and one of them opened the attachment. Could you \
    please check the headers, block the domain, and tell us whether the affected laptops must be isolated and scanned? \
    We have collected the relevant logs, the vulnerability report, the renewal quote and the contract reference. Regards";

/// A text of about `bytes` bytes, a different one for each `number`: words of `source` from a moving place.
fn text(source: &str, bytes: usize, number: usize) -> String {
    let words: Vec<&str> = source.split_whitespace().collect();
    let mut text = format!("{number}");
    let mut at = number;
    while text.len() < bytes {
        text.push(' ');
        text.push_str(words[at % words.len()]);
        // A step that shares no factor with most lengths visits all words in another order for each number.
        at += 1 + number % 7;
    }
    text.truncate(bytes);
    text
}

fn fast_model(c: &mut Criterion) {
    let lines: Vec<Record<'_>> = (0..BATCH)
        .map(|number| {
            let text = text(LINE_WORDS, LINE_BYTES, number).into();
            Record::Log(LogLine { text, source: Some("ModernCRM".into()), level: None, occurred_at: 0 })
        })
        .collect();
    let tickets: Vec<Record<'_>> = (0..BATCH)
        .map(|number| {
            Record::Ticket(Ticket {
                ticket_id: None,
                text: text(TICKET_WORDS, TICKET_BYTES, number).into(),
                title_len: 0,
                email_address: Some("someone@example.org".into()),
                priority: None,
                source: None,
                occurred_at: 0,
            })
        })
        .collect();
    let mut group = c.benchmark_group("fast_model");
    group.measurement_time(Duration::from_secs(3));
    for (name, spec, records) in
        [("log_200_bytes", "builtin:logs", &lines), ("ticket_2_kb", "builtin:tickets", &tickets)]
    {
        let model = FastModel::load(spec, DeviceKind::Flex).expect("a shipped package");
        let mut scratch = Scratch::new();
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for record in records {
                    black_box(model.classify(black_box(record), &mut scratch).confidence);
                }
            });
        });
        // What the cache of words saves: each record is classified by a thread that has met no word yet.
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name}_cold"), |b| {
            b.iter_batched_ref(
                Scratch::new,
                |scratch| black_box(model.classify(&records[0], scratch).confidence),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, fast_model);
criterion_main!(benches);
