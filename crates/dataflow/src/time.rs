//! Logical and event time.

use std::fmt;

/// Number of an engine step that was published. All views read at one tick agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// Event time up to which an input is complete: microseconds since 1970-01-01 UTC.
///
/// A row is *late* for a window when the window's end is at or before the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Nothing is known to be complete; also the watermark of an input that declares none.
    pub const MIN: Watermark = Watermark(i64::MIN);
    /// Everything has arrived (a bounded input at its end).
    pub const MAX: Watermark = Watermark(i64::MAX);

    /// True when a window that ends at `end_us` will see no more rows.
    pub fn closes(self, end_us: i64) -> bool {
        end_us <= self.0
    }

    /// The watermark of rows that come up to `delay_us` later than those it was made for.
    pub fn behind(self, delay_us: i64) -> Watermark {
        // The end of the input is the end of all.
        if self == Watermark::MAX { self } else { Watermark(self.0.saturating_sub(delay_us)) }
    }
}

impl Default for Watermark {
    fn default() -> Self {
        Watermark::MIN
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
