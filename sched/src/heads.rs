//! The heads of many classes in their order, of which the first one is looked at far more often than any other.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::order::Seat;
use crate::queue::ClassIdx;

/// Heads of classes. The first one stands outside the tree, so that to look at it costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    first: Option<(Seat, ClassIdx)>,
    /// All others, which are behind it.
    others: BTreeMap<Seat, ClassIdx>,
}

impl Heads {
    pub(crate) fn first(&self) -> Option<(Seat, ClassIdx)> {
        self.first
    }

    pub(crate) fn last(&self) -> Option<(Seat, ClassIdx)> {
        self.others.last_key_value().map(|(seat, class)| (*seat, *class)).or(self.first)
    }

    /// The first one within these bounds: most often the first of all, for which nothing is searched.
    pub(crate) fn first_within<R: RangeBounds<Seat>>(&self, bounds: R) -> Option<(Seat, ClassIdx)> {
        let first = self.first.filter(|(seat, _)| bounds.contains(seat));
        first.or_else(|| self.others.range(bounds).next().map(|(seat, class)| (*seat, *class)))
    }

    /// The heads within these bounds, in order.
    pub(crate) fn within<R: RangeBounds<Seat>>(&self, bounds: R) -> impl Iterator<Item = (Seat, ClassIdx)> {
        let first = self.first.filter(|(seat, _)| bounds.contains(seat));
        first.into_iter().chain(self.others.range(bounds).map(|(seat, class)| (*seat, *class)))
    }

    /// The classes in the order of their heads.
    pub(crate) fn classes(&self) -> impl Iterator<Item = ClassIdx> + '_ {
        self.first.iter().map(|(_, class)| *class).chain(self.others.values().copied())
    }

    /// Lists a class under another head than before; `None`: it was not, or is no more, listed.
    pub(crate) fn relist(&mut self, class: ClassIdx, before: Option<Seat>, after: Option<Seat>) {
        if let Some(before) = before {
            self.remove(&before);
        }
        if let Some(after) = after {
            self.insert(after, class);
        }
    }

    fn insert(&mut self, seat: Seat, class: ClassIdx) {
        match self.first {
            Some((first, _)) if first < seat => {
                self.others.insert(seat, class);
            }
            first => {
                self.others.extend(first);
                self.first = Some((seat, class));
            }
        }
    }

    fn remove(&mut self, seat: &Seat) {
        match self.first {
            Some((first, _)) if first == *seat => self.first = self.others.pop_first(),
            _ => {
                self.others.remove(seat);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealtasks::{SectorNumber, TaskId};

    use super::*;

    proptest! {
        /// Against a map: a few classes that are listed, moved and taken out in any order.
        #[test]
        fn the_first_is_what_a_map_has_first(steps in prop::collection::vec((0..6_u32, any::<bool>(), 0..9_u64), 0..80)) {
            let (mut heads, mut map, mut listed) = (Heads::default(), BTreeMap::new(), [None; 6]);
            for (class, stays, number) in steps {
                let seat = Seat::new(TaskId::new(class.into()), SectorNumber::new(number), 0, None);
                let before = std::mem::replace(&mut listed[class as usize], stays.then_some(seat));
                let (at, after) = (ClassIdx::at(class), listed[class as usize]);
                heads.relist(at, before, after);
                before.and_then(|before| map.remove(&before));
                map.extend(after.map(|after| (after, at)));
                prop_assert_eq!(heads.first(), map.first_key_value().map(|(seat, class)| (*seat, *class)));
                prop_assert_eq!(heads.last(), map.last_key_value().map(|(seat, class)| (*seat, *class)));
                prop_assert!(heads.classes().eq(map.values().copied()));
                let behind = map.range(seat..).map(|(seat, class)| (*seat, *class));
                prop_assert_eq!(heads.first_within(seat..), behind.clone().next());
                prop_assert!(heads.within(seat..).eq(behind));
            }
        }
    }
}
