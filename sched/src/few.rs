//! A list that has one entry or none most of the time, and then needs no memory of its own: nothing to allocate, and
//! nothing more to fetch than what it lies in.

/// Some values, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    /// Any number, after there were two.
    Many(Vec<T>),
}

impl<T> Few<T> {
    /// Room that is made for the second entry and those after it.
    const SECOND: usize = 4;

    pub(crate) fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(all) => all,
        }
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        match self {
            Self::None => Default::default(),
            Self::One(one) => std::slice::from_mut(one).iter_mut(),
            Self::Many(all) => all.iter_mut(),
        }
    }

    pub(crate) fn push(&mut self, value: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(value),
            Self::One(one) => {
                let mut all = Vec::with_capacity(Self::SECOND);
                all.extend([one, value]);
                Self::Many(all)
            }
            Self::Many(mut all) => {
                all.push(value);
                Self::Many(all)
            }
        };
    }
}

impl<T: Ord> Few<T> {
    /// Sorts it and leaves each value once.
    pub(crate) fn sort_dedup(&mut self) {
        if let Self::Many(all) = self {
            all.sort_unstable();
            all.dedup();
            if all.len() < 2 {
                *self = all.pop().map_or(Self::None, Self::One);
            }
        }
    }

    /// Adds a value to a sorted list, unless it is there.
    pub(crate) fn insert_sorted(&mut self, value: T) {
        match self {
            Self::Many(all) => {
                if let Err(place) = all.binary_search(&value) {
                    all.insert(place, value);
                }
            }
            Self::None | Self::One(_) => {
                self.push(value);
                self.sort_dedup();
            }
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, value: &T) {
        if let Self::Many(all) = self {
            all.retain(|other| other != value);
            if all.len() < 2 {
                *self = all.pop().map_or(Self::None, Self::One);
            }
        } else if self.as_slice().first() == Some(value) {
            *self = Self::None;
        }
    }
}

impl<T> std::ops::Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

impl<T> Extend<T> for Few<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push(value));
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut few = Self::None;
        few.extend(values);
        few
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set of the standard library; what was alone once needs no memory of its own again.
        #[test]
        fn sorted_it_holds_what_a_set_holds(steps in prop::collection::vec((any::<bool>(), 0..6u8), 0..60)) {
            let (mut few, mut set) = (Few::default(), BTreeSet::new());
            for (adds, value) in steps {
                if adds {
                    few.insert_sorted(value);
                    set.insert(value);
                } else {
                    few.remove(&value);
                    set.remove(&value);
                }
                prop_assert!(few.iter().eq(&set));
                prop_assert_eq!(matches!(few, Few::Many(_)), set.len() > 1);
            }
        }
    }

    #[test]
    fn it_keeps_the_order_of_what_is_added() {
        let mut few: Few<u8> = [3, 1, 2].into_iter().collect();
        few.push(1);
        few.iter_mut().for_each(|value| *value += 1);
        assert_eq!(few.as_slice(), [4, 2, 3, 2]);
    }
}
