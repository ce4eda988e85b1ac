//! `shopstream bench`: named scenarios, each measured the same way every time.

mod files;
mod ingest;
mod nexmark;
mod usage;
mod workloads;

use crate::cli::BenchFlags;
use crate::failure::{Failure, Result};

type Scenario = fn(&[String]) -> Result;

/// Scenarios by name. Each takes its own arguments and prints its figures to standard output, as JSON.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("files", files::run),
    ("ingest", ingest::throughput),
    ("latency", ingest::latency),
    ("nexmark", nexmark::run),
    ("statements", workloads::print),
];

pub fn run(flags: &BenchFlags) -> Result {
    match SCENARIOS.iter().find(|(name, _)| *name == flags.name) {
        Some((_, scenario)) => scenario(&flags.arguments),
        None => {
            let names: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
            Err(Failure::usage(format!("unknown scenario \"{}\"", flags.name))
                .hint(format!("scenarios: {}", names.join(", "))))
        }
    }
}

/// `--name value` out of a scenario's arguments.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|a| a == name)?;
    arguments.get(at + 1).map(String::as_str)
}

fn number<T: std::str::FromStr>(arguments: &[String], name: &str, default: T) -> Result<T> {
    match option(arguments, name) {
        None => Ok(default),
        Some(text) => {
            text.parse().map_err(|_| Failure::usage(format!("{name} takes a number, not \"{text}\"")))
        }
    }
}
