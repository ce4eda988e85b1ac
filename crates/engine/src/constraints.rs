//! What a table demands of its rows: defaults, generated columns, NOT NULL, CHECK, and times not too far ahead.
//!
//! ```text
//!  decoded rows -> defaults -> generated -> NOT NULL -> CHECK -> max_ahead -> rows as stored
//!                                  \___________\__________\_________\-> rejected, with column and reason
//! ```

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::{DecodedRows, RejectReason, RejectedRow, StepContext};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use sql::{SqlError, SqlState, TableDef};

use crate::plan::evaluate_or_null;

/// Stands for the time of arrival in DEFAULT expressions that call `now()`.
const ARRIVAL: &str = "__arrival";

/// A table's constraints, bound once.
pub struct Constraints {
    table: Arc<TableDef>,
    schema: SchemaRef,
    /// All stored columns, nullable: what constraints are evaluated on.
    loose: SchemaRef,
    /// By stored column.
    defaults: Vec<Option<Arc<dyn PhysicalExpr>>>,
    generated: Vec<Option<Arc<dyn PhysicalExpr>>>,
    checks: Vec<Arc<dyn PhysicalExpr>>,
    /// Stored column -> input column.
    inputs: Vec<Option<usize>>,
}

impl Constraints {
    /// # Errors
    /// When an expression doesn't bind: unknown column, wrong type.
    pub fn new(table: Arc<TableDef>, state: &SessionState) -> Result<Constraints, SqlError> {
        let loose = Arc::new(Schema::new(
            table.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect::<Vec<_>>(),
        ));
        let arrival = Arc::new(Schema::new(vec![Field::new(ARRIVAL, sql::catalog::timestamptz(), false)]));
        let bind = |text: &str, schema: &SchemaRef, to: Option<&DataType>, what: String| {
            bind(text, schema, to, state).map_err(|mut e| {
                e.message = format!("{what} of table \"{}\": {}", table.name, e.message);
                e.position = None;
                e
            })
        };
        let mut defaults = Vec::new();
        let mut generated = Vec::new();
        for column in &table.columns {
            let to = Some(&column.data_type);
            let what = |kind: &str| format!("{kind} of column \"{}\"", column.name);
            defaults
                .push(column.default.as_ref().map(|e| bind(e, &arrival, to, what("DEFAULT"))).transpose()?);
            generated.push(
                column.generated.as_ref().map(|e| bind(e, &loose, to, what("expression"))).transpose()?,
            );
        }
        let checks = table
            .checks
            .iter()
            .map(|c| {
                bind(&c.condition, &loose, Some(&DataType::Boolean), format!("constraint \"{}\"", c.name))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut next = 0;
        let inputs = table
            .columns
            .iter()
            .map(|c| {
                c.generated.is_none().then(|| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        Ok(Constraints { schema: table.schema(), loose, defaults, generated, checks, inputs, table })
    }

    pub fn table(&self) -> &Arc<TableDef> {
        &self.table
    }

    /// Rows as they are stored, and the rows that can't be, cut from `body`.
    pub fn apply(
        &self,
        rows: DecodedRows,
        arrival_us: i64,
        body: &[u8],
    ) -> Result<(RecordBatch, Vec<RejectedRow>), SqlError> {
        let internal = |e: arrow::error::ArrowError| SqlError::internal(e.to_string());
        let count = rows.batch.num_rows();
        let arrival = self.arrival_batch(arrival_us, count)?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.table.columns.len());
        for (index, column) in self.table.columns.iter().enumerate() {
            let Some(input) = self.inputs[index] else {
                columns.push(new_null_array(&column.data_type, count));
                continue;
            };
            let given = rows.batch.column(input);
            columns.push(match (&self.defaults[index], &rows.absent[input]) {
                (Some(default), Some(absent)) if absent.count_set_bits() > 0 => {
                    let value = self.evaluate(default, &column.data_type, &arrival)?;
                    zip(&BooleanArray::new(absent.clone(), None), &value, given).map_err(internal)?
                }
                _ => Arc::clone(given),
            });
        }
        let mut judged = Judged { rows: &rows, body, keep: vec![true; count], rejected: Vec::new() };
        for (index, expression) in self.generated.iter().enumerate() {
            if let Some(expression) = expression {
                let batch =
                    RecordBatch::try_new(Arc::clone(&self.loose), columns.clone()).map_err(internal)?;
                columns[index] = self.evaluate(expression, &self.table.columns[index].data_type, &batch)?;
            }
        }
        for (column, values) in self.table.columns.iter().zip(&columns) {
            if column.not_null && values.null_count() > 0 {
                let missing = self.inputs[self.table.column_index(&column.name).unwrap_or_default()]
                    .and_then(|i| rows.absent[i].clone());
                for row in (0..count).filter(|r| values.is_null(*r)) {
                    let absent = missing.as_ref().is_some_and(|a| a.value(row));
                    let (reason, text) = if absent {
                        (RejectReason::MissingColumn, "is missing")
                    } else {
                        (RejectReason::NotNull, "is null")
                    };
                    judged.reject(row, Some(&column.name), reason, || {
                        format!("column \"{}\" {text}, and it is NOT NULL without a DEFAULT", column.name)
                    });
                }
            }
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.loose), columns).map_err(internal)?;
        for (check, condition) in self.table.checks.iter().zip(&self.checks) {
            let passed = self.evaluate(condition, &DataType::Boolean, &batch)?;
            let passed = passed.as_boolean();
            for row in 0..count {
                if passed.is_valid(row) && !passed.value(row) {
                    judged.reject(row, None, RejectReason::Check, || {
                        format!("constraint \"{}\" is not met: {}", check.name, check.condition)
                    });
                }
            }
        }
        self.judge_times(&batch, arrival_us, &mut judged)?;
        let Judged { keep, rejected, .. } = judged;
        let batch = if rejected.is_empty() {
            batch
        } else {
            filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(internal)?
        };
        let stored =
            RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec()).map_err(internal)?;
        let mut all = rows.rejected;
        all.extend(rejected);
        all.sort_by_key(|r| r.row_number);
        Ok((stored, all))
    }

    /// A row from the future would close windows that honest rows still belong to.
    fn judge_times(
        &self,
        batch: &RecordBatch,
        arrival_us: i64,
        judged: &mut Judged<'_>,
    ) -> Result<(), SqlError> {
        let Some(watermark) = &self.table.watermark else { return Ok(()) };
        let column = batch.column(watermark.column);
        let times = crate::operators::microseconds(column).map_err(|e| SqlError::internal(e.to_string()))?;
        let limit = arrival_us.saturating_add(self.table.options.max_ahead_us);
        if arrow::compute::max(&times).is_none_or(|newest| newest <= limit) {
            return Ok(());
        }
        let name = &self.table.columns[watermark.column].name;
        for row in (0..times.len()).filter(|r| times.is_valid(*r) && times.value(*r) > limit) {
            judged.reject(row, Some(name), RejectReason::TooFarAhead, || {
                format!(
                    "column \"{name}\" is {} s ahead of its arrival, more than max_ahead allows ({} s)",
                    times.value(row).saturating_sub(arrival_us) / 1_000_000,
                    self.table.options.max_ahead_us / 1_000_000
                )
            });
        }
        Ok(())
    }

    fn arrival_batch(&self, arrival_us: i64, count: usize) -> Result<RecordBatch, SqlError> {
        let times = TimestampMicrosecondArray::from(vec![arrival_us; count]).with_timezone("UTC");
        let schema = Arc::new(Schema::new(vec![Field::new(ARRIVAL, sql::catalog::timestamptz(), false)]));
        RecordBatch::try_new(schema, vec![Arc::new(times)]).map_err(|e| SqlError::internal(e.to_string()))
    }

    fn evaluate(
        &self,
        expression: &Arc<dyn PhysicalExpr>,
        data_type: &DataType,
        batch: &RecordBatch,
    ) -> Result<ArrayRef, SqlError> {
        let mut ctx = StepContext::default();
        let array = evaluate_or_null(expression.as_ref(), data_type, batch, &mut ctx)
            .map_err(|e| SqlError::internal(e.to_string()))?;
        if array.data_type() == data_type {
            return Ok(array);
        }
        cast(&array, data_type).map_err(|e| SqlError::new(SqlState::DatatypeMismatch, e.to_string()))
    }
}

struct Judged<'a> {
    rows: &'a DecodedRows,
    body: &'a [u8],
    keep: Vec<bool>,
    rejected: Vec<RejectedRow>,
}

impl Judged<'_> {
    /// The first reason counts.
    fn reject(
        &mut self,
        row: usize,
        column: Option<&str>,
        reason: RejectReason,
        message: impl FnOnce() -> String,
    ) {
        if !std::mem::replace(&mut self.keep[row], false) {
            return;
        }
        let raw = match self.rows.raw_ranges.get(row) {
            Some(range) => {
                let all = self.body.get(range.start as usize..range.end as usize).unwrap_or_default();
                all[..all.len().min(RejectedRow::RAW_BYTES_MAX)].to_vec()
            }
            None => describe_row(&self.rows.batch, row),
        };
        self.rejected.push(RejectedRow {
            row_number: self.rows.row_numbers.get(row).copied().unwrap_or(row as u32),
            column: column.map(str::to_string),
            reason,
            message: message(),
            raw,
        });
    }
}

/// A row without bytes of its own, as `name=value` pairs.
pub fn describe_row(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let options = FormatOptions::default().with_null("null");
    let pairs: Vec<String> = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .filter_map(|(field, column)| {
            let text = ArrayFormatter::try_new(column.as_ref(), &options).ok()?.value(row).to_string();
            Some(format!("{}={text}", field.name()))
        })
        .collect();
    pairs.join(" ").into_bytes()
}

/// Binds an expression of a table definition.
fn bind(
    text: &str,
    schema: &SchemaRef,
    to: Option<&DataType>,
    state: &SessionState,
) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    let convert = |e| sql::planner::from_datafusion(e, text);
    let schema = DFSchema::try_from(Schema::clone(schema)).map_err(convert)?;
    let expression = sql::planner::bind_expr(state, text, &schema)?;
    let expression = expression
        .transform_up(|e| match &e {
            Expr::ScalarFunction(f) if f.func.name() == "now" => {
                Ok(Transformed::yes(Expr::Column(datafusion::common::Column::from_name(ARRIVAL))))
            }
            _ => Ok(Transformed::no(e)),
        })
        .map_err(convert)?
        .data;
    let expression = match to {
        Some(to) => Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(expression), to.clone())),
        None => expression,
    };
    let bound = state.create_physical_expr(expression, &schema).map_err(convert)?;
    Ok(sql::planner::checked_physical_expr(bound))
}
