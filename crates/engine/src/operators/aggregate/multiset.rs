//! An ordered multiset with signed counts: what min, max, string_agg and array_agg keep per group.
//!
//! Most groups hold one value, which then costs no allocation.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Values with their counts; a value whose count is not above zero is not there for readers.
#[derive(Clone, Debug, Default)]
pub enum Multiset<K> {
    #[default]
    Empty,
    One(K, i64),
    // Invariant: no count is zero.
    Many(BTreeMap<K, i64>),
}

impl<K: Ord> Multiset<K> {
    /// Changes the count of `value` by `weight`; `own` makes the key when it is new.
    pub fn add<Q: Ord + ?Sized>(&mut self, value: &Q, weight: i64, own: impl FnOnce(&Q) -> K)
    where
        K: Borrow<Q>,
    {
        if weight == 0 {
            return;
        }
        match self {
            Multiset::Empty => *self = Multiset::One(own(value), weight),
            Multiset::One(only, count) if (*only).borrow() == value => {
                *count += weight;
                if *count == 0 {
                    *self = Multiset::Empty;
                }
            }
            Multiset::One(..) => {
                let Multiset::One(only, count) = std::mem::take(self) else { unreachable!("matched above") };
                *self = Multiset::Many(BTreeMap::from([(only, count), (own(value), weight)]));
            }
            Multiset::Many(map) => match map.get_mut(value) {
                Some(count) => {
                    *count += weight;
                    if *count == 0 {
                        map.remove(value);
                        if map.is_empty() {
                            *self = Multiset::Empty;
                        }
                    }
                }
                None => {
                    map.insert(own(value), weight);
                }
            },
        }
    }

    /// Out of values in order, each once, with counts that are not zero.
    pub fn of_sorted(mut entries: impl Iterator<Item = (K, i64)>) -> Multiset<K> {
        match (entries.next(), entries.next()) {
            (None, _) => Multiset::Empty,
            (Some((only, count)), None) => Multiset::One(only, count),
            (Some(first), Some(second)) => {
                Multiset::Many([first, second].into_iter().chain(entries).collect())
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Multiset::Empty)
    }

    /// Distinct values, also those with counts below zero.
    pub fn len(&self) -> usize {
        match self {
            Multiset::Empty => 0,
            Multiset::One(..) => 1,
            Multiset::Many(map) => map.len(),
        }
    }

    /// Values and counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, i64)> {
        let one = match self {
            Multiset::One(only, count) => Some((only, *count)),
            _ => None,
        };
        let many = match self {
            Multiset::Many(map) => Some(map.iter().map(|(key, count)| (key, *count))),
            _ => None,
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The smallest value present.
    pub fn first(&self) -> Option<&K> {
        self.iter().find(|(_, count)| *count > 0).map(|(key, _)| key)
    }
}
