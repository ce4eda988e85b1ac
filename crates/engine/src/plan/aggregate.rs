//! Lowering of GROUP BY, DISTINCT and aggregates over windows.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::{Aggregate, Expr};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use sql::SqlError;
use sql::window_tvf::WindowKind;

use super::lower::{Lowering, plain_column, schema_of};
use super::{Grid, NodeIndex, PlanKind, Properties, TimeKind, physical};
use crate::operators::Emit;
use crate::operators::aggregate::{AggregateCall, AggregateFunction, AggregateSpec, Fraction, Statistic};
use crate::operators::hop_aggregate::{HopKind, HopSpec};

/// Columns below an aggregate: keys first, then whatever the calls need.
pub(super) struct InputColumns {
    pub(super) expressions: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) fields: Vec<Field>,
}

impl InputColumns {
    /// Number of the column that holds `expression`.
    pub(super) fn column(&mut self, expression: &Expr, schema: &DFSchema) -> Result<usize, SqlError> {
        let bound = physical(expression, schema)?;
        if let Some(index) = self.expressions.iter().position(|e| e.eq(&bound)) {
            return Ok(index);
        }
        let arrow = schema.as_arrow();
        let internal = |e: datafusion::error::DataFusionError| SqlError::internal(e.to_string());
        let data_type = bound.data_type(arrow).map_err(internal)?;
        let name = match plain_column(&bound) {
            Some(c) => arrow.field(c).name().clone(),
            None => expression.schema_name().to_string(),
        };
        self.fields.push(Field::new(name, data_type, true));
        self.expressions.push(bound);
        Ok(self.expressions.len() - 1)
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<NodeIndex, SqlError> {
        if let Some(input) = self.lower_virtual(&aggregate.input)?
            && let Some(node) = self.aggregate_over(aggregate, input)?
        {
            return Ok(node);
        }
        let input = self.lower_expanded(&aggregate.input)?;
        self.aggregate_over(aggregate, input)?
            .ok_or_else(|| SqlError::internal("an aggregate over expanded windows always lowers"))
    }

    /// `None` when the input's windows are virtual but the groups don't name one of them.
    fn aggregate_over(
        &mut self,
        aggregate: &Aggregate,
        input: NodeIndex,
    ) -> Result<Option<NodeIndex>, SqlError> {
        let schema = aggregate.input.schema();
        let mut columns = InputColumns { expressions: vec![], fields: vec![] };
        let mut keys = Vec::with_capacity(aggregate.group_expr.len());
        for expression in &aggregate.group_expr {
            if let Expr::GroupingSet(_) = expression {
                return Err(SqlError::unsupported(
                    "GROUPING SETS, CUBE and ROLLUP are not supported in a materialized view yet",
                )
                .with_hint("write one view per grouping and combine them with UNION ALL"));
            }
            keys.push(columns.column(expression, schema)?);
        }
        let output = schema_of(&aggregate.schema);
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for (expression, field) in aggregate.aggr_expr.iter().zip(&output.fields()[keys.len()..]) {
            calls.push(call(expression, field, schema, &mut columns)?);
        }
        if columns.expressions.is_empty() {
            // count(*) over everything: Arrow batches without columns lose their length in kernels.
            columns
                .expressions
                .push(Arc::new(Literal::new(datafusion::scalar::ScalarValue::Boolean(Some(true)))));
            columns.fields.push(Field::new("row", DataType::Boolean, false));
        }
        let below =
            self.map(input, None, Some(columns.expressions), Some(Arc::new(Schema::new(columns.fields))))?;
        let properties = self.node(below).properties.clone();
        let input_schema = Arc::clone(&self.node(below).schema);
        // What the input may hold as null, a key may too; results may always be null.
        let output = Arc::new(Schema::new(
            output
                .fields()
                .iter()
                .enumerate()
                .map(|(i, f)| {
                    let nullable = match keys.get(i) {
                        Some(key) => input_schema.field(*key).is_nullable(),
                        None => f.is_nullable(),
                    };
                    Field::clone(f).with_nullable(nullable)
                })
                .collect::<Vec<_>>(),
        ));
        let spec = AggregateSpec {
            input: input_schema,
            keys,
            calls,
            output,
            append_only: properties.append_only,
            expiry: None,
            emit: Emit::Updating,
        };
        let virtual_window = properties.time.iter().flatten().find_map(|t| match t {
            TimeKind::VirtualStart { window, event } | TimeKind::VirtualEnd { window, event } => {
                Some((*window, *event))
            }
            _ => None,
        });
        match virtual_window {
            Some((window, event)) => self.hop_aggregate(spec, below, &properties, window, event),
            None => Ok(Some(self.plain_aggregate(spec, below, &properties))),
        }
    }

    fn plain_aggregate(
        &mut self,
        mut spec: AggregateSpec,
        below: NodeIndex,
        input: &Properties,
    ) -> NodeIndex {
        let expiry = input.expiry(&spec.keys, &self.options).map(|(expiry, _)| expiry);
        spec.expiry = expiry;
        spec.emit = if expiry.is_some() { self.options.emit } else { Emit::Updating };
        let on_close = spec.emit == Emit::OnClose;
        let properties = Properties {
            append_only: on_close && self.options.allowed_lateness_us == 0,
            key: (!spec.keys.is_empty()).then(|| (0..spec.keys.len()).collect()),
            time: spec
                .keys
                .iter()
                .map(|k| input.time[*k])
                .chain(std::iter::repeat_n(None, spec.calls.len()))
                .collect(),
            watermarks: input.watermarks.clone(),
            delay_us: input.delay_us,
            closed: on_close || input.closed,
        };
        let text =
            format!("aggregate keys={:?} {} {:?} {:?}", spec.keys, calls_text(&spec), spec.expiry, spec.emit);
        let output = Arc::clone(&spec.output);
        self.add(PlanKind::Aggregate(Arc::new(spec)), text, vec![below], output, properties)
    }

    fn hop_aggregate(
        &mut self,
        mut spec: AggregateSpec,
        below: NodeIndex,
        input: &Properties,
        window: WindowKind,
        event: bool,
    ) -> Result<Option<NodeIndex>, SqlError> {
        let position = |wanted: fn(&TimeKind) -> bool| {
            spec.keys.iter().position(|k| input.time[*k].as_ref().is_some_and(wanted))
        };
        let start = position(|t| matches!(t, TimeKind::VirtualStart { .. }));
        let end = position(|t| matches!(t, TimeKind::VirtualEnd { .. }));
        let names_a_window = match window {
            // All windows of one period share their start.
            WindowKind::Cumulate { .. } => end.is_some(),
            _ => start.is_some() || end.is_some(),
        };
        // A call over window bounds, or a bound grouped twice, needs the real rows.
        let bounds = spec
            .keys
            .iter()
            .filter(|k| {
                matches!(input.time[**k], Some(TimeKind::VirtualStart { .. } | TimeKind::VirtualEnd { .. }))
            })
            .count();
        let in_calls = spec.calls.iter().any(|call| {
            call.arguments.iter().chain(call.filter.iter()).chain(call.order_by.iter().map(|(c, _)| c)).any(
                |c| {
                    matches!(
                        input.time[*c],
                        Some(TimeKind::VirtualStart { .. } | TimeKind::VirtualEnd { .. })
                    )
                },
            )
        });
        let on_close = self.options.emit == Emit::OnClose;
        if !names_a_window || in_calls || bounds != usize::from(start.is_some()) + usize::from(end.is_some())
        {
            return Ok(None);
        }
        if on_close && !event {
            return Err(SqlError::new(
                sql::SqlState::InvalidDefinition,
                "EMIT ON WINDOW CLOSE needs a window over a column with a watermark",
            )
            .with_hint("declare WATERMARK FOR the time column on its table"));
        }
        let time_column = spec.keys[start.or(end).expect("one bound is a key")];
        let grid = Grid::of(window);
        let (kind, slide_us, size_us, offset_us) = match window {
            WindowKind::Hop { slide_us, size_us, offset_us } => (HopKind::Hop, slide_us, size_us, offset_us),
            WindowKind::Cumulate { step_us, size_us, offset_us } => {
                (HopKind::Cumulate, step_us, size_us, offset_us)
            }
            WindowKind::Tumble { .. } => return Err(SqlError::internal("TUMBLE windows are never virtual")),
        };
        let mut time: Vec<Option<TimeKind>> = spec.keys.iter().map(|k| input.time[*k]).collect();
        if let Some(start) = start {
            let fixed = kind == HopKind::Hop && event;
            time[start] = fixed.then_some(TimeKind::WindowStart { size_us, grid });
        }
        if let Some(end) = end {
            time[end] = event.then_some(TimeKind::WindowEnd { grid });
        }
        time.extend(std::iter::repeat_n(None, spec.calls.len()));
        let properties = Properties {
            append_only: on_close && self.options.allowed_lateness_us == 0,
            key: Some((0..spec.keys.len()).collect()),
            time,
            watermarks: if event { input.watermarks.clone() } else { Default::default() },
            delay_us: input.delay_us,
            closed: on_close || input.closed,
        };
        let hop = HopSpec {
            kind,
            time_column,
            slide_us,
            size_us,
            offset_us,
            window_start_key: start,
            window_end_key: end,
            allowed_lateness_us: self.options.allowed_lateness_us,
            best: None,
        };
        spec.emit = self.options.emit;
        let bound_keys: Vec<usize> = [start, end].into_iter().flatten().collect();
        let text =
            format!("window aggregate keys={:?} {} {hop:?} {:?}", spec.keys, calls_text(&spec), spec.emit);
        spec.keys =
            spec.keys.iter().enumerate().filter(|(i, _)| !bound_keys.contains(i)).map(|(_, k)| *k).collect();
        let output = Arc::clone(&spec.output);
        Ok(Some(self.add(PlanKind::HopAggregate(Arc::new(spec), hop), text, vec![below], output, properties)))
    }
}

fn unknown_aggregate(name: &str) -> SqlError {
    let hint = match name {
        "approx_percentile_cont" | "approx_percentile_cont_with_weight" | "approx_median" => {
            "use approx_percentile(0.5, 0.01) WITHIN GROUP (ORDER BY x), which states its accuracy"
        }
        "nth_value" => "use (array_agg(x ORDER BY y))[n]",
        _ => "use CREATE VIEW, which is computed when it is read",
    };
    let message = format!("aggregate function \"{name}\" is not supported in a materialized view yet");
    SqlError::unsupported(message).with_hint(hint)
}

fn calls_text(spec: &AggregateSpec) -> String {
    let call = |c: &AggregateCall| {
        format!(
            "{:?}{:?} filter={:?} distinct={} order={:?}",
            c.function, c.arguments, c.filter, c.distinct, c.order_by
        )
    };
    spec.calls.iter().map(call).collect::<Vec<_>>().join(" ")
}

pub(super) fn call(
    expression: &Expr,
    field: &FieldRef,
    schema: &DFSchema,
    columns: &mut InputColumns,
) -> Result<AggregateCall, SqlError> {
    let Expr::AggregateFunction(aggregate) = expression.clone().unalias_nested().data else {
        return Err(SqlError::internal(format!("{expression} is an aggregate call")));
    };
    let name = aggregate.func.name().to_string();
    let parameters = &aggregate.params;
    let ignore_nulls = parameters.null_treatment == Some(NullTreatment::IgnoreNulls);
    let constant = |number: usize| match parameters.args.get(number) {
        Some(Expr::Literal(value, _)) => Ok(value),
        _ => Err(SqlError::unsupported(format!("argument {} of {name}() has to be a constant", number + 1))),
    };
    let fraction = |number: usize| -> Result<Fraction, SqlError> {
        let value = sql::aggregates::ordered_set::fraction(constant(number)?);
        Ok(Fraction::new(value.map_err(|e| sql::planner::from_datafusion(e, ""))?))
    };
    let function = match name.as_str() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        "string_agg" => AggregateFunction::StringAgg,
        "array_agg" => AggregateFunction::ArrayAgg,
        "bit_and" => AggregateFunction::BitAnd,
        "bit_or" => AggregateFunction::BitOr,
        "bit_xor" => AggregateFunction::BitXor,
        "first_value" => AggregateFunction::FirstValue { ignore_nulls },
        "last_value" => AggregateFunction::LastValue { ignore_nulls },
        "percentile_cont" => AggregateFunction::PercentileCont(fraction(1)?),
        "percentile_disc" => AggregateFunction::PercentileDisc(fraction(1)?),
        "mode" => AggregateFunction::Mode,
        "approx_count_distinct" => AggregateFunction::ApproxCountDistinct,
        "approx_percentile" => {
            let accuracy = match parameters.args.len() {
                2 => sql::aggregates::DEFAULT_ACCURACY,
                _ => sql::aggregates::accuracy(constant(2)?)
                    .map_err(|e| sql::planner::from_datafusion(e, ""))?,
            };
            AggregateFunction::ApproxPercentile(fraction(1)?, Fraction::new(accuracy))
        }
        other => match Statistic::named(other) {
            Some(statistic) => AggregateFunction::Statistic(statistic),
            None => return Err(unknown_aggregate(&name)),
        },
    };
    let ends = matches!(function, AggregateFunction::FirstValue { .. } | AggregateFunction::LastValue { .. });
    if ignore_nulls && !ends {
        return Err(SqlError::unsupported(format!(
            "IGNORE NULLS in {name}() is not supported in a materialized view yet"
        ))
        .with_hint("use FILTER (WHERE x IS NOT NULL)"));
    }
    // count(*) arrives as count(1).
    let counts_rows = function == AggregateFunction::Count
        && !parameters.distinct
        && matches!(parameters.args.as_slice(), [Expr::Literal(value, _)] if !value.is_null());
    // Fractions are part of the function.
    let taken = match function {
        _ if counts_rows => 0,
        AggregateFunction::PercentileCont(_)
        | AggregateFunction::PercentileDisc(_)
        | AggregateFunction::ApproxPercentile(..) => 1,
        _ => parameters.args.len(),
    };
    let arguments: Vec<usize> =
        parameters.args[..taken].iter().map(|e| columns.column(e, schema)).collect::<Result<_, _>>()?;
    let filter = parameters.filter.as_deref().map(|e| columns.column(e, schema)).transpose()?;
    let order_by = parameters
        .order_by
        .iter()
        .map(|sort| {
            let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            Ok((columns.column(&sort.expr, schema)?, options))
        })
        .collect::<Result<_, SqlError>>()?;
    Ok(AggregateCall {
        function,
        arguments,
        filter,
        distinct: parameters.distinct,
        order_by,
        output: Arc::clone(field),
    })
}
