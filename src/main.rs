//! Parses the command line, calls the command, and maps its error to an exit code.

use std::process::ExitCode;

use clap::Parser;
use triaged::cli::{self, Cli};

/// Batches allocate many small texts on one thread and free them on another, which jemalloc does well.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error),
    }
}
