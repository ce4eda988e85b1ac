//! The generator behind `connector = 'nexmark'`: pacing, and the columns that the table asks for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::SchemaRef;
use dataflow::{DecodedRows, Poll, Source, SourceError, SourceRows, SourceSpec};

use super::events::Events;
use super::options::NexmarkOptions;

/// Longest wait between two looks at whether somebody wants the source to stop.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Events of this much time are handed on together.
const PORTION: Duration = Duration::from_millis(10);

pub struct NexmarkSource {
    events: Events,
    schema: SchemaRef,
    /// Per column of the schema: it is made; else its DEFAULT applies.
    made: Vec<bool>,
    /// Number of the next event.
    position: u64,
    /// Where and when this run began, for pacing.
    begun: (u64, Instant),
}

impl NexmarkSource {
    /// # Errors
    /// Options, formats or columns that the generator doesn't have.
    pub fn check(spec: &SourceSpec) -> Result<NexmarkOptions, SourceError> {
        let options = NexmarkOptions::parse(&spec.options)?;
        if let Some((format, encode)) = &spec.format
            && !(matches!(format.as_str(), "NATIVE" | "PLAIN") && encode == "NATIVE")
        {
            let message = format!("connector \"nexmark\" does not give FORMAT {format} ENCODE {encode}");
            return Err(SourceError::permanent(message)
                .with_hint("leave FORMAT out, or say FORMAT NATIVE ENCODE NATIVE"));
        }
        let known = options.table.columns();
        for (field, optional) in spec.schema.fields().iter().zip(&spec.optional) {
            if *optional && known.iter().all(|(name, _)| name != field.name()) {
                continue;
            }
            let Some((_, from)) = known.iter().find(|(name, _)| name == field.name()) else {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let message =
                    format!("Nexmark table {} has no column \"{}\"", options.table.name(), field.name());
                return Err(SourceError::permanent(message)
                    .with_hint(format!("its columns are: {}", names.join(", "))));
            };
            if !can_cast_types(from, field.data_type()) {
                let message =
                    format!("column \"{}\" holds {from} values and can't have this type", field.name());
                return Err(SourceError::permanent(message));
            }
        }
        Ok(options)
    }

    /// Goes on at a position, or begins at event 0.
    ///
    /// # Errors
    /// As [`NexmarkSource::check`]; a position that isn't one.
    pub fn open(spec: &SourceSpec, position: Option<&str>) -> Result<NexmarkSource, SourceError> {
        let options = NexmarkSource::check(spec)?;
        let position = match position {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                SourceError::permanent(format!("'{text}' is not a position of connector \"nexmark\""))
            })?,
        };
        let known = options.table.columns();
        let made =
            spec.schema.fields().iter().map(|f| known.iter().any(|(name, _)| name == f.name())).collect();
        let begun = (position, Instant::now());
        let schema = SchemaRef::clone(&spec.schema);
        Ok(NexmarkSource { events: Events::new(options), schema, made, position, begun })
    }

    /// Events that may have been made by now.
    fn due(&self) -> u64 {
        match self.events.options().min_event_gap_ns {
            0 => u64::MAX,
            gap => {
                let made = self.begun.1.elapsed().as_nanos() / u128::from(gap);
                self.begun.0.saturating_add(u64::try_from(made).unwrap_or(u64::MAX))
            }
        }
    }

    fn batch(&self, numbers: &[u64]) -> Result<RecordBatch, SourceError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 1000) * 1000;
        let options = CastOptions { safe: true, ..Default::default() };
        let columns = self
            .schema
            .fields()
            .iter()
            .zip(&self.made)
            .map(|(field, is_made)| {
                if !is_made {
                    return Ok(new_null_array(field.data_type(), numbers.len()));
                }
                let made = self.events.column(field.name(), numbers, now_us);
                cast_with_options(&made, field.data_type(), &options)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| SourceError::permanent(e.to_string()))?;
        let rows = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &rows)
            .map_err(|e| SourceError::permanent(e.to_string()))
    }
}

impl Source for NexmarkSource {
    fn poll(&mut self) -> Result<Poll, SourceError> {
        let end = self.events.options().event_num.unwrap_or(u64::MAX);
        if self.position >= end {
            return Ok(Poll::End);
        }
        let due = self.due().min(end);
        let waiting = due.saturating_sub(self.position);
        // What is paced is handed on in portions: a log record for each event would cost more than the event.
        let gap = self.events.options().min_event_gap_ns;
        let portion = (PORTION.as_nanos() as u64).checked_div(gap).unwrap_or(0).max(1);
        if waiting < portion.min(end - self.position) {
            let missing = portion.min(end - self.position) - waiting;
            return Ok(Poll::Wait(Duration::from_nanos(missing.saturating_mul(gap)).min(WAIT_MAX)));
        }
        let (numbers, next) = self.events.numbers(self.position, due, self.events.options().max_chunk_size);
        if numbers.is_empty() {
            // Only events of other kinds; at the end there is nothing to tell anybody.
            self.position = next;
            return Ok(if next >= end { Poll::End } else { Poll::Wait(Duration::ZERO) });
        }
        let batch = self.batch(&numbers)?;
        self.position = next;
        let count = batch.num_rows() as u32;
        let rows = DecodedRows {
            absent: self
                .made
                .iter()
                .map(|made| (!made).then(|| BooleanBuffer::new_set(batch.num_rows())))
                .collect(),
            batch,
            row_numbers: (0..count).collect(),
            raw_ranges: Vec::new(),
            rejected: Vec::new(),
        };
        Ok(Poll::Rows(SourceRows { rows, body: Vec::new(), position: next.to_string() }))
    }
}
