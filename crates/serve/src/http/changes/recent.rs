//! Only the newest part of a view: `recent=orders_per_minute.window_start:3600`.
//!
//! A view of windows grows as long as the shop lives, but a page shows the last hour. Kept are rows
//! whose time is at most so many seconds older than the newest one seen on this stream; rows that
//! have become older are left to the reader to forget.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use dataflow::ZSet;

use super::super::problem::{Problem, ProblemKind};

/// What was asked for, not yet checked against the view's columns.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentRequest {
    pub view: String,
    column: String,
    seconds: u32,
}

impl RecentRequest {
    /// # Errors
    /// The 400 to answer with.
    pub fn parse_list(text: &str) -> Result<Vec<RecentRequest>, Problem> {
        let mut requests = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let request = part.rsplit_once(':').and_then(|(name, seconds)| {
                let (view, column) = name.rsplit_once('.')?;
                let seconds = seconds.parse().ok()?;
                Some(RecentRequest { view: view.to_string(), column: column.to_string(), seconds })
            });
            requests.push(request.ok_or_else(|| {
                Problem::new(
                    ProblemKind::InvalidParameter,
                    format!("recent must be view.column:seconds, not \"{part}\""),
                )
                .with("parameter", "recent")
            })?);
        }
        Ok(requests)
    }

    /// # Errors
    /// The 400 when the view has no such column of times.
    pub fn bind(&self, schema: &SchemaRef) -> Result<Recent, Problem> {
        let column = schema.index_of(&self.column).ok().filter(|index| {
            matches!(
                schema.field(*index).data_type(),
                DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64
            )
        });
        match column {
            Some(column) => {
                Ok(Recent { column, window_us: i64::from(self.seconds) * 1_000_000, newest: None })
            }
            None => Err(Problem::new(
                ProblemKind::InvalidParameter,
                format!("view \"{}\" has no column \"{}\" of times", self.view, self.column),
            )
            .with("parameter", "recent")),
        }
    }
}

/// The filter of one view on one stream.
pub struct Recent {
    column: usize,
    window_us: i64,
    newest: Option<i64>,
}

impl Recent {
    pub fn filter_snapshot(&mut self, batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
        let times: Vec<Option<ArrayRef>> = batches.iter().map(|batch| self.times(batch)).collect();
        for times in times.iter().flatten() {
            self.see(times, |_| true);
        }
        let filtered = batches.iter().zip(&times).map(|(batch, times)| match times {
            Some(times) => filter_record_batch(batch, &self.mask(times)).unwrap_or_else(|_| batch.clone()),
            None => batch.clone(),
        });
        filtered.collect()
    }

    pub fn filter_change(&mut self, change: ZSet) -> ZSet {
        let Some(times) = self.times(change.rows()) else {
            return change;
        };
        self.see(&times, |row| change.weight(row) > 0);
        change.filter(&self.mask(&times)).unwrap_or(change)
    }

    fn times(&self, batch: &RecordBatch) -> Option<ArrayRef> {
        cast(batch.column(self.column), &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()
    }

    fn see(&mut self, times: &ArrayRef, counts: impl Fn(usize) -> bool) {
        let times = times.as_primitive::<TimestampMicrosecondType>();
        for row in (0..times.len()).filter(|row| times.is_valid(*row) && counts(*row)) {
            self.newest = self.newest.max(Some(times.value(row)));
        }
    }

    fn mask(&self, times: &ArrayRef) -> BooleanArray {
        let oldest = self.newest.map_or(i64::MIN, |newest| newest.saturating_sub(self.window_us));
        let times = times.as_primitive::<TimestampMicrosecondType>();
        times.iter().map(|time| Some(time.is_some_and(|time| time >= oldest))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Int64Array, TimestampMicrosecondArray};

    use super::*;

    fn rows(seconds: &[i64]) -> RecordBatch {
        let times = seconds.iter().map(|second| second * 1_000_000).collect::<Vec<_>>();
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        RecordBatch::try_from_iter([("at", times)]).unwrap()
    }

    fn recent(seconds: u32) -> Recent {
        let request = &RecentRequest::parse_list(&format!("v.at:{seconds}")).unwrap()[0];
        request.bind(&rows(&[]).schema()).unwrap()
    }

    fn times_of(batch: &RecordBatch) -> Vec<i64> {
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        times.values().iter().map(|time| time / 1_000_000).collect()
    }

    #[test]
    fn keeps_the_newest_rows_of_all_batches() {
        let kept = recent(10).filter_snapshot(vec![rows(&[100, 5]), rows(&[89, 90])]);
        assert_eq!(kept.iter().map(times_of).collect::<Vec<_>>(), [vec![100], vec![90]]);
    }

    #[test]
    fn the_window_moves_with_insertions_only() {
        let mut recent = recent(10);
        recent.filter_snapshot(vec![rows(&[100])]);
        let change = recent.filter_change(ZSet::new(rows(&[500, 95, 80]), vec![-1, 1, -1]));
        assert_eq!(times_of(change.rows()), [500, 95]);
        let change = recent.filter_change(ZSet::inserts(rows(&[120, 105])));
        assert_eq!(times_of(change.rows()), [120]);
    }

    #[test]
    fn asks_for_a_column_of_times() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let schema = RecordBatch::try_from_iter([("at", numbers)]).unwrap().schema();
        assert!(RecentRequest::parse_list("v.at:5").unwrap()[0].bind(&schema).is_err());
        let days: ArrayRef = Arc::new(Date32Array::from(vec![1]));
        let schema = RecordBatch::try_from_iter([("at", days)]).unwrap().schema();
        assert!(RecentRequest::parse_list("v.at:5").unwrap()[0].bind(&schema).is_ok());
        for wrong in ["v", "v:5", "v.at", "v.at:x", "v.at:-1"] {
            assert!(RecentRequest::parse_list(wrong).is_err(), "{wrong}");
        }
        assert_eq!(RecentRequest::parse_list("").unwrap(), []);
    }
}
