//! Holds rows back until they are final: `SELECT ... EMIT ON WINDOW CLOSE` without aggregation.
//!
//! A row leaves once, when the watermark reaches its time (plus `add_us`); a retraction that comes before
//! cancels it. Waiting rows are kept as batches sorted by time, so that leaving is a slice, and batches of
//! like size are merged, as in an LSM tree, so that there are few of them:
//!
//! ```text
//!   run 0  [ left already | ······ waiting ······ ]      longest
//!   run 1  [ left | ··· waiting ··· ]
//!   run 2  [ · ]                                         newest
//! ```
//!
//! State: the waiting rows, dropped as they leave. Late rows (behind the watermark before the step, plus the
//! allowed lateness) are dropped and counted; so are rows without a time, which could never leave.
//! Cost per row: a sort when it comes, and O(log waiting rows) merges.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use dataflow::{
    Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, Watermark, ZSet,
};

use super::Expiry;
use crate::row_codec::{RowCodec, consolidate};

/// Of the saved state.
const FORMAT_VERSION: u8 = 1;

pub struct TemporalBuffer {
    schema: SchemaRef,
    expiry: Expiry,
    codec: RowCodec,
    // Invariant: each has waiting rows.
    runs: Vec<Run>,
}

/// Rows sorted by time, of which the first `left` have left.
struct Run {
    rows: ZSet,
    times: Vec<i64>,
    left: usize,
}

impl Run {
    fn waiting_len(&self) -> usize {
        self.times.len() - self.left
    }

    fn waiting(&self) -> ZSet {
        self.rows.slice(self.left, self.waiting_len())
    }
}

impl TemporalBuffer {
    /// Longer runs are not merged, so that no single step takes long.
    const RUN_ROWS_MAX: usize = 256 * 1024;

    /// # Errors
    /// If the expiry's column is not a timestamp, or a column has no row format.
    pub fn new(schema: SchemaRef, expiry: Expiry) -> Result<TemporalBuffer> {
        let field = schema.field(expiry.column);
        if !matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return Err(Error::Operator(format!(
                "EMIT ON WINDOW CLOSE needs a timestamp, column \"{}\" has type {}",
                field.name(),
                field.data_type()
            )));
        }
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let codec = RowCodec::for_columns(&schema, &columns)?;
        Ok(TemporalBuffer { schema, expiry, codec, runs: Vec::new() })
    }

    fn times(&self, rows: &ZSet) -> TimestampMicrosecondArray {
        rows.rows().column(self.expiry.column).as_primitive::<TimestampMicrosecondType>().clone()
    }

    /// The rows that are neither late nor without a time.
    fn accept(&self, input: &ZSet, ctx: &mut StepContext) -> Result<ZSet> {
        let times = self.times(input);
        let late = |time: i64| self.expiry.expired(time, ctx.watermark_before);
        let late_rows = times.iter().flatten().filter(|time| late(*time)).count();
        if late_rows == 0 && times.null_count() == 0 {
            return Ok(input.clone());
        }
        let keep: BooleanArray =
            times.iter().map(|time| Some(time.is_some_and(|time| !late(time)))).collect();
        ctx.late_rows += late_rows as u64;
        for _ in 0..times.null_count() {
            let column = self.schema.field(self.expiry.column);
            ctx.report_error(|| {
                format!(
                    "row without a value in column \"{}\" belongs to no window that closes",
                    column.name()
                )
            });
        }
        input.filter(&keep)
    }

    fn insert(&mut self, rows: ZSet) -> Result<()> {
        self.push(rows)?;
        while let [.., older, newer] = self.runs.as_slice() {
            let (old_len, new_len) = (older.waiting_len(), newer.waiting_len());
            if old_len > 2 * new_len || old_len + new_len > TemporalBuffer::RUN_ROWS_MAX {
                break;
            }
            let merged = ZSet::concat(&self.schema, &[older.waiting(), newer.waiting()])?;
            self.runs.truncate(self.runs.len() - 2);
            let merged = if merged.all_inserts() { merged } else { consolidate(&merged, &self.codec)? };
            self.push(merged)?;
        }
        Ok(())
    }

    /// Adds a run of these rows, sorted.
    fn push(&mut self, rows: ZSet) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let times = self.times(&rows);
        let times = times.values();
        if times.is_sorted() {
            self.runs.push(Run { times: times.to_vec(), rows, left: 0 });
            return Ok(());
        }
        let mut order: Vec<u32> = (0..times.len() as u32).collect();
        order.sort_by_key(|row| times[*row as usize]);
        let times = order.iter().map(|row| times[*row as usize]).collect();
        self.runs.push(Run { rows: rows.take(&UInt32Array::from(order))?, times, left: 0 });
        Ok(())
    }

    /// Takes out the rows that `watermark` makes final.
    fn close(&mut self, watermark: Watermark) -> Vec<ZSet> {
        let mut closed = Vec::new();
        for run in &mut self.runs {
            let waiting = &run.times[run.left..];
            let count = waiting.partition_point(|time| self.expiry.closed(*time, watermark));
            if count > 0 {
                closed.push(run.rows.slice(run.left, count));
                run.left += count;
            }
        }
        self.runs.retain(|run| run.waiting_len() > 0);
        closed
    }
}

impl Operator for TemporalBuffer {
    fn name(&self) -> &'static str {
        "temporal buffer"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let [input] = inputs else {
            return Err(Error::Operator(format!("temporal buffer takes one input, not {}", inputs.len())));
        };
        if !input.is_empty() {
            let accepted = self.accept(input, ctx)?;
            self.insert(accepted)?;
        }
        let closed = self.close(ctx.watermark);
        let closed = ZSet::concat(&self.schema, &closed)?;
        if closed.all_inserts() { Ok(closed) } else { consolidate(&closed, &self.codec) }
    }

    /// The waiting rows of each run, as columns.
    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        super::undivided(part)?;
        if let Some(field) = self.schema.fields().iter().find(|f| !storage::columns::supports(f.data_type()))
        {
            return Err(Error::State(format!("type {} can't be saved", field.data_type())));
        }
        out.u8(FORMAT_VERSION);
        out.all(self.runs.iter(), |out, run| {
            let waiting = run.waiting();
            out.bytes(&storage::columns::encode_batch(waiting.rows()));
            out.option(waiting.weights(), |out, weights| {
                out.all(weights.iter().copied(), StateWriter::signed)
            });
        });
        Ok(())
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(FORMAT_VERSION)?;
        for _ in 0..saved.count()? {
            let rows = storage::columns::decode_batch(&self.schema, saved.bytes()?)
                .map_err(|e| Error::State(e.to_string()))?;
            let rows = match saved.option(|saved| saved.all(StateReader::signed))? {
                None => ZSet::inserts(rows),
                Some(weights) if weights.len() == rows.num_rows() => ZSet::new(rows, weights),
                Some(_) => return Err(Error::State("rows and weights don't fit".into())),
            };
            self.push(rows)?;
        }
        Ok(())
    }

    fn state_size(&self) -> StateSize {
        let rows = self.runs.iter().map(Run::waiting_len).sum();
        let bytes = self
            .runs
            .iter()
            .map(|run| {
                let columns = run.rows.rows().columns().iter();
                let held: usize =
                    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
                held + run.times.capacity() * 8 + run.rows.weights().map_or(0, size_of_val)
            })
            .sum();
        StateSize { rows, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::saving::{damaged, reopened_whole};
    use std::collections::BTreeMap;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::compute::cast;
    use arrow::datatypes::{Field, Schema};
    use dataflow::picture::picture;

    type Row = (Option<i64>, i64);

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("a", DataType::Int64, true),
        ]))
    }

    fn zset(rows: &[(i64, Row)]) -> ZSet {
        let ts: TimestampMicrosecondArray = rows.iter().map(|(_, row)| row.0).collect();
        let a: Int64Array = rows.iter().map(|(_, row)| Some(row.1)).collect();
        let batch = RecordBatch::try_new(schema(), vec![Arc::new(ts), Arc::new(a)]).unwrap();
        ZSet::new(batch, rows.iter().map(|(weight, _)| *weight).collect())
    }

    fn buffer(add_us: i64, allowed_lateness_us: i64) -> TemporalBuffer {
        TemporalBuffer::new(schema(), Expiry { column: 0, add_us, allowed_lateness_us }).unwrap()
    }

    /// Picture with the time as a number.
    fn show(change: &ZSet) -> String {
        let columns = change.rows().columns();
        let ts = cast(&columns[0], &DataType::Int64).unwrap();
        let schema = Schema::new(vec![
            Field::new("ts", DataType::Int64, true),
            Field::new("a", DataType::Int64, true),
        ]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![ts, Arc::clone(&columns[1])]).unwrap();
        picture(&[change.with_rows(rows)])
    }

    fn step(
        buffer: &mut TemporalBuffer,
        rows: &[(i64, Row)],
        before: i64,
        after: i64,
    ) -> (String, StepContext<'static>) {
        let mut ctx = StepContext {
            watermark_before: Watermark(before),
            watermark: Watermark(after),
            ..StepContext::default()
        };
        let out = buffer.step(&[zset(rows)], &mut ctx).unwrap();
        assert!(out.all_inserts() || out.weights().unwrap().iter().all(|w| *w > 0));
        (show(&out), ctx)
    }

    #[test]
    fn rows_leave_once_when_the_watermark_reaches_them() {
        let mut buffer = buffer(5, 0);
        assert_eq!(step(&mut buffer, &[(1, (Some(20), 2)), (1, (Some(10), 1))], 0, 14).0, "");
        assert_eq!(buffer.state_size().rows, 2);
        assert_eq!(step(&mut buffer, &[], 14, 15).0, "+ 1  10  1\n");
        assert_eq!(step(&mut buffer, &[], 15, 15).0, "");
        assert_eq!(step(&mut buffer, &[], 15, 99).0, "+ 1  20  2\n");
        assert_eq!(buffer.state_size(), StateSize::default());
    }

    #[test]
    fn a_retraction_cancels_a_waiting_row() {
        let mut buffer = buffer(0, 0);
        step(&mut buffer, &[(2, (Some(10), 1)), (1, (Some(10), 7))], 0, 0);
        step(&mut buffer, &[(-1, (Some(10), 1)), (-1, (Some(10), 7)), (1, (Some(10), 8))], 0, 0);
        assert_eq!(step(&mut buffer, &[], 0, 10).0, "+ 1  10  1\n+ 1  10  8\n");
    }

    #[test]
    fn cancelled_rows_do_not_pile_up() {
        let mut buffer = buffer(0, 0);
        for a in 0..1000 {
            step(&mut buffer, &[(1, (Some(10), a))], 0, 0);
            step(&mut buffer, &[(-1, (Some(10), a))], 0, 0);
        }
        assert!(buffer.state_size().rows <= 2, "{:?}", buffer.state_size());
    }

    #[test]
    fn late_rows_are_counted() {
        let mut buffer = buffer(0, 0);
        let (out, ctx) = step(&mut buffer, &[(1, (Some(10), 1)), (1, (Some(11), 2))], 10, 20);
        assert_eq!((out.as_str(), ctx.late_rows), ("+ 1  11  2\n", 1));
    }

    #[test]
    fn allowed_lateness_lets_late_rows_through_at_once() {
        let mut buffer = buffer(0, 5);
        let (out, ctx) = step(&mut buffer, &[(1, (Some(10), 1)), (1, (Some(5), 2))], 12, 12);
        assert_eq!((out.as_str(), ctx.late_rows), ("+ 1  10  1\n", 1));
    }

    #[test]
    fn rows_without_a_time_are_reported() {
        let mut buffer = buffer(0, 0);
        let (out, ctx) = step(&mut buffer, &[(1, (None, 1)), (1, (Some(5), 2))], 0, 5);
        assert_eq!((out.as_str(), ctx.late_rows, ctx.errors_total), ("+ 1  5  2\n", 0, 1));
        assert_eq!(ctx.errors[0], "row without a value in column \"ts\" belongs to no window that closes");
        assert_eq!(buffer.state_size().rows, 0);
    }

    #[test]
    fn equals_the_multiset_of_closed_rows() {
        for seed in 0..3000u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (add_us, allowed_lateness_us) = (random.i64(0..3), *random.choice(&[0, 0, 3]).unwrap());
            let make = || super::tests::buffer(add_us, allowed_lateness_us);
            let mut buffer = make();
            let mut waiting: BTreeMap<Row, i64> = BTreeMap::new();
            let mut watermark = 0;
            for _ in 0..random.usize(1..20) {
                let before = watermark;
                watermark += random.i64(0..6);
                let mut rows = Vec::new();
                let mut late = 0;
                for _ in 0..random.usize(0..12) {
                    let row = (Some(random.i64(before - 3..before + 12)), random.i64(0..3));
                    let present = waiting.get(&row).copied().unwrap_or(0);
                    // Retract only what is there, now and again in the same step.
                    let weight = if present > 0 && random.bool() { -1 } else { random.i64(1..3) };
                    rows.push((weight, row));
                    if row.0.unwrap() + add_us + allowed_lateness_us <= before {
                        late += 1;
                    } else {
                        *waiting.entry(row).or_default() += weight;
                    }
                }
                let mut expected = String::new();
                let mut lines: Vec<String> = Vec::new();
                waiting.retain(|row, weight| {
                    let closes = row.0.unwrap() + add_us <= watermark;
                    if closes && *weight > 0 {
                        lines.push(format!("+ {weight}  {}  {}", row.0.unwrap(), row.1));
                    }
                    !closes && *weight != 0
                });
                lines.sort_by_key(|line| line.split_once("  ").unwrap().1.to_string());
                for line in lines {
                    expected.push_str(&line);
                    expected.push('\n');
                }
                if random.u8(..3) == 0 {
                    buffer = reopened_whole(&buffer, make, &mut random);
                    damaged(&buffer, make, &mut random);
                }
                let (out, ctx) = step(&mut buffer, &rows, before, watermark);
                assert_eq!(out, expected, "seed {seed}");
                assert_eq!(ctx.late_rows, late, "seed {seed}");
            }
        }
    }
}
