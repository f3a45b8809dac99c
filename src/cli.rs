//! The command line: what can be asked of the program, and who answers. One file in `cli/` for each command.
//!
//! Results go to the standard output, logs and errors to the standard error.

mod check;
mod classify;
mod compare;
mod demo;
mod evaluate;
mod forecast;
mod generate;
mod health;
mod keys;
mod migrate;
mod model;
mod output;
mod replay;
mod report;
mod rows;
mod run;
mod train;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::{Config, ConfigFaults, LogFormat};
use crate::stream::{self, PropertyFaults};
use crate::telemetry;

pub(crate) use output::{Format, write_json};

/// Something failed.
const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is wrong; clap itself exits with this too.
const EXIT_USAGE: u8 = 2;

/// What `--version` tells for a bug report; packagers name the commit in `TRIAGED_COMMIT` when they compile.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit: {}\nsystem: {} {}\nbuild:  {}",
        env!("CARGO_PKG_VERSION"),
        option_env!("TRIAGED_COMMIT").unwrap_or("not recorded"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        if cfg!(debug_assertions) { "debug" } else { "release" },
    )
});

/// Routes tickets and log lines from Kafka to the queues they belong to
#[derive(Debug, Parser)]
#[command(
    name = "triaged",
    version,
    long_version = LONG_VERSION.as_str(),
    disable_help_subcommand = true,
    arg_required_else_help = true,
    max_term_width = 100,
    long_about = "Reads tickets and log lines from Kafka, decides which queue each belongs to (rules, then a cache of \
                  log templates, then a small model), and publishes routed events.\n\n\
                  Start with `triaged demo`: it needs no Kafka and no configuration.",
    after_long_help = "Exit codes:\n  \
                       0    done\n  \
                       1    something failed; the error says what\n  \
                       2    the command line or the configuration is wrong; every fault is listed\n  \
                       130  ended at once by a second SIGINT, 143 by a second SIGTERM\n\n\
                       Environment:\n  \
                       TRIAGED_<SECTION>__<SETTING> overrides a setting, for example TRIAGED_KAFKA__BROKERS."
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// Read settings from this TOML file
    ///
    /// Without it the defaults hold. Every setting is described in config/default.toml.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    config: Option<PathBuf>,

    /// Write results as JSON, for programs to read
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,

    /// Log more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Everywhere")]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Health(health::Arguments),
    Demo(demo::Arguments),
    Check(check::Arguments),
    Classify(classify::Arguments),
    Forecast(forecast::Arguments),
    Migrate(migrate::Arguments),
    Keys(keys::Arguments),
    Generate(generate::Arguments),
    Replay(replay::Arguments),
    Train(train::Arguments),
    Evaluate(evaluate::Arguments),
    Compare(compare::Arguments),
    Model(model::Arguments),
    Report(report::Arguments),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> anyhow::Result<()> {
        let globals = &self.globals;
        match self.command {
            Command::Run(arguments) => run::run(arguments, globals),
            Command::Health(arguments) => health::run(arguments, globals),
            Command::Demo(arguments) => demo::run(arguments, globals),
            Command::Check(arguments) => check::run(arguments, globals),
            Command::Classify(arguments) => classify::run(arguments, globals),
            Command::Forecast(arguments) => forecast::run(arguments, globals),
            Command::Migrate(arguments) => migrate::run(arguments, globals),
            Command::Keys(arguments) => keys::run(arguments, globals),
            Command::Generate(arguments) => generate::run(arguments, globals),
            Command::Replay(arguments) => replay::run(arguments, globals),
            Command::Train(arguments) => train::run(arguments, globals),
            Command::Evaluate(arguments) => evaluate::run(arguments, globals),
            Command::Compare(arguments) => compare::run(arguments, globals),
            Command::Model(arguments) => model::run(arguments, globals),
            Command::Report(arguments) => report::run(arguments, globals),
        }
    }
}

impl Globals {
    /// The configuration, with the properties that are meant for librdkafka checked by librdkafka.
    pub(crate) fn load_config(&self) -> anyhow::Result<Config> {
        let config = self.load_config_without_properties()?;
        stream::check_properties(&config.kafka)?;
        Ok(config)
    }

    fn load_config_without_properties(&self) -> Result<Config, ConfigFaults> {
        Config::load(self.config.as_deref())
    }

    /// Logging of a command that ends by itself: warnings only, unless more is asked for.
    pub(crate) fn log_warnings(&self) {
        telemetry::init(self.filter().unwrap_or("warn"), LogFormat::Text);
    }

    /// Logging of the daemon, as configured.
    pub(crate) fn log_as_configured(&self, config: &Config) {
        let format = if self.json { LogFormat::Json } else { config.log.format };
        telemetry::init(self.filter().unwrap_or(&config.log.filter), format);
    }

    /// The filter that `-v` asks for.
    fn filter(&self) -> Option<&'static str> {
        match self.verbose {
            0 => None,
            1 => Some("info,triaged=debug"),
            _ => Some("debug,triaged=trace"),
        }
    }
}

/// The command line asks for something that cannot be done; it is answered like a mistyped flag.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// A check found faults and has listed them already.
#[derive(Debug, thiserror::Error)]
#[error("faults were found")]
pub(crate) struct FaultsListed;

/// Writes an error with all its causes and returns the exit code that fits it.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<FaultsListed>() {
        return ExitCode::from(EXIT_USAGE);
    }
    if error.chain().any(is_closed_pipe) {
        // `triaged generate | head`: the reader has enough, which is no failure.
        return ExitCode::SUCCESS;
    }
    output::write_error(error);
    if error.is::<ConfigFaults>() || error.is::<PropertyFaults>() || error.is::<UsageError>() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::from(EXIT_FAILURE)
    }
}

fn is_closed_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
