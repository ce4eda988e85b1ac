//! Lowering of `AS CHANGELOG`.
//!
//! Each record of the log is a change of its own: [`crate::stepper`] ends a step after a record that may change the input.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use sql::SqlError;
use sql::changelog::{Changelog, added_fields};

use super::lower::Lowering;
use super::{NodeIndex, PlanKind, Properties};

impl Lowering<'_> {
    pub(super) fn changelog(&mut self, changelog: &Changelog) -> Result<NodeIndex, SqlError> {
        let input = self.lower_expanded(&changelog.input)?;
        if self.reads_clock(input) {
            return Err(SqlError::unsupported("AS CHANGELOG of rows that depend on now() is not supported")
                .with_hint(
                    "take the changelog of the relation below, and filter by now() in a view over it",
                ));
        }
        let node = self.node(input);
        let width = node.schema.fields().len();
        let own = node.schema.fields().iter().map(|field| Field::clone(field));
        let schema = Arc::new(Schema::new(own.chain(added_fields()).collect::<Vec<_>>()));
        let key = node.properties.key.clone();
        let properties = Properties {
            append_only: true,
            // The row id.
            key: Some(vec![width + 1]),
            time: vec![None; width + added_fields().len()],
            ..Properties::default()
        };
        let text = format!("changelog key={key:?}");
        Ok(self.add(PlanKind::Changelog { key }, text, vec![input], schema, properties))
    }
}
