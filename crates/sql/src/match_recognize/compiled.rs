//! A row pattern made ready to run: instructions, physical expressions, and what threads have to remember.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Accumulator, Expr};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::program::Program;
use super::{Anchor, RowPattern, RowsPerMatch, Skip, Term, VariableSet};
use crate::planner::checked_physical_expr;

/// An expression over some of the terms.
#[derive(Debug)]
pub(super) struct TermExpr {
    pub(super) expr: Arc<dyn PhysicalExpr>,
    /// Terms by number, in the order of the schema's columns.
    pub(super) terms: Vec<usize>,
    pub(super) schema: SchemaRef,
    pub(super) data_type: DataType,
}

/// When a row may be mapped to a variable. Both parts have to be true.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// Decided by the row and its neighbours, for many rows at once.
    pub(super) local: Option<TermExpr>,
    /// Decided by what was matched before, too.
    pub(super) dependent: Option<TermExpr>,
}

/// What a thread remembers of its rows, because a later condition may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// The first rows of the variables, as many as there are slots.
    First { set: VariableSet, slot: usize, slots: usize },
    /// The last rows of the variables, the newest first.
    Last { set: VariableSet, slot: usize, slots: usize },
    /// All rows of the variables.
    All { set: VariableSet, slot: usize },
}

/// A row pattern that can be run, for one input schema.
#[derive(Debug)]
pub struct Compiled {
    pub pattern: Arc<RowPattern>,
    pub input: SchemaRef,
    pub output: SchemaRef,
    pub(super) program: Program,
    pub(super) conditions: Vec<Condition>,
    pub(super) measures: Vec<TermExpr>,
    /// By term: its aggregate.
    pub(super) aggregates: Vec<Option<AggregateFunctionExpr>>,
    pub(super) memories: Vec<Memory>,
    /// Slots of all memories.
    pub(super) memory_slots: usize,
    pub(super) variables: Vec<String>,
    pub(super) skip: Skip,
    pub(super) rows: RowsPerMatch,
    pub(super) rows_before: u64,
    pub(super) rows_after: u64,
}

impl Compiled {
    /// # Errors
    /// When the pattern is too large or an expression can't be evaluated.
    pub fn new(pattern: Arc<RowPattern>, input: SchemaRef, output: SchemaRef) -> Result<Compiled> {
        let variables: Vec<String> = pattern.variables.iter().map(|(name, _)| name.clone()).collect();
        let program = Program::compile(&pattern.pattern, &variables)?;
        let terms = RowPattern::term_schema(&pattern.terms, |c| input.field(c).data_type().clone())?;
        let mut conditions = Vec::with_capacity(variables.len());
        for (_, condition) in &pattern.variables {
            conditions.push(match condition {
                None => Condition::default(),
                Some(condition) => split(condition, &pattern.terms, &terms)?,
            });
        }
        let measures = pattern
            .measures
            .iter()
            .map(|(_, measure)| term_expr(measure, &terms))
            .collect::<Result<Vec<_>>>()?;
        let aggregates =
            pattern.terms.iter().map(|term| aggregate(term, &input)).collect::<Result<Vec<_>>>()?;
        let (memories, memory_slots) = memories(&conditions, &pattern.terms);
        Ok(Compiled {
            program,
            conditions,
            measures,
            aggregates,
            memories,
            memory_slots,
            variables,
            skip: pattern.skip,
            rows: pattern.rows,
            rows_before: pattern.rows_before(),
            rows_after: pattern.rows_after(),
            pattern,
            input,
            output,
        })
    }

    pub(super) fn accumulator(&self, term: usize) -> Result<Box<dyn Accumulator>> {
        match &self.aggregates[term] {
            Some(aggregate) => aggregate.create_accumulator(),
            None => internal_err!("term {term} is an aggregate"),
        }
    }

    pub(super) fn memory(&self, wanted: impl Fn(&Memory) -> bool) -> Option<&Memory> {
        self.memories.iter().find(|memory| wanted(memory))
    }
}

/// Tells the parts of a condition that are true for a row wherever it is matched from those that are not.
fn split(condition: &Expr, terms: &[Term], schema: &DFSchema) -> Result<Condition> {
    let mut local = Vec::new();
    let mut dependent = Vec::new();
    for part in split_conjunction(condition) {
        let only_local = part
            .column_refs()
            .iter()
            .all(|column| schema.maybe_index_of_column(column).is_some_and(|index| terms[index].is_local()));
        if only_local { local.push(part.clone()) } else { dependent.push(part.clone()) }
    }
    let compile = |parts: Vec<Expr>| conjunction(parts).map(|expr| term_expr(&expr, schema)).transpose();
    Ok(Condition { local: compile(local)?, dependent: compile(dependent)? })
}

fn term_expr(expr: &Expr, schema: &DFSchema) -> Result<TermExpr> {
    let mut terms: Vec<usize> =
        expr.column_refs().iter().filter_map(|column| schema.maybe_index_of_column(column)).collect();
    terms.sort_unstable();
    terms.dedup();
    let fields: Vec<FieldRef> = terms.iter().map(|term| Arc::clone(&schema.fields()[*term])).collect();
    let own = DFSchema::from_unqualified_fields(fields.clone().into(), Default::default())?;
    let expr = create_physical_expr(expr, &own, &ExecutionProps::new(), &Default::default())?;
    let schema = Arc::new(Schema::new(fields));
    let data_type = expr.data_type(&schema)?;
    Ok(TermExpr { expr: checked_physical_expr(expr), terms, schema, data_type })
}

fn aggregate(term: &Term, input: &SchemaRef) -> Result<Option<AggregateFunctionExpr>> {
    let Term::Aggregate { function, arguments, distinct, .. } = term else { return Ok(None) };
    let fields: Vec<Field> = arguments.iter().map(|column| input.field(*column).clone()).collect();
    let columns: Vec<Arc<dyn PhysicalExpr>> = fields
        .iter()
        .enumerate()
        .map(|(n, field)| Arc::new(Column::new(field.name(), n)) as Arc<dyn PhysicalExpr>)
        .collect();
    AggregateExprBuilder::new(Arc::clone(function), columns)
        .schema(Arc::new(Schema::new(fields)))
        .alias(function.name())
        .with_distinct(*distinct)
        .build()
        .map(Some)
}

/// Slots for everything that a dependent condition asks of the rows before.
fn memories(conditions: &[Condition], terms: &[Term]) -> (Vec<Memory>, usize) {
    let mut wanted: Vec<(u8, VariableSet, usize)> = Vec::new();
    let mut want = |kind: u8, set: VariableSet, slots: usize| match wanted
        .iter_mut()
        .find(|(k, s, _)| *k == kind && *s == set)
    {
        Some((_, _, known)) => *known = slots.max(*known),
        None => wanted.push((kind, set, slots)),
    };
    for condition in conditions.iter().filter_map(|condition| condition.dependent.as_ref()) {
        for term in &condition.terms {
            match &terms[*term] {
                Term::Row { anchor: Anchor::First { set, n, .. }, .. } => want(0, *set, *n as usize + 1),
                Term::Row { anchor: Anchor::Last { set, n, .. }, .. } => want(1, *set, *n as usize + 1),
                Term::Aggregate { set, .. } => want(2, *set, 1),
                _ => {}
            }
        }
    }
    let mut next = 0;
    let memories = wanted
        .into_iter()
        .map(|(kind, set, slots)| {
            let slot = next;
            next += slots;
            match kind {
                0 => Memory::First { set, slot, slots },
                1 => Memory::Last { set, slot, slots },
                _ => Memory::All { set, slot },
            }
        })
        .collect();
    (memories, next)
}
