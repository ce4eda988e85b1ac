//! Lowering of window functions: `f(...) OVER (...)`.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, NullTreatment, WindowFunction, WindowFunctionParams,
};
use datafusion::logical_expr::{
    Expr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, when,
};
use sql::{SqlError, SqlState};

use super::aggregate::{InputColumns, call};
use super::lower::{Lowering, column};
use super::{NodeIndex, OverPlan, PlanKind, Properties, TimeKind};
use crate::operators::Emit;
use crate::operators::over::{Bound, CalendarUnit, Frame, Offset, OverCall, OverFunction, Release, Unit};

/// Calls with one PARTITION BY and ORDER BY.
struct Group {
    partition: Vec<usize>,
    order: Vec<(usize, SortOptions)>,
    /// With their numbers in the SELECT.
    calls: Vec<(usize, OverCall)>,
}

impl Lowering<'_> {
    pub(super) fn window_functions(&mut self, window: &Window) -> Result<NodeIndex, SqlError> {
        let limit = self.row_number_limit.take();
        let functions =
            window.window_expr.iter().map(window_function).collect::<Result<Vec<WindowFunction>, _>>()?;
        if let ([function], Some(limit)) = (functions.as_slice(), limit)
            && function.fun.name() == "row_number"
        {
            return self.row_number(window, function, limit);
        }
        let input = self.lower_expanded(&window.input)?;
        let schema = window.input.schema();
        let input_schema = Arc::clone(&self.node(input).schema);
        let width = input_schema.fields().len();
        let mut columns = InputColumns {
            expressions: (0..width).map(|c| column(&input_schema, c)).collect(),
            fields: input_schema.fields().iter().map(|f| Field::clone(f)).collect(),
        };
        let mut groups: Vec<Group> = Vec::new();
        for (number, function) in functions.iter().enumerate() {
            let field = Arc::clone(&window.schema.fields()[width + number]);
            let parameters = &function.params;
            let partition = parameters
                .partition_by
                .iter()
                .map(|e| columns.column(e, schema))
                .collect::<Result<Vec<_>, _>>()?;
            let order = parameters
                .order_by
                .iter()
                .map(|s| {
                    let options = SortOptions { descending: !s.asc, nulls_first: s.nulls_first };
                    Ok((columns.column(&s.expr, schema)?, options))
                })
                .collect::<Result<Vec<_>, SqlError>>()?;
            let lowered = over_function(function, &field, &order, schema, &mut columns)?;
            // A failing argument is NULL, whatever the planner says.
            let nullable = field.is_nullable() || !matches!(lowered, OverFunction::RowNumber);
            let output = Arc::new(Field::new(field.name(), field.data_type().clone(), nullable));
            let call = (number, OverCall { function: lowered, output });
            match groups.iter_mut().find(|g| g.partition == partition && g.order == order) {
                Some(group) => group.calls.push(call),
                None => groups.push(Group { partition, order, calls: vec![call] }),
            }
        }
        let computed = columns.expressions.len() - width;
        let mut node = match computed {
            0 => input,
            _ => {
                self.map(input, None, Some(columns.expressions), Some(Arc::new(Schema::new(columns.fields))))?
            }
        };
        // Where each call's result is.
        let mut results = vec![0; functions.len()];
        for group in groups {
            let first = self.node(node).schema.fields().len();
            let (numbers, calls): (Vec<usize>, Vec<OverCall>) = group.calls.into_iter().unzip();
            numbers.iter().enumerate().for_each(|(i, number)| results[*number] = first + i);
            node = self.over(node, group.partition, group.order, calls)?;
        }
        let kept: Vec<usize> = (0..width).chain(results).collect();
        self.select(node, &kept)
    }

    fn over(
        &mut self,
        below: NodeIndex,
        partition: Vec<usize>,
        order: Vec<(usize, SortOptions)>,
        calls: Vec<OverCall>,
    ) -> Result<NodeIndex, SqlError> {
        let properties = self.node(below).properties.clone();
        let on_close = self.options.emit == Emit::OnClose;
        let by_partition = properties.expiry(&partition, &self.options).map(|(expiry, _)| expiry);
        let by_order = match order.first() {
            Some((column, options)) if on_close && !options.descending => {
                properties.expiry(&[*column], &self.options).map(|(expiry, _)| expiry)
            }
            _ => None,
        };
        let release = match (by_partition, by_order) {
            (Some(expiry), _) => Release::Partition(expiry),
            (None, Some(expiry)) => {
                self.check_final(&calls)?;
                Release::Order(expiry)
            }
            (None, None) if on_close => {
                return Err(SqlError::new(
                    SqlState::InvalidDefinition,
                    "EMIT ON WINDOW CLOSE needs OVER (ORDER BY the watermark column, ascending) or OVER (PARTITION BY a window's bounds)",
                )
                .with_hint("order by the column with WATERMARK FOR, or leave EMIT ON WINDOW CLOSE out"));
            }
            (None, None) => Release::Never,
        };
        let schema = &self.node(below).schema;
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| Field::clone(f)).collect();
        fields.extend(calls.iter().map(|call| Field::clone(&call.output)));
        let emit = if release == Release::Never { Emit::Updating } else { self.options.emit };
        // A row that waits for what follows it leaves behind the watermark: by how much, or by nobody knows.
        let waits = if matches!(release, Release::Order(_)) { waits_us(&calls) } else { Some(0) };
        // A row that may still change must not count as complete by its event time.
        let keeps_time = |column: usize| match release {
            Release::Partition(_) => partition.contains(&column),
            Release::Order(_) => waits.is_some(),
            Release::Never => false,
        };
        let time = properties.time.iter().enumerate().map(|(c, t)| t.filter(|_| keeps_time(c)));
        let properties = Properties {
            append_only: on_close && self.options.allowed_lateness_us == 0,
            key: properties.key,
            time: time.chain(calls.iter().map(|_| None)).collect(),
            watermarks: properties.watermarks,
            delay_us: properties.delay_us.saturating_add(waits.unwrap_or(0)),
            closed: on_close,
        };
        Ok(self.add_over(below, OverPlan { partition, order, calls, release, emit }, fields, properties))
    }

    pub(super) fn add_over(
        &mut self,
        below: NodeIndex,
        plan: OverPlan,
        fields: Vec<Field>,
        properties: Properties,
    ) -> NodeIndex {
        let text = format!(
            "over partition={:?} order={:?} {:?} {:?} {:?}",
            plan.partition, plan.order, plan.calls, plan.release, plan.emit
        );
        let schema = Arc::new(Schema::new(fields));
        self.add(PlanKind::Over(Arc::new(plan)), text, vec![below], schema, properties)
    }

    /// Refuses, with EMIT ON WINDOW CLOSE, what is never known for good.
    fn check_final(&self, calls: &[OverCall]) -> Result<(), SqlError> {
        let endless = |frame: &Frame| frame.end == Bound::UnboundedFollowing;
        for call in calls {
            let why = match &call.function {
                OverFunction::PercentRank | OverFunction::CumeDist | OverFunction::Ntile { .. } => {
                    "depends on the number of rows in the partition"
                }
                OverFunction::Shift { back, ignore_nulls: true, .. } if *back < 0 => {
                    "looks for a value without end"
                }
                OverFunction::Nth { frame, .. } | OverFunction::Aggregate { frame, .. } if endless(frame) => {
                    "has a frame without end (UNBOUNDED FOLLOWING)"
                }
                _ => continue,
            };
            return Err(SqlError::new(
                SqlState::InvalidDefinition,
                format!("EMIT ON WINDOW CLOSE: {} {why}, so it is never final", call.output.name()),
            )
            .with_hint("end the frame at CURRENT ROW or n FOLLOWING, partition by a window's bounds, or leave EMIT ON WINDOW CLOSE out"));
        }
        if self.options.allowed_lateness_us != 0 {
            return Err(SqlError::unsupported(
                "late = 'amend' with OVER (ORDER BY the watermark column) EMIT ON WINDOW CLOSE is not supported",
            )
            .with_hint("leave EMIT ON WINDOW CLOSE out: results are then corrected by late rows"));
        }
        Ok(())
    }

    /// The bounds of the session that each row is in: a row is in its predecessor's when at most `gap_us` later.
    pub(super) fn session_bounds(
        &mut self,
        input: NodeIndex,
        partition: Vec<usize>,
        time_column: usize,
        gap_us: i64,
        fields: Vec<Field>,
    ) -> Result<NodeIndex, SqlError> {
        let properties = self.node(input).properties.clone();
        let on_close = self.options.emit == Emit::OnClose;
        let event = matches!(properties.time[time_column], Some(TimeKind::Event));
        if on_close && !event {
            return Err(SqlError::new(
                SqlState::InvalidDefinition,
                "EMIT ON WINDOW CLOSE needs a SESSION over a column with a watermark",
            )
            .with_hint("declare WATERMARK FOR the time column on its table"));
        }
        if self.options.allowed_lateness_us != 0 {
            return Err(SqlError::unsupported("late = 'amend' with SESSION is not supported")
                .with_hint("a longer delay in WATERMARK FOR keeps sessions open for late rows"));
        }
        // A row at just the end still belongs to the session.
        let expiry = crate::operators::Expiry {
            column: time_column,
            add_us: gap_us.saturating_add(1),
            allowed_lateness_us: 0,
        };
        let release = if event { Release::Order(expiry) } else { Release::Never };
        let bound = |field: &Field, function| OverCall { function, output: Arc::new(field.clone()) };
        let [start, end] = &fields[fields.len() - 2..] else {
            return Err(SqlError::internal("a session adds two columns"));
        };
        let calls = vec![
            bound(start, OverFunction::SessionStart { gap_us }),
            bound(end, OverFunction::SessionEnd { gap_us }),
        ];
        let mut time = vec![None; fields.len()];
        time[fields.len() - 1] = event.then_some(TimeKind::SessionEnd);
        let properties = Properties {
            append_only: on_close,
            key: properties.key,
            time,
            watermarks: if event { properties.watermarks } else { Default::default() },
            delay_us: properties.delay_us,
            closed: on_close,
        };
        let order = vec![(time_column, SortOptions { descending: false, nulls_first: false })];
        let plan = OverPlan { partition, order, calls, release, emit: self.options.emit };
        Ok(self.add_over(input, plan, fields, properties))
    }
}

/// How long after its own time a row's frame ends; `None` when that is a matter of rows, not of time.
fn waits_us(calls: &[OverCall]) -> Option<i64> {
    let mut longest = 0;
    for call in calls {
        let following = match &call.function {
            OverFunction::Shift { back, .. } if *back < 0 => return None,
            OverFunction::Nth { frame, .. } | OverFunction::Aggregate { frame, .. } => match &frame.end {
                Bound::Following(_) if frame.unit != Unit::Range => return None,
                Bound::Following(by) => by.longest(),
                Bound::UnboundedFollowing => return None,
                _ => continue,
            },
            OverFunction::PercentRank
            | OverFunction::CumeDist
            | OverFunction::Ntile { .. }
            | OverFunction::SessionEnd { .. } => return None,
            _ => continue,
        };
        let Offset::Whole(us) = following else { return None };
        longest = longest.max(i64::try_from(us).ok()?);
    }
    Some(longest)
}

fn window_function(expression: &Expr) -> Result<WindowFunction, SqlError> {
    match expression.clone().unalias_nested().data {
        Expr::WindowFunction(function) => Ok(*function),
        other => Err(SqlError::internal(format!("{other} is a window function"))),
    }
}

fn over_function(
    function: &WindowFunction,
    field: &arrow::datatypes::FieldRef,
    order: &[(usize, SortOptions)],
    schema: &DFSchema,
    columns: &mut InputColumns,
) -> Result<OverFunction, SqlError> {
    let name = function.fun.name().to_string();
    let parameters = &function.params;
    let ignore_nulls = parameters.null_treatment == Some(NullTreatment::IgnoreNulls);
    let constant = |number: usize| -> Result<Option<i64>, SqlError> {
        let Some(argument) = parameters.args.get(number) else { return Ok(None) };
        constant_number(argument).map(Some).ok_or_else(|| {
            SqlError::unsupported(format!("argument {} of {name}() has to be a constant number", number + 1))
                .with_hint("write the number itself, not a column")
        })
    };
    let argument = |columns: &mut InputColumns| match parameters.args.first() {
        Some(argument) => columns.column(argument, schema),
        None => Err(SqlError::internal(format!("{name}() has an argument"))),
    };
    if parameters.filter.is_some() && !matches!(function.fun, WindowFunctionDefinition::AggregateUDF(_)) {
        return Err(SqlError::unsupported(format!("FILTER of {name}() is not supported"))
            .with_hint("FILTER goes with aggregates"));
    }
    Ok(match name.as_str() {
        "row_number" => OverFunction::RowNumber,
        "rank" => OverFunction::Rank,
        "dense_rank" => OverFunction::DenseRank,
        "percent_rank" => OverFunction::PercentRank,
        "cume_dist" => OverFunction::CumeDist,
        "ntile" => match constant(0)?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
            Some(buckets) => OverFunction::Ntile { buckets },
            None => {
                return Err(SqlError::new(
                    SqlState::InvalidParameterValue,
                    "argument of ntile() must be a positive number",
                ));
            }
        },
        "lag" | "lead" => {
            let by = constant(1)?.unwrap_or(1);
            let default = match parameters.args.get(2) {
                None => None,
                Some(default) => Some(constant_value(default).ok_or_else(|| {
                    SqlError::unsupported(format!("the default of {name}() has to be a constant"))
                        .with_hint(format!("write COALESCE({name}(...) OVER (...), ...)"))
                })?),
            };
            let default = default.filter(|value| !value.is_null());
            let default =
                default.map(|v| v.to_array()).transpose().map_err(|e| SqlError::internal(e.to_string()))?;
            OverFunction::Shift {
                argument: argument(columns)?,
                back: if name == "lag" { by } else { -by },
                default,
                ignore_nulls,
            }
        }
        "first_value" | "last_value" | "nth_value" => {
            let nth = match name.as_str() {
                "first_value" => 0,
                "last_value" => -1,
                _ => match constant(1)?.unwrap_or(1) {
                    n if n > 0 => n - 1,
                    // DataFusion's: counted from the end.
                    n if n < 0 => n,
                    _ => {
                        return Err(SqlError::new(
                            SqlState::InvalidParameterValue,
                            "argument of nth_value() must be greater than zero",
                        ));
                    }
                },
            };
            let argument = argument(columns)?;
            let frame = frame_of(&parameters.window_frame, order, columns)?;
            OverFunction::Nth { argument, frame, nth, ignore_nulls }
        }
        _ => aggregate_function(function, parameters, field, order, schema, columns)?,
    })
}

fn aggregate_function(
    function: &WindowFunction,
    parameters: &WindowFunctionParams,
    field: &arrow::datatypes::FieldRef,
    order: &[(usize, SortOptions)],
    schema: &DFSchema,
    columns: &mut InputColumns,
) -> Result<OverFunction, SqlError> {
    let WindowFunctionDefinition::AggregateUDF(aggregate) = &function.fun else {
        return Err(SqlError::unsupported(format!(
            "window function \"{}\" is not supported in a materialized view yet",
            function.fun.name()
        ))
        .with_hint("CREATE VIEW takes all of them"));
    };
    let (mut args, mut filter) = (parameters.args.clone(), parameters.filter.clone());
    let skips_nulls =
        matches!(aggregate.name(), "count" | "sum" | "avg" | "min" | "max" | "bool_and" | "bool_or");
    if let ([argument], Some(condition), true) = (args.as_slice(), &filter, skips_nulls) {
        // These skip NULLs, so that a row that does not pass may as well have no value.
        let value = when(condition.as_ref().clone(), argument.clone())
            .end()
            .map_err(|e| sql::planner::from_datafusion(e, ""))?;
        (args, filter) = (vec![value], None);
    }
    let plain = Expr::AggregateFunction(AggregateFunction {
        func: Arc::clone(aggregate),
        params: AggregateFunctionParams {
            args,
            distinct: parameters.distinct,
            filter,
            order_by: vec![],
            null_treatment: parameters.null_treatment,
        },
    });
    let mut call = call(&plain, field, schema, columns)?;
    // Lists follow the window's order.
    call.order_by = order.to_vec();
    Ok(OverFunction::Aggregate { call, frame: frame_of(&parameters.window_frame, order, columns)? })
}

fn constant_value(expression: &Expr) -> Option<ScalarValue> {
    match expression {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(cast) => constant_value(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
        Expr::Negative(inner) => constant_value(inner)?.arithmetic_negate().ok(),
        _ => None,
    }
}

fn constant_number(expression: &Expr) -> Option<i64> {
    match constant_value(expression)?.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(number) => number,
        _ => None,
    }
}

fn frame_of(
    frame: &WindowFrame,
    order: &[(usize, SortOptions)],
    columns: &InputColumns,
) -> Result<Frame, SqlError> {
    let unit = match frame.units {
        WindowFrameUnits::Rows => Unit::Rows,
        WindowFrameUnits::Range => Unit::Range,
        WindowFrameUnits::Groups => Unit::Groups,
    };
    let ordered = order.first().map(|(column, _)| columns.fields[*column].data_type());
    let offset = |value: &ScalarValue| match unit {
        Unit::Rows | Unit::Groups => match value.cast_to(&DataType::UInt64) {
            Ok(ScalarValue::UInt64(Some(count))) => {
                Ok(Offset::Count(usize::try_from(count).unwrap_or(usize::MAX)))
            }
            _ => Err(bad_offset(value)),
        },
        Unit::Range => match ordered {
            Some(data_type) if order.len() == 1 => range_offset(value, data_type),
            _ => Err(SqlError::new(
                SqlState::SyntaxError,
                "RANGE with an offset needs exactly one ORDER BY column",
            )),
        },
    };
    let bound = |bound: &WindowFrameBound| {
        Ok(match bound {
            WindowFrameBound::Preceding(value) if value.is_null() => Bound::UnboundedPreceding,
            WindowFrameBound::Following(value) if value.is_null() => Bound::UnboundedFollowing,
            WindowFrameBound::CurrentRow => Bound::CurrentRow,
            WindowFrameBound::Preceding(value) => Bound::Preceding(offset(value)?),
            WindowFrameBound::Following(value) => Bound::Following(offset(value)?),
        })
    };
    Ok(Frame { unit, start: bound(&frame.start_bound)?, end: bound(&frame.end_bound)? })
}

fn bad_offset(value: &ScalarValue) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, format!("{value} is no offset of a window frame"))
        .with_hint("offsets are constants that are not negative")
}

fn range_offset(value: &ScalarValue, ordered: &DataType) -> Result<Offset, SqlError> {
    let whole = |value: i128| {
        if value < 0 {
            Err(bad_offset(&ScalarValue::Decimal128(Some(value), 38, 0)))
        } else {
            Ok(Offset::Whole(value))
        }
    };
    match ordered {
        DataType::Timestamp(TimeUnit::Microsecond, _) => interval(value, CalendarUnit::Microseconds),
        DataType::Date32 => interval(value, CalendarUnit::Days),
        DataType::Float32 | DataType::Float64 => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(Some(by))) if by >= 0.0 => Ok(Offset::Float(by)),
            _ => Err(bad_offset(value)),
        },
        DataType::Decimal128(..) => match value.cast_to(ordered) {
            Ok(ScalarValue::Decimal128(Some(by), _, _)) => whole(by),
            _ => Err(bad_offset(value)),
        },
        t if t.is_integer() => match value.cast_to(&DataType::Decimal128(38, 0)) {
            Ok(ScalarValue::Decimal128(Some(by), _, _)) => whole(by),
            _ => Err(bad_offset(value)),
        },
        other => Err(SqlError::unsupported(format!(
            "RANGE with an offset over a column of type {other} is not supported"
        ))
        .with_hint("order by a number, date or timestamp, or use ROWS")),
    }
}

fn interval(value: &ScalarValue, unit: CalendarUnit) -> Result<Offset, SqlError> {
    let interval_type = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
    let Ok(ScalarValue::IntervalMonthDayNano(Some(interval))) = value.cast_to(&interval_type) else {
        return Err(bad_offset(value));
    };
    let day_us = 86_400_000_000i128;
    let us = i128::from(interval.days) * day_us + i128::from(interval.nanoseconds / 1000);
    if interval.months < 0 || us < 0 {
        return Err(bad_offset(value));
    }
    Ok(match (interval.months, unit) {
        (0, CalendarUnit::Microseconds) => Offset::Whole(us),
        (0, CalendarUnit::Days) => Offset::Whole(us / day_us),
        _ => Offset::Calendar { interval, unit },
    })
}
