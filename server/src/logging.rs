//! The log: lines for people or JSON, to standard error.

use std::io::{self, IsTerminal as _};

use rivulet_router::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

use crate::cli::colour;

/// Begins to log for a tool: what goes wrong on the way is said, what goes well is not.
pub(crate) fn start_for_a_tool() {
    start(&Log {
        filter: "warn".to_owned(),
        format: LogFormat::Human,
    });
}

/// Begins to log. Called once, before anything that logs.
pub(crate) fn start(log: &Log) {
    // The configuration was refused if this is not a filter.
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_default();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Human => lines.with_ansi(colour::wanted(io::stderr().is_terminal())).init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .init(),
    }
}
