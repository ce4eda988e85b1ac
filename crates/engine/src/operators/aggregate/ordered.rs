//! first_value, last_value, percentile_cont, percentile_disc and mode: one value out of the group's ordered ones.
//!
//! A group keeps all of its values, coded so that bytes sort as the ORDER BY says; ties of an ORDER BY are broken by
//! the value itself, so that the order of arrival does not show. first_value and last_value of append-only groups keep
//! one value. Percentiles and mode skip NULLs, first_value and last_value only with IGNORE NULLS.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use dataflow::{Result, StateReader, StateWriter, StepContext};
use sql::aggregates::ordered_set::{cont_position, disc_position, interpolated};

use super::accumulator::{Accumulator, CallRows, States, unsupported};
use super::change::conform;
use super::columns::{load_bytes, load_sets, save_integers, save_lengths};
use super::ranked::Ranked;
use super::{AggregateCall, AggregateFunction};

/// One of the group's values, by its place in the order.
pub struct Ordered {
    function: AggregateFunction,
    data_type: DataType,
    /// Columns of a kept row, as numbers of the call's columns.
    columns: Vec<usize>,
    /// Where the value stands in a kept row.
    value: usize,
    /// How many of the call's columns must have a value.
    not_null: usize,
    converter: RowConverter,
    types: Vec<DataType>,
    /// Keep only the first or the last value: nothing is ever taken away.
    single: bool,
    states: States<Ranked>,
    heap_bytes: isize,
}

impl Ordered {
    /// # Errors
    /// If the result's type is not that of the values.
    pub fn new(call: &AggregateCall, input: &SchemaRef, append_only: bool) -> Result<Ordered> {
        use AggregateFunction::*;
        let type_of = |column: usize| input.field(column).data_type().clone();
        let value_type = type_of(call.arguments[0]);
        if *call.output.data_type() != value_type
            || (matches!(call.function, PercentileCont(_)) && value_type != DataType::Float64)
        {
            return Err(unsupported(call, &value_type));
        }
        let ends = matches!(call.function, FirstValue { .. } | LastValue { .. });
        let (fields, columns, value) = if ends {
            let order = call.order_by.iter();
            let mut fields: Vec<SortField> = order
                .map(|(column, options)| SortField::new_with_options(type_of(*column), *options))
                .collect();
            fields.push(SortField::new(value_type.clone()));
            let columns = (1..=call.order_by.len()).chain([0]).collect();
            (fields, columns, call.order_by.len())
        } else {
            // WITHIN GROUP orders by the value itself.
            let options = call.order_by.first().map_or_else(Default::default, |(_, options)| *options);
            (vec![SortField::new_with_options(value_type.clone(), options)], vec![0], 0)
        };
        let all: Vec<usize> =
            call.arguments.iter().copied().chain(call.order_by.iter().map(|(column, _)| *column)).collect();
        let columns_types = columns.iter().map(|column: &usize| type_of(all[*column])).collect();
        let skips_nulls = match call.function {
            FirstValue { ignore_nulls } | LastValue { ignore_nulls } => ignore_nulls,
            _ => true,
        };
        Ok(Ordered {
            function: call.function,
            data_type: value_type,
            columns,
            value,
            not_null: usize::from(skips_nulls),
            types: columns_types,
            converter: RowConverter::new(fields)?,
            single: ends && append_only,
            states: States::default(),
            heap_bytes: 0,
        })
    }

    fn replaces(&self, new: &[u8], old: &[u8]) -> bool {
        match self.function {
            AggregateFunction::FirstValue { .. } => new < old,
            _ => new > old,
        }
    }

    fn add(&mut self, slot: usize, value: &[u8], weight: i64) {
        if self.single {
            let old = self.states.0[slot].first();
            if old.is_some_and(|old| !self.replaces(value, old)) {
                return;
            }
            self.heap_bytes -= self.states.0[slot].heap_bytes() as isize;
            self.states.0[slot] = Ranked::default();
            self.heap_bytes += self.states.0[slot].add(value, 1);
        } else {
            self.heap_bytes += self.states.0[slot].add(value, weight);
        }
    }

    /// The values in these coded rows; NULL for `None`.
    fn decoded(&self, codes: &[Option<&[u8]>]) -> Result<ArrayRef> {
        let nulls: Vec<ArrayRef> =
            self.types.iter().map(|data_type| arrow::array::new_null_array(data_type, 1)).collect();
        let null = self.converter.convert_columns(&nulls)?;
        let parser = self.converter.parser();
        let rows = codes.iter().map(|code| code.map_or(null.row(0), |bytes| parser.parse(bytes)));
        let mut columns = self.converter.convert_rows(rows)?;
        conform(columns.swap_remove(self.value), &self.data_type)
    }
}

impl Accumulator for Ordered {
    fn grow(&mut self, slots_len: usize) {
        self.states.grow(slots_len);
    }

    fn update(&mut self, rows: &CallRows<'_>) -> Result<()> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|c| Arc::clone(&rows.columns[*c])).collect();
        // Both zeros are one value.
        let columns = columns.iter().map(super::group_table::equality_form).collect::<Vec<_>>();
        let coded = self.converter.convert_columns(&columns)?;
        rows.each(rows.selected(self.not_null).as_ref(), |row, slot, weight| {
            self.add(slot, coded.row(row).data(), weight);
        });
        Ok(())
    }

    fn merge(&mut self, from: &[u32], into: &[u32], sign: i64) -> Result<()> {
        assert!(sign > 0 || !self.single, "a single value can't be taken back");
        for (from, into) in from.iter().zip(into) {
            let other = std::mem::take(&mut self.states.0[*from as usize]);
            for (value, count) in other.iter() {
                self.add(*into as usize, value, sign * count);
            }
            self.states.0[*from as usize] = other;
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        !self.single
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.states.of(slot).is_empty()
    }

    fn reset(&mut self, slots: &[u32]) {
        let held = slots.iter().map(|slot| self.states.of(*slot).heap_bytes() as isize).sum::<isize>();
        self.heap_bytes -= held;
        self.states.reset(slots);
    }

    fn evaluate(&self, slots: &[u32], _: &mut StepContext) -> Result<ArrayRef> {
        use AggregateFunction::*;
        let states = || slots.iter().map(|slot| self.states.of(*slot));
        if let PercentileCont(fraction) = self.function {
            let positions: Vec<(i64, i64, f64)> =
                states().map(|state| cont_position(fraction.value(), state.count())).collect();
            let of = |number: fn(&(i64, i64, f64)) -> i64| -> Result<ArrayRef> {
                let codes: Vec<_> =
                    states().zip(&positions).map(|(state, p)| state.nth(number(p).max(0))).collect();
                self.decoded(&codes)
            };
            let (low, high) = (of(|p| p.0)?, of(|p| p.1)?);
            let (low, high) = (low.as_primitive::<Float64Type>(), high.as_primitive::<Float64Type>());
            let values = positions.iter().enumerate().map(|(row, (_, _, part))| {
                low.is_valid(row).then(|| interpolated(low.value(row), high.value(row), *part))
            });
            return Ok(Arc::new(Float64Array::from_iter(values)));
        }
        let codes: Vec<Option<&[u8]>> = states()
            .map(|state| match self.function {
                PercentileDisc(fraction) => state.nth(disc_position(fraction.value(), state.count())),
                Mode => state.mode(),
                FirstValue { .. } => state.first(),
                _ => state.last(),
            })
            .collect();
        self.decoded(&codes)
    }

    fn renumber(&mut self, live: &[u32]) {
        self.states.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) -> Result<()> {
        save_lengths(self.states.at(slots).map(Ranked::len), out);
        save_integers(self.states.at(slots).flat_map(Ranked::iter).map(|(_, count)| count), out);
        self.states.at(slots).flat_map(Ranked::iter).for_each(|(value, _)| out.bytes(value));
        Ok(())
    }

    fn load(&mut self, slots: &[u32], saved: &mut StateReader<'_>) -> Result<()> {
        let (states, heap_bytes) = (&mut self.states.0, &mut self.heap_bytes);
        load_sets(slots, saved, load_bytes, |slot, entries| {
            let state = Ranked::of_sorted(entries);
            *heap_bytes += state.heap_bytes() as isize;
            states[slot as usize] = state;
        })
    }

    fn size_bytes(&self) -> usize {
        self.states.size_bytes() + self.heap_bytes.max(0) as usize
    }
}
