//! The connectors by name: what `WITH (connector = '...')` may say.

use dataflow::{Connectors, Poll, Source, SourceError, SourceSpec};

use super::nexmark::NexmarkSource;

const NAMES: [&str; 1] = ["nexmark"];

/// All source connectors of the program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

impl Registry {
    fn unknown(spec: &SourceSpec) -> SourceError {
        SourceError::option("connector", format!("there is no connector \"{}\"", spec.connector))
            .with_hint(format!("connectors: {}", NAMES.join(", ")))
    }
}

impl Connectors for Registry {
    fn check(&self, spec: &SourceSpec) -> Result<(), SourceError> {
        match spec.connector.as_str() {
            "nexmark" => NexmarkSource::check(spec).map(drop),
            _ => Err(Registry::unknown(spec)),
        }
    }

    fn open(&self, spec: &SourceSpec, position: Option<&str>) -> Result<Box<dyn Source>, SourceError> {
        match spec.connector.as_str() {
            "nexmark" => Ok(Box::new(NexmarkSource::open(spec, position)?)),
            _ => Err(Registry::unknown(spec)),
        }
    }
}

/// The same connectors, for checking definitions only: their sources are at their end from the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOnly;

struct Empty;

impl Connectors for CheckOnly {
    fn check(&self, spec: &SourceSpec) -> Result<(), SourceError> {
        Registry.check(spec)
    }

    fn open(&self, _: &SourceSpec, _: Option<&str>) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Empty))
    }
}

impl Source for Empty {
    fn poll(&mut self) -> Result<Poll, SourceError> {
        Ok(Poll::End)
    }
}
