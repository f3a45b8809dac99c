use std::process::ExitCode;

use clap::Parser;
use triaged::cli;

#[derive(Parser)]
enum Command {
    Train(cli::train::TrainArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Train(args) => cli::train::run(&args),
    }
}
