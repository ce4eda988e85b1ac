//! TUMBLE, HOP and CUMULATE as rows: each row once per window that holds it.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::ZSet;
use sql::window_tvf::WindowKind;

use crate::operators::microseconds;
use crate::plan::ExpandSpec;

/// For each row that [`expand`] gives, the number of the row it was made of.
pub fn rows_of_windows(spec: &ExpandSpec, change: &ZSet) -> dataflow::Result<Vec<u32>> {
    let times = microseconds(change.rows().column(spec.time_column))?;
    let windows = |time: &i64| match spec.kind {
        WindowKind::Tumble { .. } => 1,
        _ => spec.kind.windows(*time).count(),
    };
    let rows = times.values().iter().enumerate();
    Ok(rows.flat_map(|(row, time)| std::iter::repeat_n(row as u32, windows(time))).collect())
}

/// The change with `window_start` and `window_end` appended. The time column holds no nulls.
pub fn expand(spec: &ExpandSpec, change: &ZSet, output: &SchemaRef) -> dataflow::Result<ZSet> {
    let times = microseconds(change.rows().column(spec.time_column))?;
    let mut starts = Vec::with_capacity(change.len());
    let mut ends = Vec::with_capacity(change.len());
    let change = match spec.kind {
        WindowKind::Tumble { size_us, offset_us } => {
            for time in times.values() {
                let start = (time - offset_us).div_euclid(size_us) * size_us + offset_us;
                starts.push(start);
                ends.push(start + size_us);
            }
            change.clone()
        }
        _ => {
            let mut rows = Vec::with_capacity(change.len());
            for (row, time) in times.values().iter().enumerate() {
                for (start, end) in spec.kind.windows(*time) {
                    rows.push(row as u32);
                    starts.push(start);
                    ends.push(end);
                }
            }
            change.take(&UInt32Array::from(rows))?
        }
    };
    let bound = |values: Vec<i64>, data_type: &DataType| -> ArrayRef {
        let DataType::Timestamp(_, zone) = data_type else { unreachable!("window bounds are timestamps") };
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone()))
    };
    let width = output.fields().len();
    let mut columns = change.rows().columns().to_vec();
    columns.push(bound(starts, output.field(width - 2).data_type()));
    columns.push(bound(ends, output.field(width - 1).data_type()));
    Ok(change.with_rows(arrow::array::RecordBatch::try_new(Arc::clone(output), columns)?))
}
