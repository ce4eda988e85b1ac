//! One attempt to match, beginning at one row: all ways through the pattern at once, the preferred ones first.
//!
//! A thread is a place in the program and the rows mapped so far. Each row moves every thread on; threads that
//! can't be told apart by what may still come are one, of which the preferred survives. So an attempt costs at
//! most rows times instructions, unless conditions ask for the rows before; then threads differ in what they
//! remember, too. A thread that has come to the end drops all that are less preferred. The attempt is decided
//! when no thread is left, or when its time is over.
//!
//! Invariant: `accepted` is less preferred than every thread.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::Accumulator;

use super::compiled::{Compiled, Memory, TermExpr};
use super::output::Evaluate;
use super::program::{Instruction, Pc};
use super::rows::{RowRef, Rows};
use super::{Anchor, Term, Value};

/// Threads of one attempt at most: conditions that ask for the rows before can make many.
const THREADS_MAX: usize = 10_000;
const NONE: u32 = u32::MAX;
/// An empty memory slot.
const NOTHING: u64 = u64::MAX;

/// A row of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) at: RowRef,
    /// Microseconds of the first ORDER BY column.
    pub(super) time: i64,
    /// The variables whose local condition holds.
    pub(super) holds: u64,
}

/// What an attempt sees of its partition.
pub(super) struct Surroundings<'a> {
    pub(super) compiled: &'a Compiled,
    pub(super) rows: &'a Rows,
    pub(super) partition: &'a VecDeque<Row>,
    /// Number of the partition's first row that is kept.
    pub(super) base: u64,
    /// Number of rows, when no more will come.
    pub(super) end: Option<u64>,
    /// Number that the match will have.
    pub(super) number: i64,
    pub(super) scratch: &'a mut Scratch,
    pub(super) evaluator: &'a mut dyn Evaluate,
}

/// Working memory, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    stack: Vec<(Pc, u64)>,
    /// By instruction: the walk that was there last.
    seen: Vec<u64>,
    seen_marked: HashSet<(Pc, u64)>,
    walk: u64,
    /// By instruction: the row for which a thread was added last.
    added: Vec<u64>,
    added_remembering: HashSet<(Pc, Box<[u64]>)>,
    row: u64,
}

#[derive(Debug)]
pub(super) struct Attempt {
    /// Number of the next row to look at.
    pub(super) next: u64,
    /// The match has to be over before this time.
    pub(super) deadline: Option<i64>,
    threads: Vec<Thread>,
    paths: Vec<Step>,
    accepted: Option<Reached>,
    chains: Chains,
}

#[derive(Clone, Debug)]
struct Thread {
    pc: Pc,
    reached: Reached,
    memory: Box<[u64]>,
}

/// A way through the pattern: its last step and the number of its rows.
#[derive(Clone, Copy, Debug)]
struct Reached {
    step: u32,
    rows: u32,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    before: u32,
    mapped: Mapped,
}

/// A row's place in a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    pub(super) variable: u8,
    pub(super) excluded: bool,
}

/// How an attempt ended.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Match(Vec<Mapped>),
    /// The time was over after these rows.
    TimedOut(Vec<Mapped>),
    Nothing,
}

impl Attempt {
    pub(super) fn begin(start: u64, deadline: Option<i64>, around: &mut Surroundings<'_>) -> Result<Attempt> {
        let mut attempt = Attempt {
            next: start,
            deadline,
            threads: Vec::new(),
            paths: Vec::new(),
            accepted: None,
            chains: Chains::default(),
        };
        let memory = vec![NOTHING; around.compiled.memory_slots].into_boxed_slice();
        around.scratch.next_row(around.compiled.program.code.len());
        let first = Thread { pc: 0, reached: Reached { step: NONE, rows: 0 }, memory };
        let mut threads = Vec::new();
        attempt.follow(first, start, &mut threads, around)?;
        attempt.threads = threads;
        Ok(attempt)
    }

    pub(super) fn is_decided(&self) -> bool {
        self.threads.is_empty()
    }

    /// Looks at the next row.
    pub(super) fn take_row(&mut self, around: &mut Surroundings<'_>) -> Result<()> {
        let number = self.next;
        let row = around.partition[(number - around.base) as usize];
        self.next += 1;
        around.scratch.next_row(around.compiled.program.code.len());
        let mut threads = Vec::with_capacity(self.threads.len());
        for thread in std::mem::take(&mut self.threads) {
            match around.compiled.program.code[thread.pc as usize] {
                Instruction::Row { variable, excluded } => {
                    if row.holds & (1 << variable) == 0 {
                        continue;
                    }
                    let memory = self.remember(&thread.memory, number, variable, around.compiled);
                    if !self.holds(variable, number, &memory, around)? {
                        continue;
                    }
                    let mapped = Mapped { variable, excluded };
                    self.paths.push(Step { before: thread.reached.step, mapped });
                    let reached =
                        Reached { step: self.paths.len() as u32 - 1, rows: thread.reached.rows + 1 };
                    let next = Thread { pc: thread.pc + 1, reached, memory };
                    if self.follow(next, number + 1, &mut threads, around)? {
                        break;
                    }
                }
                Instruction::Absent(variables) => {
                    let mut came = false;
                    for variable in (0..64).filter(|v| variables & row.holds & (1 << v) != 0) {
                        let memory = self.remember(&thread.memory, number, variable, around.compiled);
                        came |= self.holds(variable, number, &memory, around)?;
                    }
                    if !came {
                        add(thread, &mut threads, around)?;
                    }
                }
                other => return internal_err!("a thread waits at {other:?}"),
            }
        }
        self.threads = threads;
        Ok(())
    }

    /// The result, when no thread is left or none can go on.
    pub(super) fn finish(self, time_over: bool, timeout_rows: bool, compiled: &Compiled) -> Outcome {
        if !time_over {
            return self.accepted.map_or(Outcome::Nothing, |reached| Outcome::Match(self.mapped(reached)));
        }
        let waits_for_absence =
            |thread: &&Thread| matches!(compiled.program.code[thread.pc as usize], Instruction::Absent(_));
        if let Some(thread) = self.threads.iter().find(waits_for_absence) {
            return Outcome::Match(self.mapped(thread.reached));
        }
        if let Some(reached) = self.accepted {
            return Outcome::Match(self.mapped(reached));
        }
        match self.threads.iter().find(|thread| thread.reached.rows > 0) {
            Some(thread) if timeout_rows => Outcome::TimedOut(self.mapped(thread.reached)),
            _ => Outcome::Nothing,
        }
    }

    fn mapped(&self, reached: Reached) -> Vec<Mapped> {
        let mut mapped = Vec::with_capacity(reached.rows as usize);
        let mut at = reached.step;
        while at != NONE {
            let step = self.paths[at as usize];
            mapped.push(step.mapped);
            at = step.before;
        }
        mapped.reverse();
        mapped
    }

    /// Walks on from a thread to the instructions that wait for a row, the preferred first. True when the end of
    /// the pattern was reached: what would come after is less preferred.
    fn follow(
        &mut self,
        thread: Thread,
        position: u64,
        threads: &mut Vec<Thread>,
        around: &mut Surroundings<'_>,
    ) -> Result<bool> {
        let compiled = around.compiled;
        around.scratch.next_walk();
        around.scratch.stack.push((thread.pc, 0));
        while let Some((pc, marks)) = around.scratch.stack.pop() {
            if !around.scratch.arrive(pc, marks) {
                continue;
            }
            let stack = &mut around.scratch.stack;
            match compiled.program.code[pc as usize] {
                Instruction::Row { .. } | Instruction::Absent(_) => {
                    add(Thread { pc, ..thread.clone() }, threads, around)?;
                }
                Instruction::Split(preferred, other) => stack.extend([(other, marks), (preferred, marks)]),
                Instruction::Jump(to) => stack.push((to, marks)),
                Instruction::Mark(round) => stack.push((pc + 1, marks | 1 << round)),
                Instruction::Check(round, out) => {
                    stack.push((if marks & (1 << round) != 0 { out } else { pc + 1 }, marks));
                }
                Instruction::PartitionStart if position != 0 => {}
                Instruction::PartitionEnd if around.end != Some(position) => {}
                Instruction::PartitionStart | Instruction::PartitionEnd => stack.push((pc + 1, marks)),
                Instruction::Accept => {
                    self.accepted = Some(thread.reached);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The memory after mapping row `number` to `variable`.
    fn remember(&mut self, memory: &[u64], number: u64, variable: u8, compiled: &Compiled) -> Box<[u64]> {
        let mut memory: Box<[u64]> = memory.into();
        let bit = 1 << variable;
        for kept in &compiled.memories {
            match *kept {
                Memory::First { set, slot, slots } if set & bit != 0 => {
                    let slots = &mut memory[slot..slot + slots];
                    if let Some(free) = slots.iter_mut().find(|slot| **slot == NOTHING) {
                        *free = pack(number, variable);
                    }
                }
                Memory::Last { set, slot, slots } if set & bit != 0 => {
                    let slots = &mut memory[slot..slot + slots];
                    slots.rotate_right(1);
                    slots[0] = pack(number, variable);
                }
                Memory::All { set, slot } if set & bit != 0 => {
                    memory[slot] = self.chains.extend(memory[slot], number);
                }
                _ => {}
            }
        }
        memory
    }

    /// Tests the part of a condition that depends on the rows before; `memory` has the row itself already.
    fn holds(
        &mut self,
        variable: u8,
        number: u64,
        memory: &[u64],
        around: &mut Surroundings<'_>,
    ) -> Result<bool> {
        let compiled = around.compiled;
        let Some(condition) = &compiled.conditions[variable as usize].dependent else { return Ok(true) };
        let batch = self.terms_of(condition, variable, number, memory, around)?;
        let value = around.evaluator.evaluate(condition.expr.as_ref(), &condition.data_type, &batch)?;
        Ok(is_true(&value, 0))
    }

    fn terms_of(
        &mut self,
        condition: &TermExpr,
        variable: u8,
        number: u64,
        memory: &[u64],
        around: &Surroundings<'_>,
    ) -> Result<RecordBatch> {
        let compiled = around.compiled;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(condition.terms.len());
        for (term, field) in condition.terms.iter().zip(condition.schema.fields()) {
            let null = || new_null_array(field.data_type(), 1);
            columns.push(match &compiled.pattern.terms[*term] {
                Term::Row { value, anchor, offset } => {
                    let anchored = match *anchor {
                        Anchor::Current => Some((number, variable)),
                        Anchor::First { set, n, .. } => {
                            let wanted =
                                |m: &Memory| matches!(m, Memory::First { set: known, .. } if *known == set);
                            recall(compiled.memory(wanted), n, memory)
                        }
                        Anchor::Last { set, n, .. } => {
                            let wanted =
                                |m: &Memory| matches!(m, Memory::Last { set: known, .. } if *known == set);
                            recall(compiled.memory(wanted), n, memory)
                        }
                    };
                    match (value, anchored) {
                        (_, None) => null(),
                        (Value::Classifier, Some((_, variable))) => {
                            Arc::new(StringArray::from(vec![compiled.variables[variable as usize].as_str()]))
                        }
                        (Value::Column(column), Some((number, _))) => {
                            let place = number.checked_add_signed(*offset);
                            let place = place.and_then(|number| number.checked_sub(around.base));
                            match place.and_then(|place| around.partition.get(place as usize)) {
                                Some(row) => {
                                    let batch = around.rows.batch(row.at.chunk);
                                    batch.column(*column).slice(row.at.row as usize, 1)
                                }
                                None => null(),
                            }
                        }
                    }
                }
                Term::Aggregate { set, .. } => {
                    let chain = compiled
                        .memory(|m| matches!(m, Memory::All { set: known, .. } if known == set))
                        .map_or(NOTHING, |m| match m {
                            Memory::All { slot, .. } => memory[*slot],
                            _ => NOTHING,
                        });
                    self.chains.aggregate(*term, chain, around)?.to_array()?
                }
                Term::MatchNumber => Arc::new(Int64Array::from(vec![around.number])),
                Term::TimedOut => Arc::new(BooleanArray::from(vec![false])),
            });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&condition.schema), columns, &options)?)
    }
}

/// Adds a thread unless one that will do the same is there: that one is preferred.
fn add(thread: Thread, threads: &mut Vec<Thread>, around: &mut Surroundings<'_>) -> Result<()> {
    if !around.scratch.is_new(thread.pc, &thread.memory) {
        return Ok(());
    }
    if threads.len() >= THREADS_MAX {
        return exec_err!(
            "PATTERN of MATCH_RECOGNIZE has more than {THREADS_MAX} ways to go on at one row; \
             conditions that look at the rows matched before keep them apart: use fewer of them, or WITHIN"
        );
    }
    threads.push(thread);
    Ok(())
}

pub(super) fn is_true(array: &ArrayRef, row: usize) -> bool {
    use arrow::array::{Array, AsArray};
    array.as_boolean_opt().is_some_and(|array| array.is_valid(row) && array.value(row))
}

fn pack(number: u64, variable: u8) -> u64 {
    number << 6 | u64::from(variable)
}

fn recall(memory: Option<&Memory>, n: u32, slots: &[u64]) -> Option<(u64, u8)> {
    let first = match memory? {
        Memory::First { slot, .. } | Memory::Last { slot, .. } => *slot,
        Memory::All { .. } => return None,
    };
    let packed = slots[first + n as usize];
    (packed != NOTHING).then_some((packed >> 6, (packed & 63) as u8))
}

impl Scratch {
    fn next_row(&mut self, instructions: usize) {
        self.seen.resize(instructions, 0);
        self.added.resize(instructions, 0);
        self.added_remembering.clear();
        self.row += 1;
    }

    fn next_walk(&mut self) {
        self.stack.clear();
        self.seen_marked.clear();
        self.walk += 1;
    }

    /// True when this walk was not here before.
    fn arrive(&mut self, pc: Pc, marks: u64) -> bool {
        match marks {
            0 => std::mem::replace(&mut self.seen[pc as usize], self.walk) != self.walk,
            _ => self.seen_marked.insert((pc, marks)),
        }
    }

    fn is_new(&mut self, pc: Pc, memory: &[u64]) -> bool {
        match memory.is_empty() {
            true => std::mem::replace(&mut self.added[pc as usize], self.row) != self.row,
            false => self.added_remembering.insert((pc, memory.into())),
        }
    }
}

/// The sets of rows that aggregates are over, each built from another by adding a row, so that equal sets have
/// equal numbers and an aggregate goes on from where it was.
#[derive(Debug, Default)]
struct Chains {
    links: Vec<(u64, u64)>,
    known: HashMap<(u64, u64), u64>,
    accumulators: HashMap<(usize, u64), Box<dyn Accumulator>>,
    /// A set is asked for by several conditions, also after its accumulator went on to a larger one.
    values: HashMap<(usize, u64), ScalarValue>,
}

impl Chains {
    fn extend(&mut self, chain: u64, number: u64) -> u64 {
        let links = &mut self.links;
        *self.known.entry((chain, number)).or_insert_with(|| {
            links.push((chain, number));
            links.len() as u64 - 1
        })
    }

    fn aggregate(&mut self, term: usize, chain: u64, around: &Surroundings<'_>) -> Result<ScalarValue> {
        let compiled = around.compiled;
        let Term::Aggregate { arguments, .. } = &compiled.pattern.terms[term] else {
            return internal_err!("term {term} is an aggregate");
        };
        if let Some(value) = self.values.get(&(term, chain)) {
            return Ok(value.clone());
        }
        let mut missing = Vec::new();
        let mut at = chain;
        let mut accumulator = loop {
            if at == NOTHING {
                break compiled.accumulator(term)?;
            }
            if let Some(accumulator) = self.accumulators.remove(&(term, at)) {
                break accumulator;
            }
            let (before, number) = self.links[at as usize];
            missing.push(around.partition.get((number - around.base) as usize).map(|row| row.at));
            at = before;
        };
        missing.reverse();
        if !missing.is_empty() {
            let columns = arguments
                .iter()
                .map(|column| around.rows.gather(*column, &missing, &compiled.input))
                .collect::<Result<Vec<_>>>()?;
            accumulator.update_batch(&columns)?;
        }
        let value = accumulator.evaluate()?;
        self.values.insert((term, chain), value.clone());
        if chain != NOTHING {
            self.accumulators.insert((term, chain), accumulator);
        }
        Ok(value)
    }
}
