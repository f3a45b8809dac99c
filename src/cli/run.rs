//! `triaged run`: the daemon.

use clap::Args;

use crate::app::{App, Role};

use super::Globals;

/// Run the daemon until it is stopped
///
/// SIGTERM or SIGINT drains: nothing new is read, what is in flight is finished and committed, within
/// stream.drain_deadline. A second signal exits at once; nothing is lost, the open records are read again.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged run --config my.toml\n  \
                             TRIAGED_KAFKA__BROKERS=kafka:9092 triaged run --role classify")]
pub(super) struct Arguments {
    /// Run these roles only, separated by commas
    #[arg(long, value_name = "ROLE", value_delimiter = ',', default_values_t = Role::ALL.map(|role| role.as_str().to_owned()))]
    role: Vec<String>,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    let roles = arguments
        .role
        .iter()
        .map(|name| name.parse::<Role>().map_err(|known| super::UsageError(format!("unknown role `{name}`; {known}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let config = globals.load_config()?;
    globals.log_as_configured(&config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let app = App::load(config, &roles)?.reloading();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    let result = runtime.block_on(app.run());
    // What did not finish in time must not hold up the exit.
    runtime.shutdown_background();
    result
}
