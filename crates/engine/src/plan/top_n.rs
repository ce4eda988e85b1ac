//! Lowering of ROW_NUMBER() OVER (...) <= n and of ORDER BY ... LIMIT.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Operator, Sort, Window};
use datafusion::physical_expr::PhysicalExpr;
use sql::SqlError;

use super::lower::{Lowering, column, plain_column};
use super::{NodeIndex, PlanKind, Properties, TopNPlan, physical};
use crate::operators::Emit;
use crate::operators::hop_aggregate::{Best, HopSpec};

impl Lowering<'_> {
    /// A filter; one on a row number bounds the window function below it as well.
    pub(super) fn filter(&mut self, filter: &Filter) -> Result<NodeIndex, SqlError> {
        let bound = split_conjunction(&filter.predicate)
            .into_iter()
            .filter_map(upper_bound)
            .filter(|(column, _)| is_row_number(&filter.input, column))
            .map(|(_, bound)| bound)
            .min();
        let before = std::mem::replace(&mut self.row_number_limit, bound);
        let input = self.lower(&filter.input);
        self.row_number_limit = before;
        self.filtered(input?, &filter.predicate, filter.input.schema())
    }

    /// The first `limit` rows of every partition, with their numbers.
    pub(super) fn row_number(
        &mut self,
        window: &Window,
        function: &WindowFunction,
        limit: usize,
    ) -> Result<NodeIndex, SqlError> {
        let schema = window.input.schema();
        let input = self.lower_expanded(&window.input)?;
        let field = Arc::new(Field::clone(window.schema.field(schema.fields().len())).with_nullable(false));
        self.top_n(
            input,
            schema,
            &function.params.partition_by,
            &function.params.order_by,
            (limit, 0),
            Some(field),
        )
    }

    /// ORDER BY ... LIMIT fetch OFFSET skip of a whole view.
    pub(super) fn top_n_of_sort(
        &mut self,
        sort: &Sort,
        skip: usize,
        fetch: usize,
    ) -> Result<NodeIndex, SqlError> {
        let input = self.lower_expanded(&sort.input)?;
        let fetch = fetch.min(sort.fetch.map_or(usize::MAX, |f| f.saturating_sub(skip)));
        self.top_n(input, sort.input.schema(), &[], &sort.expr, (fetch, skip), None)
    }

    fn top_n(
        &mut self,
        input: NodeIndex,
        schema: &datafusion::common::DFSchemaRef,
        partition_by: &[Expr],
        order_by: &[SortExpr],
        (limit, offset): (usize, usize),
        row_number: Option<FieldRef>,
    ) -> Result<NodeIndex, SqlError> {
        let width = self.node(input).schema.fields().len();
        let input_schema = Arc::clone(&self.node(input).schema);
        // Sort and partition expressions that are not columns are computed below and dropped above.
        let mut expressions: Vec<Arc<dyn PhysicalExpr>> =
            (0..width).map(|c| column(&input_schema, c)).collect();
        let mut fields: Vec<Field> = input_schema.fields().iter().map(|f| Field::clone(f)).collect();
        let mut number = |expression: &Expr| -> Result<usize, SqlError> {
            let bound = physical(expression, schema)?;
            if let Some(c) = plain_column(&bound) {
                return Ok(c);
            }
            let data_type = bound.data_type(&input_schema).map_err(|e| SqlError::internal(e.to_string()))?;
            fields.push(Field::new(expression.schema_name().to_string(), data_type, true));
            expressions.push(bound);
            Ok(expressions.len() - 1)
        };
        let partition = partition_by.iter().map(&mut number).collect::<Result<Vec<_>, _>>()?;
        let order = order_by
            .iter()
            .map(|s| Ok((number(&s.expr)?, SortOptions { descending: !s.asc, nulls_first: s.nulls_first })))
            .collect::<Result<Vec<_>, SqlError>>()?;
        let computed = expressions.len() - width;
        let below = if computed == 0 {
            input
        } else {
            self.map(input, None, Some(expressions), Some(Arc::new(Schema::new(fields))))?
        };
        let below = self.only_the_best(below, &partition, &order, limit.saturating_add(offset));
        let properties = self.node(below).properties.clone();
        let mut output: Vec<Field> =
            self.node(below).schema.fields().iter().map(|f| Field::clone(f)).collect();
        let expiry = properties.expiry(&partition, &self.options).map(|(expiry, _)| expiry);
        let emit = if expiry.is_some() { self.options.emit } else { Emit::Updating };
        let on_close = emit == Emit::OnClose;
        let mut time = properties.time.clone();
        let mut key = properties.key.clone();
        if let Some(field) = &row_number {
            output.push(Field::clone(field));
            time.push(None);
            let mut with_number = partition.clone();
            with_number.push(output.len() - 1);
            key = Some(with_number);
        }
        let text = format!(
            "top-n partition={partition:?} order={order:?} limit={limit} offset={offset} number={:?} {expiry:?} {emit:?}",
            row_number.is_some()
        );
        let node = self.add(
            PlanKind::TopN(Arc::new(TopNPlan {
                partition,
                order,
                limit,
                offset,
                row_number,
                expiry,
                emit,
                append_only: properties.append_only,
            })),
            text,
            vec![below],
            Arc::new(Schema::new(output)),
            Properties {
                append_only: on_close && self.options.allowed_lateness_us == 0,
                key,
                time,
                watermarks: properties.watermarks,
                delay_us: properties.delay_us,
                closed: on_close || properties.closed,
            },
        );
        if computed == 0 {
            return Ok(node);
        }
        let total = self.node(node).schema.fields().len();
        let kept: Vec<usize> = (0..width).chain(width + computed..total).collect();
        self.select(node, &kept)
    }
}

impl Lowering<'_> {
    /// Tells a window aggregate right below that only the best rows of a window are looked at. It saves building
    /// millions of rows per window, of which five are kept.
    fn only_the_best(
        &mut self,
        below: NodeIndex,
        partition: &[usize],
        order: &[(usize, SortOptions)],
        rows: usize,
    ) -> NodeIndex {
        // Through a projection that only picks columns.
        let node = self.node(below).clone();
        let (aggregate, columns): (NodeIndex, Vec<usize>) = match &node.kind {
            PlanKind::HopAggregate(..) => (below, (0..node.schema.fields().len()).collect()),
            PlanKind::Map(spec) if spec.filter.is_none() => {
                let picked = spec.projection.iter().flatten().map(plain_column).collect::<Option<Vec<_>>>();
                match picked {
                    Some(columns) if !columns.is_empty() => (node.inputs[0], columns),
                    _ => return below,
                }
            }
            _ => return below,
        };
        let source = self.node(aggregate).clone();
        let PlanKind::HopAggregate(spec, hop) = source.kind else { return below };
        let keys = spec.output.fields().len() - spec.calls.len();
        let bounds = [hop.window_start_key, hop.window_end_key];
        let by_window =
            !partition.is_empty() && partition.iter().all(|c| bounds.contains(&Some(columns[*c])));
        let first = order.first().filter(|(c, _)| columns[*c] >= keys);
        let (Some((column, options)), true) = (first, by_window) else { return below };
        if spec.emit != Emit::OnClose || hop.allowed_lateness_us != 0 || hop.best.is_some() {
            return below;
        }
        let best = Best { call: columns[*column] - keys, order: *options, rows };
        let text = format!("{} best={best:?}", source.signature);
        let kind = PlanKind::HopAggregate(spec, HopSpec { best: Some(best), ..hop });
        let pruned = self.add(kind, text, source.inputs, source.schema, source.properties);
        if aggregate == below {
            return pruned;
        }
        let text = format!("of the best: {}", node.signature);
        self.add(node.kind, text, vec![pruned], node.schema, node.properties)
    }
}

/// `column <= n`, `column < n`, `column = n` and their mirror images, as the largest row number that passes.
fn upper_bound(predicate: &Expr) -> Option<(Column, usize)> {
    let Expr::BinaryExpr(binary) = predicate else { return None };
    let (column, operator, value) = match (binary.left.as_ref(), binary.right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, binary.op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, binary.op.swap()?, value),
        _ => return None,
    };
    let number = match value.cast_to(&arrow::datatypes::DataType::Int64).ok()? {
        ScalarValue::Int64(Some(number)) => usize::try_from(number.max(0)).ok()?,
        _ => return None,
    };
    match operator {
        Operator::LtEq | Operator::Eq => Some((column.clone(), number)),
        Operator::Lt => Some((column.clone(), number.saturating_sub(1))),
        _ => None,
    }
}

/// True when `column` of `plan` is the result of the window function right below, through projections.
fn is_row_number(plan: &LogicalPlan, column: &Column) -> bool {
    match plan {
        LogicalPlan::Window(window) => {
            let inputs = window.input.schema().fields().len();
            window.schema.maybe_index_of_column(column).is_some_and(|index| index >= inputs)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(index) = alias.schema.maybe_index_of_column(column) else { return false };
            let below = Column::from(alias.input.schema().qualified_field(index));
            is_row_number(&alias.input, &below)
        }
        LogicalPlan::Projection(projection) => {
            let Some(index) = projection.schema.maybe_index_of_column(column) else { return false };
            match projection.expr[index].clone().unalias_nested().data {
                Expr::Column(below) => is_row_number(&projection.input, &below),
                _ => false,
            }
        }
        _ => false,
    }
}
