//! Locks on one sector's files: per type either readers or one writer, all of a task's or none. The rule is Lotus's.

use sealtasks::{FileType, FileTypes};

use crate::Locks;

/// Who holds what on one sector.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    readers: [u32; FileType::ALL.len()],
    // Counted, though no two are granted: an adopted attempt holds its locks whatever else is bound.
    writers: [u32; FileType::ALL.len()],
}

/// Locks that are held. Consumed when they are released.
#[derive(Debug)]
#[must_use]
pub(crate) struct LockHold(Locks);

impl Locks {
    pub(crate) fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty()
    }
}

impl LockHold {
    pub(crate) fn locks(&self) -> Locks {
        self.0
    }
}

impl LockTable {
    /// What it is while one task holds these.
    pub(crate) fn of(held: Locks) -> Self {
        let mut table = Self::default();
        let _ = table.take(held);
        table
    }

    /// The types that stand in the way; empty: the locks can be taken now.
    pub(crate) fn busy(&self, wanted: Locks) -> FileTypes {
        let written = |kind: &FileType| self.writers[kind.index()] > 0;
        let touched = |kind: &FileType| written(kind) || self.readers[kind.index()] > 0;
        wanted.read.iter().filter(written).chain(wanted.write.iter().filter(touched)).collect()
    }

    /// Takes them, whether free or not: whoever asks has looked, or adopts what is there.
    pub(crate) fn take(&mut self, wanted: Locks) -> LockHold {
        wanted.read.iter().for_each(|kind| self.readers[kind.index()] += 1);
        wanted.write.iter().for_each(|kind| self.writers[kind.index()] += 1);
        LockHold(wanted)
    }

    /// Whether nobody holds any.
    pub(crate) fn is_idle(&self) -> bool {
        self.readers.iter().chain(&self.writers).all(|count| *count == 0)
    }

    /// Gives them back.
    pub(crate) fn release(&mut self, hold: LockHold) {
        let less =
            |count: &mut u32| *count = count.checked_sub(1).expect("a lock is released where it was taken");
        hold.0.read.iter().for_each(|kind| less(&mut self.readers[kind.index()]));
        hold.0.write.iter().for_each(|kind| less(&mut self.writers[kind.index()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lotus's TestCanLock: every pair of what is held and what is wanted, over one type and over two.
    #[test]
    fn locks_follow_the_truth_table() {
        let (none, a, b) = (FileTypes::NONE, FileTypes::UNSEALED, FileTypes::SEALED);
        let cases = [
            // held read, held write, wanted read, wanted write, granted
            (none, none, a, none, true),
            (none, none, none, a, true),
            (a, none, a, none, true),
            (a, none, none, a, false),
            (none, a, a, none, false),
            (none, a, none, a, false),
            (a, none, none, b, true),
            (none, a, b, none, true),
            (a, b, a, none, true),
            (a, b, b, none, false),
            (a, b, a.union(b), none, false),
            (a.union(b), none, a.union(b), none, true),
            (b, none, a, b, false),
            (none, a, b, a, false),
        ];
        for (held_read, held_write, read, write, granted) in cases {
            let mut table = LockTable::default();
            let hold = table.take(Locks { read: held_read, write: held_write });
            let wanted = Locks { read, write };
            assert_eq!(table.busy(wanted).is_empty(), granted, "{hold:?} against {wanted:?}");
            table.release(hold);
            assert!(table.busy(Locks { read: FileTypes::NONE, write: FileTypes::ALL }).is_empty());
        }
    }
}
