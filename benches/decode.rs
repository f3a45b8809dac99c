//! What happens to every record before rules and models: decoding and masking; and how fast the mix is generated.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use triaged::classify::template::{Masker, template_id};
use triaged::config::{DecodeSettings, FieldNames, Format, Mask};
use triaged::decode::Decoder;
use triaged::generate::{Generator, GeneratorSettings, Timeline};
use triaged::record::Kind;

/// 2025-01-24T12:00:00Z.
const NOW: i64 = 1_737_720_000_000;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// As in config/default.toml.
fn decoder(kind: Kind) -> Decoder {
    let fields = match kind {
        Kind::Ticket => FieldNames {
            ticket_id: names(&["ticket_id", "id"]),
            title: names(&["title", "subject"]),
            text: names(&["content", "description", "body"]),
            timestamp: names(&["created_date", "created_at", "timestamp"]),
            email_address: names(&["email_address", "email"]),
            priority: names(&["priority"]),
            source: names(&["source"]),
            ..FieldNames::default()
        },
        Kind::Log => FieldNames {
            text: names(&["message", "log_message", "msg"]),
            timestamp: names(&["timestamp", "@timestamp", "time"]),
            source: names(&["source", "app", "application", "service", "host"]),
            level: names(&["level", "severity"]),
            ..FieldNames::default()
        },
    };
    let (max_record_bytes, max_json_depth, default_utc_offset) = (256 << 10, 32, 0);
    let format = if kind == Kind::Ticket { Format::Json } else { Format::Auto };
    Decoder::new(&DecodeSettings { kind, format, fields, max_record_bytes, max_json_depth, default_utc_offset })
}

const LINES: [(&str, &str); 5] = [
    (
        "json",
        r#"{"timestamp":"2025-01-24T09:07:54Z","source":"BillingSystem","level":"warn","message":"192.168.17.168 \"GET /health HTTP/1.1\" status: 400 len: 960"}"#,
    ),
    (
        "plain",
        "2025-01-24 09:07:54 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_38865 terminating",
    ),
    (
        "rfc3164",
        "<132>Jan 24 09:07:54 dc24 sshd[6267]: Failed password for root from 192.168.17.86 port 46579 ssh2, again",
    ),
    (
        "rfc5424",
        "<134>1 2025-01-24T09:07:54.132Z nas9 nginx 19425 - - 10.20.3.181 \"PUT /owa/logon.aspx HTTP/2.0\" 204 971530",
    ),
    (
        "cef",
        "CEF:0|Northwind|Gatewatch|2.1|210|Port scan detected|7|rt=1737709674132 src=192.168.17.164 dst=10.20.3.25 dpt=55949 proto=TCP act=blocked msg=Scan of 7407 ports",
    ),
];

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let logs = decoder(Kind::Log);
    for (name, line) in LINES {
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |b| b.iter(|| logs.decode(black_box(line.as_bytes()), NOW)));
    }
    let settings = GeneratorSettings {
        ticket_share: 1.0,
        broken_share: 0.0,
        timeline: Timeline::Rhythm { from_ms: NOW, records_per_day: 1e6 },
        ..GeneratorSettings::default()
    };
    let ticket = Generator::new(1, settings).next().expect("the stream is endless").value;
    let tickets = decoder(Kind::Ticket);
    group.throughput(Throughput::Bytes(ticket.len() as u64));
    group.bench_function("ticket", |b| b.iter(|| tickets.decode(black_box(&ticket), NOW)));
    group.finish();
}

fn template(c: &mut Criterion) {
    let mut group = c.benchmark_group("template");
    let masker = Masker::new(&[Mask::Number, Mask::Hex, Mask::Ip, Mask::Uuid, Mask::Email, Mask::Url]);
    let mut masked = String::new();
    for (name, line) in [
        (
            "words",
            "Data replication task for a shard did not complete because the remote server went offline during a transfer.",
        ),
        (
            "numbers",
            "PacketResponder 1 for block blk_38865049064139660 terminating, 67108864 bytes from 10.251.73.220:50010 in 82 ms",
        ),
        (
            "ids",
            "[req-52c0125b-347b-4b3a-88f4-4d87d4f024b3 113d3a99c3da401fbd62cc2caa5b96d2] 10.11.10.1 \"GET /v2\" status: 200",
        ),
    ] {
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                masker.mask_into(black_box(line), &mut masked);
                template_id(&masked, Some("BillingSystem"))
            });
        });
    }
    group.finish();
}

fn generate(c: &mut Criterion) {
    let mut group = c.benchmark_group("generate");
    group.throughput(Throughput::Elements(1));
    for (name, ticket_share) in [("logs", 0.0), ("tickets", 1.0)] {
        let mut generator = Generator::new(1, GeneratorSettings { ticket_share, ..GeneratorSettings::default() });
        group.bench_function(name, |b| b.iter(|| generator.next()));
    }
    group.finish();
}

criterion_group!(benches, decode, template, generate);
criterion_main!(benches);
