//! Whose orders count. A manager that takes over from a backup is another one than the manager it replaces, although both
//! have the same repo, the same tokens and the same sectors: its reign says from whom it descends. Never: decides what
//! becomes of a manager whose time is over.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The reign of one start of one manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// The same of all managers that descend from one `init`, and of no others.
    pub family: Uuid,
    /// A random id of each take-over since, oldest first. Two managers made from one backup differ in the last.
    pub takeovers: Vec<Uuid>,
    /// Counts this manager's starts, and goes on counting over take-overs.
    pub epoch: u64,
}

/// What another reign is to one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same manager: the same start or a later one.
    Same,
    /// The same manager as it was: an earlier start, or an old copy of its repo.
    Earlier,
    /// A manager that took over from one's own, perhaps over several others.
    Successor,
    /// A manager from which one's own took over.
    Predecessor,
    /// Both took over from the same manager, each on its own.
    Rival,
    /// Nothing to do with one another.
    Stranger,
}

impl Reign {
    /// The most take-overs that one manager may descend from: each follows the loss of a host.
    pub const TAKEOVERS_MAX: usize = 100;

    /// The id that tells this manager from all others, whenever it was started.
    pub fn manager(&self) -> Uuid {
        self.takeovers.last().copied().unwrap_or(self.family)
    }

    /// What `other` is to this reign.
    pub fn relation_of(&self, other: &Self) -> Relation {
        if self.family != other.family {
            return Relation::Stranger;
        }
        if self.takeovers == other.takeovers {
            return if other.epoch < self.epoch { Relation::Earlier } else { Relation::Same };
        }
        if other.takeovers.starts_with(&self.takeovers) {
            return Relation::Successor;
        }
        if self.takeovers.starts_with(&other.takeovers) {
            return Relation::Predecessor;
        }
        Relation::Rival
    }
}

/// For people: the manager's short name and its start.
impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.manager().simple().to_string();
        write!(f, "manager {} (take-over {}, epoch {})", &name[..8], self.takeovers.len(), self.epoch)
    }
}

impl Reign {
    /// The reign on one line of letters, digits, `/` and `.`, as it travels in a header.
    pub fn to_line(&self) -> String {
        let takeovers: Vec<String> = self.takeovers.iter().map(|id| id.simple().to_string()).collect();
        format!("{}/{}/{}", self.family.simple(), self.epoch, takeovers.join("."))
    }
}

/// A text is no reign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no manager; expected FAMILY/EPOCH/TAKEOVER.TAKEOVER…")]
pub struct ReignError {
    text: String,
}

/// Of a text that is none, so many characters are shown.
const SHOWN_MAX: usize = 80;

impl FromStr for Reign {
    type Err = ReignError;

    fn from_str(text: &str) -> Result<Self, ReignError> {
        read(text).ok_or_else(|| ReignError { text: text.chars().take(SHOWN_MAX).collect() })
    }
}

fn read(line: &str) -> Option<Reign> {
    let mut parts = line.splitn(3, '/');
    let family = Uuid::try_parse(parts.next()?).ok()?;
    let epoch = parts.next()?.parse().ok()?;
    let takeovers = parts.next()?;
    if takeovers.is_empty() {
        return Some(Reign { family, takeovers: Vec::new(), epoch });
    }
    let takeovers = takeovers.split('.').take(Reign::TAKEOVERS_MAX + 1).map(Uuid::try_parse);
    let takeovers: Vec<Uuid> = takeovers.collect::<Result<_, _>>().ok()?;
    (takeovers.len() <= Reign::TAKEOVERS_MAX).then_some(Reign { family, takeovers, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reign(takeovers: &[u128], epoch: u64) -> Reign {
        let takeovers = takeovers.iter().map(|id| Uuid::from_u128(*id)).collect();
        Reign { family: Uuid::from_u128(7), takeovers, epoch }
    }

    #[test]
    fn descent_decides_and_epochs_only_within_one_manager() {
        let served = reign(&[1, 2], 10);
        let is = |other: &Reign| served.relation_of(other);
        assert_eq!(is(&reign(&[1, 2], 10)), Relation::Same);
        assert_eq!(is(&reign(&[1, 2], 11)), Relation::Same);
        assert_eq!(is(&reign(&[1, 2], 9)), Relation::Earlier);
        assert_eq!(is(&reign(&[1, 2, 3, 4], 1)), Relation::Successor);
        assert_eq!(is(&reign(&[1], 99)), Relation::Predecessor);
        assert_eq!(is(&reign(&[], 99)), Relation::Predecessor);
        // However often the rival was started, or taken over from, since.
        assert_eq!(is(&reign(&[1, 3], 99)), Relation::Rival);
        assert_eq!(is(&reign(&[1, 3, 4], 99)), Relation::Rival);
        let stranger = Reign { family: Uuid::from_u128(8), ..served.clone() };
        assert_eq!(is(&stranger), Relation::Stranger);
    }

    #[test]
    fn a_reign_is_read_as_it_was_written_and_nothing_else_is_one() {
        for reign in [reign(&[], 1), reign(&[1, 2], u64::MAX)] {
            assert_eq!(reign.to_line().parse(), Ok(reign));
        }
        let most: Vec<u128> = (0..=Reign::TAKEOVERS_MAX as u128).collect();
        for bad in ["", "x", "a/b/c", &reign(&[1], 1).to_line().replace('/', " "), &reign(&most, 1).to_line()]
        {
            assert!(bad.parse::<Reign>().is_err(), "{bad:?}");
        }
    }
}
