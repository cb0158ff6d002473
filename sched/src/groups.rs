//! A set of groups, as bits: to go through the few that matter without looking at the others.

use sealtasks::TaskType;

use crate::queue::GroupIdx;

/// Groups by position. A group is a task type and a proof, and both are few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupSet([u64; GroupSet::WORDS]);

impl GroupSet {
    /// Seal proofs that the network has numbered, and some to come.
    const PROOFS: usize = 24;
    const WORDS: usize = (TaskType::ALL.len() * Self::PROOFS).div_ceil(64);

    /// # Panics
    /// If there are more groups than task types and proofs allow.
    pub(crate) fn insert(&mut self, group: GroupIdx) {
        self.0[group / 64] |= 1 << (group % 64);
    }

    pub(crate) fn remove(&mut self, group: GroupIdx) {
        self.0[group / 64] &= !(1 << (group % 64));
    }

    pub(crate) fn contains(&self, group: GroupIdx) -> bool {
        self.0[group / 64] >> (group % 64) & 1 == 1
    }

    /// Inserts or removes.
    pub(crate) fn set(&mut self, group: GroupIdx, is_in: bool) {
        if is_in { self.insert(group) } else { self.remove(group) }
    }

    /// Those in both sets.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// In the order of their positions.
    pub(crate) fn iter(self) -> impl Iterator<Item = GroupIdx> {
        self.0.into_iter().enumerate().flat_map(|(word, bits)| {
            let mut left = bits;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(word * 64 + bit as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_inserted_in_order() {
        let mut set = GroupSet::default();
        for group in [70, 3, 0, 63, 64, 200] {
            set.insert(group);
        }
        set.remove(3);
        set.set(5, true);
        set.set(70, false);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 63, 64, 200]);
        assert!(set.contains(64) && !set.contains(65));
        let mut other = GroupSet::default();
        other.insert(64);
        other.insert(65);
        assert_eq!(set.and(&other).iter().collect::<Vec<_>>(), [64]);
    }
}
