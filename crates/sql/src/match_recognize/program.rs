//! A pattern as instructions for an automaton, whose threads stand in the order of preference.
//!
//! ```text
//!   a (b | c)*        0: Row a   1: Split 2,7   2: Split 3,5   3: Row b   4: Jump 6   5: Row c   6: Jump 1   7: Accept
//! ```
//!
//! A loop whose body may match no rows is guarded: `Mark` remembers that a round began here, and a round that
//! comes to its `Check` without having taken a row leaves the loop instead of going round for ever.

use datafusion::common::{Result, plan_err};

use super::pattern::Pattern;

/// Number of an instruction.
pub(super) type Pc = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Takes one row for which the variable's condition holds.
    Row {
        variable: u8,
        excluded: bool,
    },
    /// Two ways to go on, the preferred one first.
    Split(Pc, Pc),
    Jump(Pc),
    /// A round of a guarded loop begins.
    Mark(u8),
    /// Goes to the second if the round took no row.
    Check(u8, Pc),
    PartitionStart,
    PartitionEnd,
    /// Waits until the match's time is over; a row of one of these variables ends it without a match.
    Absent(u64),
    Accept,
}

#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    /// Variables that the first row of a match may have; all bits when a match may be empty.
    pub(super) first: u64,
}

/// Longest program: quantifiers with bounds and PERMUTE are written out.
pub(super) const INSTRUCTIONS_MAX: usize = 20_000;
/// Elements of PERMUTE: all orders of more do not fit into a program.
const PERMUTED_MAX: usize = 6;
/// Bits of a set of guarded loops.
const GUARDED_LOOPS_MAX: usize = 64;

impl Program {
    /// # Errors
    /// When the pattern is too large.
    pub(super) fn compile(pattern: &Pattern, variables: &[String]) -> Result<Program> {
        let mut compiler = Compiler { code: Vec::new(), variables, loops: 0 };
        compiler.emit(pattern, false)?;
        compiler.push(Instruction::Accept)?;
        let code = compiler.code;
        let first = first_variables(&code);
        Ok(Program { code, first })
    }
}

struct Compiler<'a> {
    code: Vec<Instruction>,
    variables: &'a [String],
    loops: usize,
}

impl Compiler<'_> {
    fn here(&self) -> Pc {
        self.code.len() as Pc
    }

    fn push(&mut self, instruction: Instruction) -> Result<usize> {
        if self.code.len() >= INSTRUCTIONS_MAX {
            return plan_err!(
                "PATTERN is too large: written out it has more than {INSTRUCTIONS_MAX} elements; \
                 use smaller bounds or fewer variables in PERMUTE"
            );
        }
        self.code.push(instruction);
        Ok(self.code.len() - 1)
    }

    fn variable(&self, name: &str) -> Result<u8> {
        match self.variables.iter().position(|variable| variable == name) {
            Some(number) => Ok(number as u8),
            None => plan_err!("pattern variable \"{name}\" is not known"),
        }
    }

    fn emit(&mut self, pattern: &Pattern, excluded: bool) -> Result<()> {
        match pattern {
            Pattern::Empty => {}
            Pattern::Variable(name) => {
                let variable = self.variable(name)?;
                self.push(Instruction::Row { variable, excluded })?;
            }
            Pattern::Concat(parts) => parts.iter().try_for_each(|part| self.emit(part, excluded))?,
            Pattern::Alternation(parts) => {
                self.alternatives(parts.len(), |compiler, n| compiler.emit(&parts[n], excluded))?
            }
            Pattern::Permute(parts) => self.permute(parts, excluded)?,
            Pattern::Exclude(pattern) => self.emit(pattern, true)?,
            Pattern::PartitionStart => {
                self.push(Instruction::PartitionStart)?;
            }
            Pattern::PartitionEnd => {
                self.push(Instruction::PartitionEnd)?;
            }
            Pattern::Absent(names) => {
                let mut variables = 0;
                for name in names {
                    variables |= 1 << self.variable(name)?;
                }
                self.push(Instruction::Absent(variables))?;
            }
            Pattern::Repeat { pattern, min, max, greedy } => {
                for _ in 0..*min {
                    self.emit(pattern, excluded)?;
                }
                match max {
                    None => {
                        let begin = self.here();
                        let split = self.push(Instruction::Jump(0))?;
                        let check = self.round(pattern, excluded)?;
                        self.push(Instruction::Jump(begin))?;
                        self.leave(split, check, *greedy, self.here());
                    }
                    Some(max) => {
                        let mut rounds = Vec::new();
                        for _ in *min..*max {
                            let split = self.push(Instruction::Jump(0))?;
                            rounds.push((split, self.round(pattern, excluded)?));
                        }
                        let end = self.here();
                        for (split, check) in rounds {
                            self.leave(split, check, *greedy, end);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// One round of a loop; the place of its check if it needs one.
    fn round(&mut self, pattern: &Pattern, excluded: bool) -> Result<Option<usize>> {
        if !pattern.nullable() {
            self.emit(pattern, excluded)?;
            return Ok(None);
        }
        if self.loops == GUARDED_LOOPS_MAX {
            return plan_err!(
                "PATTERN repeats more than {GUARDED_LOOPS_MAX} times a part that may be empty; \
                 write (a)* instead of (a?)*"
            );
        }
        let mark = self.loops as u8;
        self.loops += 1;
        self.push(Instruction::Mark(mark))?;
        self.emit(pattern, excluded)?;
        self.push(Instruction::Check(mark, 0)).map(Some)
    }

    /// Fills in where a loop is left to.
    fn leave(&mut self, split: usize, check: Option<usize>, greedy: bool, end: Pc) {
        let round = split as Pc + 1;
        self.code[split] =
            if greedy { Instruction::Split(round, end) } else { Instruction::Split(end, round) };
        if let Some(check) = check
            && let Instruction::Check(mark, _) = self.code[check]
        {
            self.code[check] = Instruction::Check(mark, end);
        }
    }

    fn alternatives(
        &mut self,
        count: usize,
        mut emit: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let mut ends = Vec::new();
        for n in 0..count {
            if n + 1 == count {
                emit(self, n)?;
                break;
            }
            let split = self.push(Instruction::Jump(0))?;
            emit(self, n)?;
            ends.push(self.push(Instruction::Jump(0))?);
            self.code[split] = Instruction::Split(split as Pc + 1, self.here());
        }
        let end = self.here();
        for jump in ends {
            self.code[jump] = Instruction::Jump(end);
        }
        Ok(())
    }

    /// The permutations in lexicographic order, shared by their common beginnings.
    fn permute(&mut self, parts: &[Pattern], excluded: bool) -> Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        if parts.len() > PERMUTED_MAX {
            return plan_err!(
                "PATTERN is too large: PERMUTE takes at most {PERMUTED_MAX} elements, not {}",
                parts.len()
            );
        }
        self.alternatives(parts.len(), |compiler, n| {
            compiler.emit(&parts[n], excluded)?;
            let rest: Vec<Pattern> =
                parts.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, part)| part.clone()).collect();
            compiler.permute(&rest, excluded)
        })
    }
}

/// The variables that can be met before any row is taken.
fn first_variables(code: &[Instruction]) -> u64 {
    let mut seen = vec![false; code.len()];
    let mut stack = vec![0 as Pc];
    let mut first = 0;
    while let Some(pc) = stack.pop() {
        if std::mem::replace(&mut seen[pc as usize], true) {
            continue;
        }
        match code[pc as usize] {
            Instruction::Row { variable, .. } => first |= 1 << variable,
            Instruction::Split(a, b) => stack.extend([a, b]),
            Instruction::Jump(to) => stack.push(to),
            Instruction::Check(_, to) => stack.extend([pc + 1, to]),
            Instruction::Mark(_) | Instruction::PartitionStart | Instruction::PartitionEnd => {
                stack.push(pc + 1);
            }
            // A match without rows may begin anywhere.
            Instruction::Absent(_) | Instruction::Accept => return u64::MAX,
        }
    }
    first
}
