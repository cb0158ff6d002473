//! Classes that are to be looked at when somebody asks, however long nobody does.

use crate::queue::ClassIdx;

/// How many are noted before it is worth looking for those that have gone.
const FEW: usize = 64;

/// A list of classes, some of which may stand here for another one that has gone. It holds at most twice as many as are
/// still to be looked at, or a few.
#[derive(Debug, Default)]
pub(crate) struct Noted(Vec<ClassIdx>);

impl Noted {
    /// Adds a class. Where there is no more room, those go first that `is_due` does not know any more.
    pub(crate) fn note(&mut self, class: ClassIdx, is_due: impl Fn(ClassIdx) -> bool) {
        if self.0.len() == self.0.capacity() {
            self.0.sort_unstable();
            self.0.dedup();
            self.0.retain(|class| is_due(*class));
            self.0.reserve_exact(self.0.len().max(FEW));
        }
        self.0.push(class);
    }

    /// Takes them all; [`Noted::give_back`] returns the memory.
    pub(crate) fn take(&mut self) -> Vec<ClassIdx> {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn give_back(&mut self, mut taken: Vec<ClassIdx>) {
        taken.clear();
        self.0 = taken;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_gone_leaves_and_who_is_due_stays() {
        let (mut noted, living) = (Noted::default(), 10..20_u32);
        for round in 0..1000_u32 {
            let class = ClassIdx::at(round % 40);
            noted.note(class, |class| living.clone().any(|at| ClassIdx::at(at) == class));
            assert!(noted.len() <= 2 * FEW + 40, "{} are noted after {round} rounds", noted.len());
        }
        let all = noted.take();
        assert!(living.clone().all(|at| all.contains(&ClassIdx::at(at))));
        noted.give_back(all);
        assert!(noted.is_empty());
    }

    #[test]
    fn many_that_are_due_are_all_kept() {
        let mut noted = Noted::default();
        (0..5000).for_each(|at| noted.note(ClassIdx::at(at), |_| true));
        assert_eq!(noted.len(), 5000);
    }
}
