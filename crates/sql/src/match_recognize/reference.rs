//! A second, dumb matcher for the tests: tries all ways through the pattern in the order of preference, by
//! recursion, and asks the conditions anew each time. It shares nothing with the real one but the pattern's tree.

use super::pattern::Pattern;

/// A row: its time and value; its number is its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) time: i64,
    pub(super) value: Option<i64>,
}

/// What a condition sees: all known rows, the rows matched so far with the one that is tested as the last.
pub(super) struct Tested<'a> {
    pub(super) rows: &'a [Row],
    pub(super) path: &'a [(usize, String)],
}

impl Tested<'_> {
    pub(super) fn number(&self) -> usize {
        self.path.last().map_or(0, |(number, _)| *number)
    }

    pub(super) fn value(&self) -> Option<i64> {
        self.rows[self.number()].value
    }

    /// Values of the rows so far of these variables.
    pub(super) fn of(&self, variables: &str) -> Vec<Option<i64>> {
        let rows = self.path.iter().filter(|(_, variable)| variables.contains(variable.as_str()));
        rows.map(|(number, _)| self.rows[*number].value).collect()
    }
}

pub(super) type Condition = fn(&Tested<'_>) -> bool;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Result {
    Match(Vec<(usize, String)>),
    No,
    /// A row that is not known yet decides.
    Open,
}

pub(super) struct Reference<'a> {
    pub(super) rows: &'a [Row],
    pub(super) conditions: &'a dyn Fn(&str) -> Condition,
    pub(super) within: Option<i64>,
    /// Times up to this are over.
    pub(super) passed: i64,
    pub(super) complete: bool,
    /// NEXT in conditions: rows that have to be known behind the one that is tested.
    pub(super) rows_after: usize,
    pub(super) start: usize,
    /// The first way whose time was over.
    pub(super) timed_out: Option<Vec<(usize, String)>>,
}

type Then<'t> = &'t mut dyn FnMut(&mut Reference<'_>, usize, &mut Vec<(usize, String)>) -> Result;

enum Seen {
    Row,
    Over,
    Open,
}

impl Reference<'_> {
    /// What begins at row `start`.
    pub(super) fn attempt(&mut self, pattern: &Pattern, start: usize) -> Result {
        self.start = start;
        self.timed_out = None;
        self.go(pattern, start, &mut Vec::new(), &mut |_, _, path| Result::Match(path.clone()))
    }

    fn see(&self, at: usize) -> Seen {
        let deadline = self.within.map(|within| self.rows[self.start].time + within);
        let over = |time: i64| deadline.is_some_and(|deadline| deadline <= time);
        let visible =
            if self.complete { self.rows.len() } else { self.rows.len().saturating_sub(self.rows_after) };
        if at < visible {
            return if at > self.start && over(self.rows[at].time) { Seen::Over } else { Seen::Row };
        }
        if self.complete || (at == self.rows.len() && over(self.passed)) { Seen::Over } else { Seen::Open }
    }

    fn holds(&self, name: &str, at: usize, path: &mut Vec<(usize, String)>) -> bool {
        path.push((at, name.to_string()));
        let holds = (self.conditions)(name)(&Tested { rows: self.rows, path });
        path.pop();
        holds
    }

    fn go(
        &mut self,
        pattern: &Pattern,
        at: usize,
        path: &mut Vec<(usize, String)>,
        then: Then<'_>,
    ) -> Result {
        match pattern {
            Pattern::Empty => then(self, at, path),
            Pattern::Variable(name) => match self.see(at) {
                Seen::Open => Result::Open,
                Seen::Over => {
                    if !path.is_empty() && self.timed_out.is_none() {
                        self.timed_out = Some(path.clone());
                    }
                    Result::No
                }
                Seen::Row => {
                    if !self.holds(name, at, path) {
                        return Result::No;
                    }
                    path.push((at, name.clone()));
                    let result = then(self, at + 1, path);
                    path.pop();
                    result
                }
            },
            Pattern::Absent(names) => {
                let mut place = at;
                loop {
                    match self.see(place) {
                        Seen::Open => return Result::Open,
                        Seen::Over => return then(self, at, path),
                        Seen::Row if names.iter().any(|name| self.holds(name, place, path)) => {
                            return Result::No;
                        }
                        Seen::Row => place += 1,
                    }
                }
            }
            Pattern::Concat(parts) => match parts.split_first() {
                None => then(self, at, path),
                Some((first, rest)) => {
                    let rest = Pattern::Concat(rest.to_vec());
                    self.go(first, at, path, &mut |this, at, path| this.go(&rest, at, path, then))
                }
            },
            Pattern::Alternation(parts) => {
                for part in parts {
                    let result = self.go(part, at, path, then);
                    if result != Result::No {
                        return result;
                    }
                }
                Result::No
            }
            Pattern::Permute(parts) => {
                if parts.is_empty() {
                    return then(self, at, path);
                }
                for first in 0..parts.len() {
                    let mut rest = parts.clone();
                    let first = rest.remove(first);
                    let rest = Pattern::Permute(rest);
                    let result =
                        self.go(&first, at, path, &mut |this, at, path| this.go(&rest, at, path, then));
                    if result != Result::No {
                        return result;
                    }
                }
                Result::No
            }
            Pattern::Exclude(pattern) => self.go(pattern, at, path, then),
            Pattern::PartitionStart if at == 0 => then(self, at, path),
            Pattern::PartitionEnd if self.complete && at == self.rows.len() => then(self, at, path),
            Pattern::PartitionStart | Pattern::PartitionEnd => Result::No,
            Pattern::Repeat { pattern, min, max, greedy } => {
                let max = max.unwrap_or(u32::MAX);
                self.rounds(pattern, (*min, max, *greedy), 0, at, path, then)
            }
        }
    }

    fn rounds(
        &mut self,
        pattern: &Pattern,
        bounds: (u32, u32, bool),
        count: u32,
        at: usize,
        path: &mut Vec<(usize, String)>,
        then: Then<'_>,
    ) -> Result {
        let (min, max, greedy) = bounds;
        if count < min {
            return self.go(pattern, at, path, &mut |this, at, path| {
                this.rounds(pattern, bounds, count + 1, at, path, then)
            });
        }
        if count == max {
            return then(self, at, path);
        }
        if !greedy {
            let result = then(self, at, path);
            if result != Result::No {
                return result;
            }
        }
        // A further round that takes no row ends the loop.
        let result = self.go(pattern, at, path, &mut |this, next, path| match next == at {
            true => then(this, next, path),
            false => this.rounds(pattern, bounds, count + 1, next, path, then),
        });
        if result != Result::No || !greedy { result } else { then(self, at, path) }
    }
}
