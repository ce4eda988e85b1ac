//! From the specification to what the operator works with: which values are kept, which frames and slides the calls
//! share, how far a change reaches, when a row is final and what has to be kept behind it.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use dataflow::{Error, Result};

use super::evaluate::{Call, Calls, Finish, GatherCall};
use super::frame::{Bound, Frame, Offset, RangeOrder, Unit};
use super::slide::{SlideKind, SlideSpec};
use super::values::{ValueColumn, ValueKind};
use super::{OverCall, OverFunction, OverSpec};
use crate::operators::aggregate::number::WholeResult;
use crate::operators::aggregate::{AggregateCall, AggregateFunction};

/// How far from a changed row others change with it, in one direction.
#[derive(Clone, Debug, PartialEq)]
pub enum Reach {
    Rows(usize),
    /// This many groups of peers beyond the row's own.
    Groups(usize),
    /// Rows whose order value is at most this far away, and peers.
    Range(Offset),
    /// To the end of the session.
    Session(i64),
    All,
}

/// What has to be known before a row is final: everything up to ...
#[derive(Clone, Debug, PartialEq)]
pub enum Final {
    /// ... this many rows after it.
    Rows(usize),
    Groups(usize),
    Range(Offset),
    /// ... the end of its session.
    Session(i64),
}

/// What rows that come later will look at, behind the first of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Retain {
    Rows(usize),
    Groups(usize),
    Range(Offset),
    All,
}

pub struct Compiled {
    pub calls: Calls,
    /// Input columns whose values are kept.
    pub value_columns: Vec<usize>,
    pub order: Option<RangeOrder>,
    pub before: Vec<Reach>,
    pub after: Vec<Reach>,
    pub finals: Vec<Final>,
    /// A row is never final: its result depends on the number of rows in the partition.
    pub never_final: bool,
    pub retains: Vec<Retain>,
    /// Nothing is to be known about a partition whose rows were all dropped.
    pub forgettable: bool,
}

impl Compiled {
    /// # Errors
    /// If a call's argument and result types do not go together.
    pub fn new(spec: &OverSpec) -> Result<Compiled> {
        let mut compiled = Compiled {
            calls: Calls { calls: vec![], frames: vec![], slides: vec![], names: vec![] },
            value_columns: vec![],
            order: None,
            before: vec![],
            after: vec![],
            finals: vec![],
            never_final: false,
            retains: vec![],
            forgettable: true,
        };
        compiled.order = compiled.range_order(spec)?;
        for call in &spec.calls {
            let compiled_call = compiled.call(spec, call)?;
            compiled.calls.calls.push(compiled_call);
            compiled.calls.names.push(call.output.name().clone());
        }
        Ok(compiled)
    }

    fn range_order(&mut self, spec: &OverSpec) -> Result<Option<RangeOrder>> {
        let by_value = spec.calls.iter().any(|call| match &call.function {
            OverFunction::Aggregate { frame, .. } | OverFunction::Nth { frame, .. } => frame.uses_offset(),
            OverFunction::SessionStart { .. } | OverFunction::SessionEnd { .. } => true,
            _ => false,
        });
        let by_time = matches!(spec.release, super::Release::Order(_));
        if !by_value && !by_time {
            return Ok(None);
        }
        // Event time is the first of the ORDER BY columns; a RANGE with an offset has just one.
        let Some((column, options)) = spec.order.first().copied() else {
            return Err(Error::Operator("a RANGE with an offset needs an ORDER BY column".to_owned()));
        };
        let kind = ValueKind::of(spec.input.field(column).data_type());
        if kind == ValueKind::Bytes {
            let field = spec.input.field(column);
            return Err(Error::Operator(format!(
                "a RANGE with an offset can't be ordered by \"{}\" of type {}",
                field.name(),
                field.data_type()
            )));
        }
        Ok(Some(RangeOrder {
            values: self.values(column),
            descending: options.descending,
            nulls_first: options.nulls_first,
            float: kind == ValueKind::Float,
        }))
    }

    fn values(&mut self, column: usize) -> usize {
        position_or_push(&mut self.value_columns, column)
    }

    fn frame(&mut self, frame: &Frame) -> usize {
        self.frame_reach(frame);
        self.forgettable &= frame.start != Bound::UnboundedPreceding;
        position_or_push(&mut self.calls.frames, frame.clone())
    }

    fn slide(&mut self, kind: SlideKind, values: usize, frame: usize) -> usize {
        position_or_push(&mut self.calls.slides, SlideSpec { kind, values, frame })
    }

    fn reach(&mut self, before: Option<Reach>, after: Option<Reach>) {
        before.map(|reach| position_or_push(&mut self.before, reach));
        after.map(|reach| position_or_push(&mut self.after, reach));
    }

    fn frame_reach(&mut self, frame: &Frame) {
        // Rows before the changed one see it in the part of their frame that follows them.
        let before = match (&frame.end, frame.unit) {
            (Bound::UnboundedFollowing, _) => Some(Reach::All),
            (Bound::Following(by), Unit::Rows) => Some(Reach::Rows(by.count())),
            (Bound::Following(by), Unit::Groups) => Some(Reach::Groups(by.count())),
            (Bound::Following(by), Unit::Range) => Some(Reach::Range(by.longest())),
            (_, Unit::Rows) => None,
            _ => Some(Reach::Groups(0)),
        };
        let after = match (&frame.start, frame.unit) {
            (Bound::UnboundedPreceding, _) => Some(Reach::All),
            (Bound::Preceding(by), Unit::Rows) => Some(Reach::Rows(by.count())),
            (Bound::Preceding(by), Unit::Groups) => Some(Reach::Groups(by.count())),
            (Bound::Preceding(by), Unit::Range) => Some(Reach::Range(by.longest())),
            (_, Unit::Rows) => None,
            _ => Some(Reach::Groups(0)),
        };
        let last = match (&frame.end, frame.unit) {
            (Bound::UnboundedFollowing, _) => {
                self.never_final = true;
                None
            }
            (Bound::Following(by), Unit::Rows) => Some(Final::Rows(by.count())),
            (Bound::Following(by), Unit::Groups) => Some(Final::Groups(by.count())),
            (Bound::Following(by), Unit::Range) => Some(Final::Range(by.clone())),
            _ => None,
        };
        let retain = match (&frame.start, frame.unit) {
            (Bound::Preceding(by), Unit::Rows) => Some(Retain::Rows(by.count())),
            (Bound::Preceding(by), Unit::Groups) => Some(Retain::Groups(by.count())),
            (Bound::Preceding(by), Unit::Range) => Some(Retain::Range(by.longest())),
            // What came before is remembered by slides; those who can't do so ask for all.
            _ => None,
        };
        self.reach(before, after);
        last.map(|last| position_or_push(&mut self.finals, last));
        retain.map(|retain| position_or_push(&mut self.retains, retain));
    }

    fn call(&mut self, spec: &OverSpec, call: &OverCall) -> Result<Call> {
        let type_of = |column: usize| spec.input.field(column).data_type();
        Ok(match &call.function {
            OverFunction::RowNumber => self.ranking(Call::RowNumber),
            OverFunction::Rank => self.ranking(Call::Rank),
            OverFunction::DenseRank => {
                let frame =
                    Frame { unit: Unit::Rows, start: Bound::UnboundedPreceding, end: Bound::CurrentRow };
                let frame = self.frame(&frame);
                let slide = self.slide(SlideKind::Groups, 0, frame);
                position_or_push(&mut self.retains, Retain::Rows(1));
                self.ranking(Call::DenseRank(slide))
            }
            OverFunction::PercentRank => self.counted(Call::PercentRank),
            OverFunction::CumeDist => self.counted(Call::CumeDist),
            OverFunction::Ntile { buckets } => self.counted(Call::Ntile(*buckets)),
            OverFunction::Shift { argument, back, default, ignore_nulls } => {
                let values = self.values(*argument);
                let distance = usize::try_from(back.unsigned_abs()).unwrap_or(usize::MAX);
                let reach = if *ignore_nulls { Reach::All } else { Reach::Rows(distance) };
                if *back > 0 {
                    self.reach(None, Some(reach));
                    let retain = if *ignore_nulls { Retain::All } else { Retain::Rows(distance) };
                    position_or_push(&mut self.retains, retain);
                } else {
                    self.reach(Some(reach), None);
                    position_or_push(&mut self.finals, Final::Rows(distance));
                    self.never_final |= *ignore_nulls;
                }
                Call::Shift {
                    values,
                    back: *back,
                    default: default
                        .as_ref()
                        .map(|value| scalar(value, type_of(*argument)))
                        .transpose()?
                        .flatten(),
                    ignore_nulls: *ignore_nulls,
                }
            }
            OverFunction::Nth { argument, frame, nth, ignore_nulls } => {
                let values = self.values(*argument);
                let unbounded = frame.start == Bound::UnboundedPreceding;
                let number = self.frame(frame);
                if unbounded && *nth >= 0 {
                    let kind = SlideKind::RunningNth { row: *nth as usize, ignore_nulls: *ignore_nulls };
                    return Ok(Call::Slide {
                        slide: self.slide(kind, values, number),
                        finish: Finish::Scalar,
                    });
                }
                if unbounded {
                    position_or_push(&mut self.retains, Retain::All);
                }
                Call::Nth { values, frame: number, nth: *nth, ignore_nulls: *ignore_nulls }
            }
            OverFunction::Aggregate { call, frame } => self.aggregate(spec, call, frame)?,
            OverFunction::SessionStart { gap_us } => {
                self.session(*gap_us);
                Call::SessionStart { gap_us: *gap_us }
            }
            OverFunction::SessionEnd { gap_us } => {
                self.session(*gap_us);
                Call::SessionEnd { gap_us: *gap_us }
            }
        })
    }

    fn ranking(&mut self, call: Call) -> Call {
        self.reach(None, Some(Reach::All));
        self.forgettable = false;
        call
    }

    /// Functions that depend on the number of rows.
    fn counted(&mut self, call: Call) -> Call {
        self.reach(Some(Reach::All), Some(Reach::All));
        self.never_final = true;
        call
    }

    fn session(&mut self, gap_us: i64) {
        self.reach(Some(Reach::Session(gap_us)), Some(Reach::Session(gap_us)));
        position_or_push(&mut self.finals, Final::Session(gap_us));
    }

    fn aggregate(&mut self, spec: &OverSpec, call: &AggregateCall, frame: &Frame) -> Result<Call> {
        use AggregateFunction::*;
        let number = self.frame(frame);
        let plain = call.filter.is_none() && !call.distinct;
        let Some(argument) = call.arguments.first().copied() else {
            if plain && call.function == Count {
                return Ok(Call::Rows(number));
            }
            return self.gather(spec, call, frame, number);
        };
        let data_type = spec.input.field(argument).data_type();
        let kind = ValueKind::of(data_type);
        let running = frame.start == Bound::UnboundedPreceding;
        let (slide, finish) = match call.function {
            Count if call.distinct && call.filter.is_none() => (SlideKind::Distinct, Finish::Distinct),
            // Duplicates do not matter.
            Min | Max if call.filter.is_none() => {
                let largest = call.function == Max;
                match running {
                    true => (SlideKind::RunningExtreme { largest }, Finish::Scalar),
                    false => (SlideKind::Extreme { largest }, Finish::Extreme),
                }
            }
            _ if !plain => return self.gather(spec, call, frame, number),
            Count => (count_kind(kind, data_type), Finish::Count),
            Sum | Avg if kind == ValueKind::Float => {
                let average = call.function == Avg;
                (SlideKind::Float, if average { Finish::FloatAverage } else { Finish::FloatSum })
            }
            Sum | Avg if data_type.is_integer() || kind == ValueKind::Wide => {
                (SlideKind::Whole, Finish::Whole(WholeResult::of(call, data_type)?))
            }
            BoolAnd if *data_type == DataType::Boolean => (SlideKind::Bools, Finish::BoolAnd),
            BoolOr if *data_type == DataType::Boolean => (SlideKind::Bools, Finish::BoolOr),
            _ => return self.gather(spec, call, frame, number),
        };
        let values = self.values(argument);
        Ok(Call::Slide { slide: self.slide(slide, values, number), finish })
    }

    fn gather(
        &mut self,
        spec: &OverSpec,
        call: &AggregateCall,
        frame: &Frame,
        number: usize,
    ) -> Result<Call> {
        if frame.start == Bound::UnboundedPreceding {
            position_or_push(&mut self.retains, Retain::All);
        }
        let columns = call.arguments.iter().copied().chain(call.order_by.iter().map(|(column, _)| *column));
        Ok(Call::Gather(Box::new(GatherCall {
            values: columns.map(|column| self.values(column)).collect(),
            filter: call.filter.map(|column| self.values(column)),
            frame: number,
            input: std::sync::Arc::clone(&spec.input),
            call: call.clone(),
        })))
    }

    /// Whether the frame of slide `slide` begins with the partition.
    pub fn remembers(&self, slide: usize) -> bool {
        self.calls.frames[self.calls.slides[slide].frame].start == Bound::UnboundedPreceding
    }
}

/// Counting shares the slide of a sum over the same column.
fn count_kind(kind: ValueKind, data_type: &DataType) -> SlideKind {
    match kind {
        ValueKind::Float => SlideKind::Float,
        ValueKind::Wide => SlideKind::Whole,
        ValueKind::Int if data_type.is_integer() => SlideKind::Whole,
        _ => SlideKind::Count,
    }
}

fn position_or_push<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|other| *other == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn scalar(value: &ArrayRef, data_type: &DataType) -> Result<Option<super::values::Scalar>> {
    let mut column = ValueColumn::new(data_type)?;
    let value = arrow::compute::cast(value, data_type)?;
    let source = column.source(&value)?;
    column.set(0, &source, 0);
    Ok(column.scalar(0))
}
