//! `AS CHANGELOG`: what happened to a relation's rows, as rows that stay.
//!
//! ```text
//!   t                          WITH c AS CHANGELOG FROM t
//!   insert (1, 10)             1 10  changelog_op 1
//!   update (1, 10) to (1, 12)  1 10  changelog_op 4      1 12  changelog_op 3
//!   delete (1, 12)             1 12  changelog_op 2
//! ```
//!
//! Output: the input's columns, then what happened, where it stands in the order of all changes, and when. The rows that a
//! relation has now do not tell how they came about, so only a view that runs can say it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference, plan_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::{Result, SqlError, SqlState};

/// What happened to a row, as a SMALLINT: [`INSERT`], [`DELETE`], [`UPDATE_INSERT`] or [`UPDATE_DELETE`].
pub const OPERATION: &str = "changelog_op";
/// BIGINT, greater for later changes, and of each change another.
pub const ROW_ID: &str = "_changelog_row_id";
/// TIMESTAMPTZ, when the rows that caused the change were received.
pub const TIME: &str = "changelog_time";

/// A new row.
pub const INSERT: i16 = 1;
/// A row that is gone.
pub const DELETE: i16 = 2;
/// A row that took the place of the one with the same key.
pub const UPDATE_INSERT: i16 = 3;
/// The row whose place was taken.
pub const UPDATE_DELETE: i16 = 4;

/// AS CHANGELOG in a logical plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Changelog {
    pub input: LogicalPlan,
    schema: DFSchemaRef,
}

/// The columns that are added to those of the input.
pub fn added_fields() -> [Field; 3] {
    [
        Field::new(OPERATION, DataType::Int16, false),
        Field::new(ROW_ID, DataType::Int64, false),
        Field::new(TIME, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]
}

impl Changelog {
    /// # Errors
    ///
    /// When the input has a column of an added name.
    pub fn try_new(input: LogicalPlan) -> datafusion::common::Result<Changelog> {
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        let qualifier = fields.first().and_then(|(qualifier, _)| qualifier.clone());
        for added in added_fields() {
            if fields.iter().any(|(_, field)| field.name() == added.name()) {
                return plan_err!("the relation in AS CHANGELOG has a column \"{}\" already", added.name());
            }
            fields.push((qualifier.clone(), Arc::new(added)));
        }
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Changelog { input, schema: Arc::new(schema) })
    }

    /// Finds the node in a plan's extension.
    pub fn from_extension(extension: &Extension) -> Option<&Changelog> {
        extension.node.as_any().downcast_ref()
    }

    /// What a query that is asked once is told.
    pub(crate) fn refuse_in_query(plan: &LogicalPlan) -> Result<()> {
        let is_changelog = |plan: &LogicalPlan| {
            Ok(
                matches!(plan, LogicalPlan::Extension(extension) if Changelog::from_extension(extension).is_some()),
            )
        };
        if !plan.exists(is_changelog).map_err(|error| SqlError::internal(error.to_string()))? {
            return Ok(());
        }
        Err(SqlError::new(SqlState::FeatureNotSupported, "AS CHANGELOG is for materialized views")
            .with_hint("the rows of now don't tell how they came about: CREATE MATERIALIZED VIEW log AS WITH c AS CHANGELOG FROM t SELECT * FROM c, then query that; it has all changes since the table was created"))
    }
}

/// The schema follows from the input and has no order of its own.
impl PartialOrd for Changelog {
    fn partial_cmp(&self, other: &Changelog) -> Option<Ordering> {
        self.input.partial_cmp(&other.input).filter(|order| order.is_ne() || self == other)
    }
}

/// All columns of the input are needed, whatever is selected above: a change of any is a change.
impl UserDefinedLogicalNodeCore for Changelog {
    fn name(&self) -> &str {
        "Changelog"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changelog")
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion::common::Result<Changelog> {
        match (inputs.pop(), inputs.is_empty() && exprs.is_empty()) {
            (Some(input), true) => Changelog::try_new(input),
            _ => plan_err!("AS CHANGELOG takes one input"),
        }
    }
}
