//! Which windows a time belongs to, in panes.
//!
//! Time is cut into panes so that every window is a run of whole panes:
//!
//! ```text
//!   HOP slide 2, size 6            CUMULATE step 2, size 6
//!   |--|--|--|--|--|  panes        |--|--|--|--|--|--|  panes
//!   [--------)                     [--)        [--)
//!      [--------)                  [-----)     [-----)
//!         [--------)               [--------)  [--------)
//! ```
//!
//! Both kinds have windows whose ends follow each other by `slide_us`, with starts that never go back, and the
//! windows of a pane have ends in one run: [`Geometry::first_end`] to [`Geometry::last_end`].

use dataflow::{Error, Result, Watermark};

use super::{HopKind, HopSpec};

/// Panes and windows of a [`HopSpec`].
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    kind: HopKind,
    pub slide_us: i64,
    size_us: i64,
    offset_us: i64,
    pub pane_us: i64,
}

/// Times beyond this (some 73,000 years from 1970) are in no window, so that sums of times can't overflow.
const TIME_US_MAX: i64 = 1 << 61;

impl Geometry {
    /// # Errors
    /// If slide or size are not above zero or too large, or a CUMULATE size is not a multiple of its step.
    pub fn new(spec: &HopSpec) -> Result<Geometry> {
        let (slide_us, size_us) = (spec.slide_us, spec.size_us);
        let valid = 1..TIME_US_MAX / 4;
        if !valid.contains(&slide_us) || !valid.contains(&size_us) {
            return Err(Error::Operator(format!(
                "window slide {slide_us} us or size {size_us} us is out of range"
            )));
        }
        if spec.kind == HopKind::Cumulate && size_us % slide_us != 0 {
            return Err(Error::Operator(format!(
                "CUMULATE needs a size that is a multiple of its step: {size_us} us, {slide_us} us"
            )));
        }
        if !(0..TIME_US_MAX / 4).contains(&spec.allowed_lateness_us) {
            let lateness = spec.allowed_lateness_us;
            return Err(Error::Operator(format!("allowed lateness of {lateness} us is out of range")));
        }
        Ok(match spec.kind {
            HopKind::Hop => {
                let pane_us = greatest_common_divisor(slide_us, size_us);
                Geometry {
                    kind: spec.kind,
                    slide_us,
                    size_us,
                    offset_us: spec.offset_us.rem_euclid(slide_us),
                    pane_us,
                }
            }
            HopKind::Cumulate => {
                let offset_us = spec.offset_us.rem_euclid(size_us);
                Geometry { kind: spec.kind, slide_us, size_us, offset_us, pane_us: slide_us }
            }
        })
    }

    /// Start of the pane that holds this time; `None` for times that are out of range.
    pub fn pane_of(&self, time_us: i64) -> Option<i64> {
        let in_range = (-TIME_US_MAX..=TIME_US_MAX).contains(&time_us);
        in_range.then(|| floor(time_us, self.offset_us, self.pane_us))
    }

    /// End of the first window with this pane.
    pub fn first_end(&self, pane: i64) -> i64 {
        // The smallest end that is at least the pane's end.
        floor(pane + self.pane_us - 1, self.end_offset(), self.slide_us) + self.slide_us
    }

    /// End of the last window with this pane; before its first end when there are gaps between windows and
    /// the pane lies in one.
    pub fn last_end(&self, pane: i64) -> i64 {
        match self.kind {
            HopKind::Hop => floor(pane, self.offset_us, self.slide_us) + self.size_us,
            HopKind::Cumulate => floor(pane, self.offset_us, self.size_us) + self.size_us,
        }
    }

    /// End of the first window that ends after this time.
    pub fn next_end(&self, time_us: i64) -> i64 {
        let time_us = time_us.clamp(-2 * TIME_US_MAX, 2 * TIME_US_MAX);
        floor(time_us, self.end_offset(), self.slide_us) + self.slide_us
    }

    /// Start of the window with this end.
    pub fn start_of(&self, end: i64) -> i64 {
        match self.kind {
            HopKind::Hop => end - self.size_us,
            HopKind::Cumulate => floor(end - 1, self.offset_us, self.size_us),
        }
    }

    /// Ends of all windows with this pane.
    pub fn ends(&self, pane: i64) -> impl Iterator<Item = i64> + use<> {
        (self.first_end(pane)..=self.last_end(pane)).step_by(self.slide_us as usize)
    }

    /// The first key column of a pane's groups: an even number, so that it differs from those of windows.
    pub fn pane_tag(&self, pane: i64) -> i64 {
        (pane - self.offset_us) / self.pane_us * 2
    }

    /// The first key column of the groups of the window with this end.
    pub fn window_tag(&self, end: i64) -> i64 {
        (end - self.offset_us) / self.pane_us * 2 + 1
    }

    /// The end again.
    pub fn end_of_tag(&self, tag: i64) -> i64 {
        (tag - 1) / 2 * self.pane_us + self.offset_us
    }

    fn end_offset(&self) -> i64 {
        match self.kind {
            HopKind::Hop => self.offset_us + self.size_us,
            HopKind::Cumulate => self.offset_us,
        }
    }
}

/// What is known about the rows of one pane in one step; consecutive rows mostly share it.
#[derive(Clone, Copy, Debug)]
pub struct PaneFate {
    pub pane: i64,
    /// At least one window is open for the row.
    pub keep: bool,
    /// At least one window is over.
    pub late: bool,
}

impl PaneFate {
    pub fn of(pane: i64, geometry: &Geometry, lateness_us: i64, watermark: Watermark) -> PaneFate {
        let (first, last) = (geometry.first_end(pane), geometry.last_end(pane));
        let has_window = first <= last;
        PaneFate {
            pane,
            keep: has_window && !watermark.closes(last + lateness_us),
            late: has_window && watermark.closes(first + lateness_us),
        }
    }
}

/// The largest `offset + n * step` that is at most `time`.
fn floor(time: i64, offset: i64, step: i64) -> i64 {
    time - (time - offset).rem_euclid(step)
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(geometry: &Geometry, time: i64) -> Vec<(i64, i64)> {
        let pane = geometry.pane_of(time).unwrap();
        assert!(pane <= time && time < pane + geometry.pane_us);
        geometry.ends(pane).map(|end| (geometry.start_of(end), end)).collect()
    }

    #[test]
    fn panes_know_their_windows() {
        for (kind, slide, size, offset) in [
            (HopKind::Hop, 2, 6, 0),
            (HopKind::Hop, 4, 6, 1),
            (HopKind::Hop, 5, 5, -3),
            (HopKind::Hop, 7, 3, 2),
            (HopKind::Cumulate, 2, 6, 0),
            (HopKind::Cumulate, 3, 12, 5),
        ] {
            let spec = HopSpec {
                kind,
                time_column: 0,
                slide_us: slide,
                size_us: size,
                offset_us: offset,
                allowed_lateness_us: 0,
                best: None,
                window_start_key: None,
                window_end_key: None,
            };
            let geometry = Geometry::new(&spec).unwrap();
            for time in -30..30 {
                let mut expected = Vec::new();
                for n in -30..30 {
                    match kind {
                        HopKind::Hop => expected.push((offset + n * slide, offset + n * slide + size)),
                        HopKind::Cumulate => {
                            let start = offset + n * size;
                            expected.extend((1..=size / slide).map(|i| (start, start + i * slide)));
                        }
                    }
                }
                let next = expected.iter().map(|(_, end)| *end).filter(|end| *end > time).min().unwrap();
                assert_eq!(geometry.next_end(time), next, "{spec:?} after {time}");
                expected.retain(|(start, end)| *start <= time && time < *end);
                expected.sort_by_key(|(_, end)| *end);
                assert_eq!(windows(&geometry, time), expected, "{spec:?} at {time}");
                for (_, end) in expected {
                    assert_eq!(geometry.end_of_tag(geometry.window_tag(end)), end);
                }
            }
        }
    }
}
