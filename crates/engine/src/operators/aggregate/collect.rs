//! string_agg and array_agg: all values of a group, in order.
//!
//! A group keeps an ordered multiset of rows in arrow's row format: the ORDER BY columns, then the value,
//! then string_agg's delimiter. So without ORDER BY the order is that of the values, and ties of an ORDER
//! BY are broken by value: the result never depends on the order of arrival. array_agg keeps NULLs,
//! string_agg skips them; a group without values gives NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::row::{RowConverter, SortField};
use dataflow::{Error, Result, StateReader, StateWriter, StepContext};

use super::accumulator::{Accumulator, CallRows, States, unsupported};
use super::change::conform;
use super::extreme::{add_bytes, load_byte_sets, merge_bytes, reset_bytes, save_byte_sets};
use super::multiset::Multiset;
use super::{AggregateCall, AggregateFunction};

/// string_agg or array_agg.
pub struct Collect {
    shape: Shape,
    data_type: DataType,
    // Columns of a kept row, as numbers of the call's columns: ORDER BY, then arguments.
    order: Vec<usize>,
    // Where the first argument stands in a kept row.
    value: usize,
    converter: RowConverter,
    states: States<Multiset<Box<[u8]>>>,
    heap_bytes: usize,
}

enum Shape {
    Text,
    List(FieldRef),
}

impl Collect {
    /// # Errors
    /// If the argument can't be collected into the result's type.
    pub fn new(call: &AggregateCall, input: &SchemaRef) -> Result<Collect> {
        let data_type = call.output.data_type().clone();
        let type_of = |column: &usize| input.field(*column).data_type().clone();
        let value_type = type_of(&call.arguments[0]);
        let shape = match (&call.function, &data_type) {
            (AggregateFunction::ArrayAgg, DataType::List(item)) if *item.data_type() == value_type => {
                Shape::List(Arc::clone(item))
            }
            (AggregateFunction::StringAgg, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
                if is_text(&value_type) =>
            {
                Shape::Text
            }
            _ => return Err(unsupported(call, &value_type)),
        };
        let ordering = call
            .order_by
            .iter()
            .map(|(column, options)| SortField::new_with_options(type_of(column), *options));
        let arguments = call.arguments.iter().map(|column| SortField::new(type_of(column)));
        let (arguments_len, order_len) = (call.arguments.len(), call.order_by.len());
        Ok(Collect {
            shape,
            data_type,
            order: (arguments_len..arguments_len + order_len).chain(0..arguments_len).collect(),
            value: order_len,
            converter: RowConverter::new(ordering.chain(arguments).collect())?,
            states: States::default(),
            heap_bytes: 0,
        })
    }

    fn texts(&self, lengths: &[Option<usize>], columns: &[ArrayRef]) -> Result<ArrayRef> {
        let values = conform(Arc::clone(&columns[self.value]), &DataType::Utf8)?;
        let delimiters = conform(Arc::clone(&columns[self.value + 1]), &DataType::Utf8)?;
        let (values, delimiters) = (values.as_string::<i32>(), delimiters.as_string::<i32>());
        let mut at = 0;
        let mut texts: Vec<Option<String>> = Vec::with_capacity(lengths.len());
        for length in lengths {
            texts.push(length.map(|length| {
                let mut text = String::new();
                for row in at..at + length {
                    if row > at && delimiters.is_valid(row) {
                        text.push_str(delimiters.value(row));
                    }
                    text.push_str(values.value(row));
                }
                at += length;
                text
            }));
        }
        conform(Arc::new(StringArray::from(texts)), &self.data_type)
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

impl Accumulator for Collect {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let columns: Vec<ArrayRef> =
            self.order.iter().map(|column| Arc::clone(&rows.columns[*column])).collect();
        let coded = self.converter.convert_columns(&columns)?;
        let selection = match self.shape {
            Shape::Text => rows.selected(1),
            Shape::List(_) => rows.selected(0),
        };
        let (states, heap_bytes) = (&mut self.states.0, &mut self.heap_bytes);
        rows.each(selection.as_ref(), |row, slot, weight| {
            add_bytes(&mut states[slot], coded.row(row).data(), weight, heap_bytes);
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        merge_bytes(&mut self.states, from, into, sign, &mut self.heap_bytes);
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_empty()
    }

    fn reset(&mut self, slots: &[u32]) {
        reset_bytes(&mut self.states, slots, &mut self.heap_bytes);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let mut rows = Vec::new();
        // Per slot: how many rows, `None` for a group without values.
        let mut lengths = Vec::with_capacity(slots.len());
        for slot in slots {
            let before = rows.len();
            for (bytes, count) in self.states.of(*slot).iter() {
                for _ in 0..count {
                    rows.push(parser.parse(bytes));
                }
            }
            lengths.push(Some(rows.len() - before).filter(|length| *length > 0));
        }
        if i32::try_from(rows.len()).is_err() {
            return Err(Error::Operator(
                "string_agg or array_agg gives more than 2^31 values in one step".to_owned(),
            ));
        }
        let columns = self.converter.convert_rows(rows)?;
        match &self.shape {
            Shape::Text => self.texts(&lengths, &columns),
            Shape::List(item) => {
                let values = conform(Arc::clone(&columns[self.value]), item.data_type())?;
                let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or(0)));
                let nulls = NullBuffer::from_iter(lengths.iter().map(Option::is_some));
                Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, Some(nulls))?))
            }
        }
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_byte_sets(&self.states, slots, out);
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        load_byte_sets(&mut self.states, slots, &mut self.heap_bytes, saved)
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes() + self.heap_bytes
    }
}
