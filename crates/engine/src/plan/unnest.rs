//! Lowering of unnest, in FROM and in the SELECT list.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::NullHandling;
use datafusion::logical_expr::Unnest;
use sql::SqlError;

use super::lower::{Lowering, schema_of};
use super::{NodeIndex, PlanKind};

/// How a row becomes a row per element.
#[derive(Debug)]
pub struct UnnestSpec {
    /// The output's columns.
    pub columns: Vec<UnnestColumn>,
    pub without_elements: UnnestWithout,
}

/// A column of the output, by number of the input's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnnestColumn {
    /// The row's own value.
    Row(usize),
    /// An element of the array.
    Element(usize),
    /// A field of the struct.
    Field(usize, usize),
}

impl UnnestColumn {
    pub fn element_of(&self) -> Option<usize> {
        match self {
            UnnestColumn::Element(column) => Some(*column),
            _ => None,
        }
    }
}

/// What becomes of a row whose arrays hold nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnnestWithout {
    Drop,
    /// It stays, with NULL, if an array is NULL.
    KeepNull,
    /// It stays, with NULL: LEFT JOIN LATERAL.
    Keep,
}

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, unnest: &Unnest) -> Result<NodeIndex, SqlError> {
        if unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Err(SqlError::unsupported("unnest(unnest(...)) is not supported in a materialized view")
                .with_hint("unnest the outer array in a subquery, and its elements around it"));
        }
        let input = self.lower(&unnest.input)?;
        let below = Arc::clone(&self.node(input).schema);
        let mut columns = Vec::with_capacity(unnest.dependency_indices.len());
        for (output, source) in unnest.dependency_indices.iter().enumerate() {
            let is_list = unnest.list_type_columns.iter().any(|(column, _)| column == source);
            let is_struct = unnest.struct_type_columns.contains(source);
            columns.push(match (is_list, is_struct) {
                (true, _) => UnnestColumn::Element(*source),
                (false, true) => {
                    let earlier = unnest.dependency_indices[..output].iter().filter(|s| *s == source).count();
                    debug_assert!(matches!(below.field(*source).data_type(), DataType::Struct(_)));
                    UnnestColumn::Field(*source, earlier)
                }
                (false, false) => UnnestColumn::Row(*source),
            });
        }
        let without_elements = match unnest.options.null_handling {
            NullHandling::Drop => UnnestWithout::Drop,
            NullHandling::Preserve => UnnestWithout::KeepNull,
            NullHandling::PreserveAndExpandEmpty => UnnestWithout::Keep,
        };
        let fields = schema_of(&unnest.schema)
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| {
                let nullable = match column {
                    UnnestColumn::Row(source) => below.field(*source).is_nullable(),
                    _ => true,
                };
                Field::clone(field).with_nullable(nullable)
            })
            .collect::<Vec<_>>();
        let node = self.node(input);
        let mut properties = node.properties.clone();
        properties.key = None;
        properties.time = columns
            .iter()
            .map(|column| match column {
                UnnestColumn::Row(source) => node.properties.time[*source],
                _ => None,
            })
            .collect();
        let spec = UnnestSpec { columns, without_elements };
        let text = format!("unnest {spec:?}");
        let schema = Arc::new(Schema::new(fields));
        Ok(self.add(PlanKind::Unnest(Arc::new(spec)), text, vec![input], schema, properties))
    }
}
