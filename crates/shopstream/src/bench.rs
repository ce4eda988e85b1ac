//! `shopstream bench`: named scenarios, each measured the same way every time.

use crate::cli::BenchFlags;
use crate::failure::{Failure, Result};

/// Scenarios by name. Each takes its own arguments and prints its figures to standard output.
const SCENARIOS: &[(&str, fn(&[String]) -> Result)] = &[];

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
