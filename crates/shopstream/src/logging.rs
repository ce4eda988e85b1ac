//! Logs: to standard error, filtered by the setting `log`, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::failure::{Failure, Result};

/// # Errors
/// A filter that cannot be read, or an unknown format.
pub fn start(config: &Config) -> Result {
    let filter = config
        .parse("log", |text| EnvFilter::try_new(text).map_err(|error| format!("{error}")))?
        .unwrap_or_else(|| EnvFilter::new("info"));
    let json = config.parse("log-format", |text| match text {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("expected text or json".to_string()),
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = if json == Some(true) {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(colors(std::io::stderr().is_terminal())).try_init()
    };
    result.map_err(|error| Failure::failed(format!("start logging: {error}")))
}

/// Colors only for people, and not for those who declined (no-color.org).
pub fn colors(terminal: bool) -> bool {
    terminal
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
