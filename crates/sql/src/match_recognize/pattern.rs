//! The PATTERN clause: a regular expression whose letters are pattern variables.
//!
//! Which of several ways to match is preferred follows SQL:2016 and Perl: the left alternative before the
//! right one, a greedy quantifier one more time before stopping, a reluctant one the other way round.

use std::fmt;

/// A pattern as written, names in lower case unless quoted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `()`
    Empty,
    Variable(String),
    /// One after the other.
    Concat(Vec<Pattern>),
    /// The first that matches, left to right.
    Alternation(Vec<Pattern>),
    /// `*`, `+`, `?`, `{n,m}`; with a further `?` reluctant.
    Repeat {
        pattern: Box<Pattern>,
        min: u32,
        max: Option<u32>,
        greedy: bool,
    },
    /// `PERMUTE(a, b)`: in any order, the written one preferred.
    Permute(Vec<Pattern>),
    /// `{- a -}`: matched, and left out of ALL ROWS PER MATCH.
    Exclude(Box<Pattern>),
    /// `^`
    PartitionStart,
    /// `$`
    PartitionEnd,
    /// `NOT a`, `NOT (a | b)`: no such row until the time of WITHIN has passed.
    Absent(Vec<String>),
}

impl Pattern {
    /// Calls `f` for every variable that is named, in the order of the text.
    pub fn each_variable(&self, f: &mut impl FnMut(&str)) {
        match self {
            Pattern::Variable(name) => f(name),
            Pattern::Absent(names) => names.iter().for_each(|name| f(name)),
            Pattern::Concat(parts) | Pattern::Alternation(parts) | Pattern::Permute(parts) => {
                parts.iter().for_each(|part| part.each_variable(f));
            }
            Pattern::Repeat { pattern, .. } | Pattern::Exclude(pattern) => pattern.each_variable(f),
            Pattern::Empty | Pattern::PartitionStart | Pattern::PartitionEnd => {}
        }
    }

    /// True when `found` holds for this pattern or one inside it.
    pub fn any(&self, found: &impl Fn(&Pattern) -> bool) -> bool {
        found(self)
            || match self {
                Pattern::Concat(parts) | Pattern::Alternation(parts) | Pattern::Permute(parts) => {
                    parts.iter().any(|part| part.any(found))
                }
                Pattern::Repeat { pattern, .. } | Pattern::Exclude(pattern) => pattern.any(found),
                _ => false,
            }
    }

    pub fn has_absence(&self) -> bool {
        self.any(&|pattern| matches!(pattern, Pattern::Absent(_)))
    }

    /// True when no rows at all may match.
    pub(super) fn nullable(&self) -> bool {
        match self {
            Pattern::Variable(_) => false,
            Pattern::Empty | Pattern::PartitionStart | Pattern::PartitionEnd | Pattern::Absent(_) => true,
            Pattern::Concat(parts) | Pattern::Permute(parts) => parts.iter().all(Pattern::nullable),
            Pattern::Alternation(parts) => parts.iter().any(Pattern::nullable),
            Pattern::Repeat { pattern, min, .. } => *min == 0 || pattern.nullable(),
            Pattern::Exclude(pattern) => pattern.nullable(),
        }
    }

    /// True when every NOT is the last thing that its way through the pattern asks for.
    pub(crate) fn absence_comes_last(&self, last: bool) -> bool {
        match self {
            Pattern::Absent(_) => last,
            Pattern::Concat(parts) => parts
                .iter()
                .enumerate()
                .all(|(n, part)| part.absence_comes_last(last && n + 1 == parts.len())),
            Pattern::Alternation(parts) => parts.iter().all(|part| part.absence_comes_last(last)),
            Pattern::Exclude(pattern) => pattern.absence_comes_last(last),
            Pattern::Permute(parts) => parts.iter().all(|part| part.absence_comes_last(false)),
            Pattern::Repeat { pattern, max, .. } => pattern.absence_comes_last(last && *max == Some(1)),
            _ => true,
        }
    }
}

/// # Errors
/// When the pattern, written out, is too large.
pub(crate) fn check_size(pattern: &Pattern, variables: &[String]) -> datafusion::common::Result<()> {
    super::program::Program::compile(pattern, variables).map(|_| ())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |parts: &[Pattern], separator: &str| {
            parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
        };
        match self {
            Pattern::Empty => f.write_str("()"),
            Pattern::Variable(name) => f.write_str(name),
            Pattern::Concat(parts) => f.write_str(&list(parts, " ")),
            Pattern::Alternation(parts) => write!(f, "({})", list(parts, " | ")),
            Pattern::Permute(parts) => write!(f, "PERMUTE({})", list(parts, ", ")),
            Pattern::Exclude(pattern) => write!(f, "{{- {pattern} -}}"),
            Pattern::PartitionStart => f.write_str("^"),
            Pattern::PartitionEnd => f.write_str("$"),
            Pattern::Absent(names) => write!(f, "NOT ({})", names.join(" | ")),
            Pattern::Repeat { pattern, min, max, greedy } => {
                match pattern.as_ref() {
                    Pattern::Concat(_) | Pattern::Repeat { .. } => write!(f, "({pattern})")?,
                    _ => write!(f, "{pattern}")?,
                }
                match (min, max) {
                    (0, None) => f.write_str("*")?,
                    (1, None) => f.write_str("+")?,
                    (0, Some(1)) => f.write_str("?")?,
                    (min, None) => write!(f, "{{{min},}}")?,
                    (min, Some(max)) if min == max => write!(f, "{{{min}}}")?,
                    (min, Some(max)) => write!(f, "{{{min},{max}}}")?,
                }
                f.write_str(if *greedy { "" } else { "?" })
            }
        }
    }
}
