//! Lowering of rows that a query brings along.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::source_as_provider;
use datafusion::functions_table::generate_series::GenerateSeriesTable;
use datafusion::logical_expr::{ColumnarValue, EmptyRelation, TableScan, Values};
use datafusion::scalar::ScalarValue;
use sql::{SqlError, SqlState};

use super::lower::{Lowering, schema_of};
use super::{NodeIndex, PlanKind, Properties, physical};

/// Rows of a series that a view may keep: more are better made by the reader.
const SERIES_ROWS_MAX: usize = 1_000_000;

impl Lowering<'_> {
    pub(super) fn values(&mut self, values: &Values) -> Result<NodeIndex, SqlError> {
        let schema = schema_of(&values.schema);
        let nothing = datafusion::common::DFSchema::empty();
        let one_row = one_row();
        let mut columns: Vec<Vec<ScalarValue>> =
            vec![Vec::with_capacity(values.values.len()); schema.fields().len()];
        for row in &values.values {
            for (column, expression) in columns.iter_mut().zip(row) {
                let value = physical(expression, &nothing)?.evaluate(&one_row).map_err(from_datafusion)?;
                column.push(match value {
                    ColumnarValue::Scalar(value) => value,
                    ColumnarValue::Array(array) => {
                        ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)?
                    }
                });
            }
        }
        let columns = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
            let column = ScalarValue::iter_to_array(column)?;
            Ok(arrow::compute::cast(&column, field.data_type())?)
        });
        let columns = columns.collect::<datafusion::common::Result<Vec<_>>>().map_err(from_datafusion)?;
        let fields = schema.fields().iter().map(|f| Field::clone(f).with_nullable(true)).collect::<Vec<_>>();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(from_arrow)?;
        let text = format!("values {:?}", rows.columns());
        Ok(self.constant(rows, text))
    }

    /// A SELECT without FROM stands on one row without columns; here it has one that nobody reads, because kernels
    /// lose the length of batches without columns.
    pub(super) fn empty_relation(&mut self, empty: &EmptyRelation) -> NodeIndex {
        match empty.produce_one_row {
            true => self.constant(one_row(), "one row".into()),
            false => self.constant(RecordBatch::new_empty(schema_of(&empty.schema)), "no rows".into()),
        }
    }

    /// `FROM generate_series(1, 10)`, whose rows the planner makes lazily; `None` for other relations.
    pub(super) fn series(&mut self, scan: &TableScan) -> Result<Option<NodeIndex>, SqlError> {
        let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
        let Some(series) = (provider.as_ref() as &dyn std::any::Any).downcast_ref::<GenerateSeriesTable>()
        else {
            return Ok(None);
        };
        let generator = series.as_generator(8192).map_err(from_datafusion)?;
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(batch) = generator.write().generate_next_batch().map_err(from_datafusion)? {
            rows += batch.num_rows();
            if rows > SERIES_ROWS_MAX {
                return Err(SqlError::new(
                    SqlState::ConfigurationLimitExceeded,
                    format!(
                        "generate_series() gives more than {SERIES_ROWS_MAX} rows to a materialized view"
                    ),
                )
                .with_hint("use a shorter series, or CREATE VIEW, which is computed when it is read"));
            }
            batches.push(batch);
        }
        let schema = datafusion::datasource::TableProvider::schema(series);
        let rows = concat_batches(&schema, &batches).map_err(from_arrow)?;
        let text = format!("series {series:?}");
        Ok(Some(self.constant(rows, text)))
    }

    fn constant(&mut self, rows: RecordBatch, text: String) -> NodeIndex {
        let schema = rows.schema();
        let properties =
            Properties { append_only: true, time: vec![None; schema.fields().len()], ..Default::default() };
        self.add(PlanKind::Constant(rows), text, vec![], schema, properties)
    }
}

fn one_row() -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("row", DataType::Boolean, false)]));
    RecordBatch::try_new(schema, vec![Arc::new(BooleanArray::from(vec![true]))]).expect("one row is a batch")
}

fn from_datafusion(error: datafusion::error::DataFusionError) -> SqlError {
    sql::planner::from_datafusion(error, "")
}

fn from_arrow(error: arrow::error::ArrowError) -> SqlError {
    SqlError::internal(error.to_string())
}
