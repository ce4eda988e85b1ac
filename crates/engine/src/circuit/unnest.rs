//! Rows multiplied by the elements of their arrays. Stateless: each new row leaves with the weight it came with.
//!
//! Several arrays are unnested side by side; the shorter ones are filled up with NULL. The fields of a struct become
//! columns of the same row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, SchemaRef};
use dataflow::{Error, Result, ZSet};

use crate::plan::{UnnestColumn, UnnestSpec, UnnestWithout};

/// Most rows that one step may give: a series with a wrong end must cost its view, not the server.
const ROWS_MAX: usize = 50_000_000;

/// Where each row's elements stand in its array's values.
struct Elements {
    values: ArrayRef,
    /// Per row: the first element, and how many.
    spans: Vec<(u64, usize)>,
    /// Per row: there is an array, be it empty.
    present: Vec<bool>,
}

/// How a change is multiplied.
struct Layout {
    /// By number of the input's column: the arrays that are unnested.
    arrays: Vec<Option<Elements>>,
    /// Per row of the output: the row of the input.
    sources: Vec<u32>,
    /// Per row of the output: the number of the element, from 0.
    positions: Vec<u32>,
}

fn layout(spec: &UnnestSpec, change: &ZSet) -> Result<Layout> {
    let rows = change.rows();
    let mut arrays: Vec<Option<Elements>> = (0..rows.num_columns()).map(|_| None).collect();
    for column in spec.columns.iter().filter_map(UnnestColumn::element_of) {
        if arrays[column].is_none() {
            arrays[column] = Some(elements(rows.column(column))?);
        }
    }
    let mut sources: Vec<u32> = Vec::with_capacity(change.len());
    let mut positions: Vec<u32> = Vec::with_capacity(change.len());
    for row in 0..change.len() {
        let unnested = || arrays.iter().flatten();
        let longest = unnested().map(|array| array.spans[row].1).max().unwrap_or(0);
        // A struct alone multiplies nothing.
        let stays = longest == 0
            && match spec.without_elements {
                _ if unnested().next().is_none() => true,
                UnnestWithout::Drop => false,
                UnnestWithout::KeepNull => unnested().any(|array| !array.present[row]),
                UnnestWithout::Keep => true,
            };
        let count = if stays { 1 } else { longest };
        if sources.len() + count > ROWS_MAX {
            return Err(Error::Operator(format!(
                "unnest gives more than {ROWS_MAX} rows in one step; limit the arrays or the series"
            )));
        }
        sources.extend(std::iter::repeat_n(row as u32, count));
        positions.extend(0..count as u32);
    }
    Ok(Layout { arrays, sources, positions })
}

/// For each row of the output, the number of the row that it was made of.
pub fn rows_of_elements(spec: &UnnestSpec, change: &ZSet) -> Result<Vec<u32>> {
    Ok(layout(spec, change)?.sources)
}

/// The change with its arrays unnested.
pub fn unnest(spec: &UnnestSpec, change: &ZSet, output: &SchemaRef) -> Result<ZSet> {
    let Layout { arrays, sources, positions } = layout(spec, change)?;
    let taken = UInt32Array::from(sources);
    let repeated = change.take(&taken)?;
    let mut columns = Vec::with_capacity(spec.columns.len());
    for column in &spec.columns {
        columns.push(match column {
            UnnestColumn::Row(column) => Arc::clone(repeated.rows().column(*column)),
            UnnestColumn::Field(column, field) => {
                let fields = repeated.rows().column(*column);
                let fields = fields.as_struct_opt().ok_or_else(|| not_unnestable(fields.data_type()))?;
                let inner = fields.column(*field);
                match fields.nulls() {
                    None => Arc::clone(inner),
                    // A NULL struct has NULL fields, whatever stands below.
                    Some(nulls) => {
                        arrow::compute::nullif(inner, &arrow::array::BooleanArray::new(!nulls.inner(), None))?
                    }
                }
            }
            UnnestColumn::Element(column) => {
                let array = arrays[*column].as_ref().expect("collected above");
                let indices = taken.values().iter().zip(&positions).map(|(row, position)| {
                    let (start, length) = array.spans[*row as usize];
                    ((*position as usize) < length).then(|| start + u64::from(*position))
                });
                take(&array.values, &UInt64Array::from_iter(indices), None)?
            }
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(taken.len()));
    Ok(repeated.with_rows(RecordBatch::try_new_with_options(Arc::clone(output), columns, &options)?))
}

fn elements(column: &ArrayRef) -> Result<Elements> {
    match column.data_type() {
        DataType::List(_) => Ok(of_list::<i32>(column)),
        DataType::LargeList(_) => Ok(of_list::<i64>(column)),
        DataType::FixedSizeList(item, _) | DataType::ListView(item) | DataType::LargeListView(item) => {
            let item = Arc::new(Field::clone(item));
            Ok(of_list::<i64>(&cast(column, &DataType::LargeList(item))?))
        }
        other => Err(not_unnestable(other)),
    }
}

fn not_unnestable(data_type: &DataType) -> Error {
    Error::Operator(format!("values of type {data_type} can't be unnested"))
}

fn of_list<O: OffsetSizeTrait>(column: &ArrayRef) -> Elements {
    let lists = column.as_list::<O>();
    let offsets = lists.value_offsets();
    let present: Vec<bool> = (0..lists.len()).map(|row| lists.is_valid(row)).collect();
    let spans = (0..lists.len())
        .map(|row| {
            let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
            (start as u64, if present[row] { end - start } else { 0 })
        })
        .collect();
    Elements { values: Arc::clone(lists.values()), spans, present }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Int32Type, Schema};
    use dataflow::picture::picture;

    fn input(weights: Vec<i64>) -> ZSet {
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("d")]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None, Some(3)]),
            Some(vec![]),
            Some(vec![Some(9)]),
            None,
        ]));
        let numbers: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(vec![
                Some(vec![Some(1), Some(2)]),
                Some(vec![]),
                None,
                None,
            ]));
        let rows = RecordBatch::try_from_iter([("name", names), ("list", lists), ("n", numbers)]).unwrap();
        ZSet::new(rows, weights)
    }

    fn run(without_elements: UnnestWithout, input: &ZSet) -> String {
        let columns = vec![UnnestColumn::Row(0), UnnestColumn::Element(1), UnnestColumn::Element(2)];
        let output = Arc::new(Schema::new(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("list", DataType::Int32, true),
            Field::new("n", DataType::Int64, true),
        ]));
        picture(&[unnest(&UnnestSpec { columns, without_elements }, input, &output).unwrap()])
    }

    #[test]
    fn arrays_go_side_by_side_with_the_weight_of_their_row() {
        assert_eq!(
            run(UnnestWithout::Drop, &input(vec![1, 1, -2, 1])),
            "- 2  NULL  9  NULL\n+ 1  a  1  1\n+ 1  a  3  NULL\n+ 1  a  NULL  2\n"
        );
        assert_eq!(run(UnnestWithout::Drop, &ZSet::empty(input(vec![1; 4]).schema())), "");
    }

    #[test]
    fn rows_without_elements_stay_when_asked() {
        let rows = |text: String| {
            text.lines().filter(|l| l.ends_with("NULL  NULL")).map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(
            rows(run(UnnestWithout::Keep, &input(vec![1; 4]))),
            ["+ 1  b  NULL  NULL", "+ 1  d  NULL  NULL"]
        );
        assert_eq!(rows(run(UnnestWithout::KeepNull, &input(vec![1; 4]))), ["+ 1  d  NULL  NULL"]);
    }

    #[test]
    fn a_slice_of_a_batch_keeps_its_elements() {
        let sliced = input(vec![1; 4]).slice(2, 1);
        assert_eq!(run(UnnestWithout::Drop, &sliced), "+ 1  NULL  9  NULL\n");
        let _ = Int64Array::from(vec![0]);
    }
}
