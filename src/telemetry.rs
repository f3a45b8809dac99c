//! Where log lines go and which are kept: text or JSON to the standard error, noise of libraries taken out.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoUtc;

use crate::config::LogFormat;

/// Libraries that speak of each connection at `debug`, and one that logs whole answers; a filter that names one of
/// them itself wins, because the later of two equal directives does.
const QUIET: &str =
    "hyper=info,hyper_util=info,axum=info,mio=info,tokio=info,h2=info,reqwest=info,rustls=info,async_openai=off";

/// Starts logging. Only the first call in a process counts, so that tests may start several daemons.
pub fn init(filter: &str, format: LogFormat) {
    // The configuration has checked the filter; one from the command line is made by the program.
    let filter = EnvFilter::builder().parse_lossy(format!("{QUIET},{filter}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_timer(ChronoUtc::new("%Y-%m-%dT%H:%M:%S%.3fZ".to_owned()));
    let started = match format {
        LogFormat::Text => builder.with_ansi(colours(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    // An error means that logging runs already.
    drop(started);
}

/// Whether a stream wants colours: a terminal, unless the user has said no (<https://no-color.org>).
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
