//! Tokens a second of the encoder.
//!
//!     cargo bench --bench encoder -- FOLDER --table         a table of the usual shapes
//!
//! Without `--table` it reads lines `WHAT THREADS BATCH LENGTH SECONDS` and answers each with a number, so that another
//! program (`peers/encoder.py`) can measure by turns. `WHAT` is f32, int8, or burn: the plain Burn module on flex.

#![allow(clippy::print_stdout, reason = "a bench prints its result")]

use std::collections::HashMap;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use triaged::config::DeviceKind;
use triaged::model::{Cpu, Encoder, EncoderModule, EncoderPrecision, InstructionSet};

const SHAPES: [(usize, usize); 6] = [(1, 16), (1, 64), (1, 256), (8, 64), (16, 128), (32, 32)];

const NAMES: [&str; 3] = ["f32", "int8", "burn"];

struct Bench {
    encoders: [Encoder; 2],
    module: EncoderModule,
    pools: HashMap<usize, rayon::ThreadPool>,
}

impl Bench {
    fn tokens_per_second(&mut self, what: usize, threads: usize, batch: usize, length: usize, time: Duration) -> f64 {
        let embed = |sequences: &[Vec<u32>]| match self.encoders.get(what) {
            Some(encoder) => encoder.embed_tokens(sequences).expect("good tokens"),
            None => self.module.embed_tokens(sequences),
        };
        let sequences: Vec<Vec<u32>> = (0..batch)
            .map(|row| (0..length).map(|at| 1000 + ((row * 7919 + at * 104_729) % 28_000) as u32).collect())
            .collect();
        let pool = self
            .pools
            .entry(threads)
            .or_insert_with(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"));
        pool.install(|| {
            embed(&sequences);
            let mut rounds = 0;
            let start = Instant::now();
            while start.elapsed() < time {
                embed(&sequences);
                rounds += 1;
            }
            (rounds * batch * length) as f64 / start.elapsed().as_secs_f64()
        })
    }
}

fn main() {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        println!("skipped: name the folder of a model, such as `cargo bench --bench encoder -- FOLDER --table`");
        return;
    };
    let mode = arguments.next().unwrap_or_default();
    let cpu = match arguments.next() {
        Some(name) => InstructionSet::ALL
            .into_iter()
            .find(|set| format!("{set:?}").eq_ignore_ascii_case(&name))
            .and_then(Cpu::with)
            .expect("instructions of this processor"),
        None => Cpu::best(),
    };
    let load = |precision| Encoder::load_on(&folder, precision, cpu).expect("a good folder");
    let mut bench = Bench {
        encoders: [load(EncoderPrecision::F32), load(EncoderPrecision::Int8)],
        module: EncoderModule::load(&folder, DeviceKind::Flex).expect("a good folder"),
        pools: HashMap::new(),
    };
    if mode == "--embed" {
        let texts: Vec<String> = stdin().lock().lines().collect::<Result<_, _>>().expect("texts");
        for encoder in &bench.encoders {
            for row in encoder.embed(&texts).expect("good texts").chunks(encoder.dimension()) {
                println!("{}", row.iter().map(f32::to_string).collect::<Vec<_>>().join(" "));
            }
        }
        return;
    }
    if mode == "--table" {
        println!("{:?}", cpu.instruction_set());
        for (what, name) in NAMES.into_iter().enumerate() {
            for threads in [1, 2] {
                print!("{name:5} {threads}");
                for (batch, length) in SHAPES {
                    let speed = bench.tokens_per_second(what, threads, batch, length, Duration::from_millis(400));
                    print!("  {batch}×{length} {speed:8.0}");
                }
                println!();
            }
        }
        return;
    }
    for line in stdin().lock().lines() {
        let line = line.expect("a line");
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields[at].parse::<usize>().expect("a number");
        let time = Duration::from_secs_f64(fields[4].parse().expect("seconds"));
        let what = NAMES.iter().position(|name| *name == fields[0]).expect("f32, int8 or burn");
        let speed = bench.tokens_per_second(what, number(1), number(2), number(3), time);
        println!("{speed}");
        stdout().flush().expect("standard output");
    }
}
