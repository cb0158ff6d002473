//! Limits on how many tasks run at once, as operators write them: `PC1=3`, `PC2+C2=1`. Values only: who is limited, and
//! what follows from it, is for others to know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::TaskType;

/// Limits, each on one task type or on several that count together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskCaps(BTreeMap<TaskGroup, u32>);

/// One task type, or several that count together. Its text form is their short codes joined by `+`: `PC2+C2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskGroup(BTreeSet<TaskType>);

/// What becomes of one limit. Its text form is the group, `=` and `3`, `none` or `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapSpec {
    /// Whom it limits.
    pub group: TaskGroup,
    /// To how many.
    pub limit: CapLimit,
}

/// How many tasks of a group may run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CapLimit {
    /// This many; 0 = none at all.
    Most(u32),
    /// As many as fit, whatever the configuration says.
    Unlimited,
    /// As many as the configuration says.
    Configured,
}

impl TaskCaps {
    /// No limits.
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets one limit.
    pub fn set(&mut self, group: TaskGroup, most: u32) {
        self.0.insert(group, most);
    }

    /// Takes one limit away.
    pub fn lift(&mut self, group: &TaskGroup) {
        self.0.remove(group);
    }

    /// The limit of exactly this group.
    pub fn get(&self, group: &TaskGroup) -> Option<u32> {
        self.0.get(group).copied()
    }

    /// All limits, in the order of their groups.
    pub fn iter(&self) -> impl Iterator<Item = (&TaskGroup, u32)> {
        self.0.iter().map(|(group, most)| (group, *most))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Both: where both limit the same group, the smaller number holds.
    pub fn and(mut self, other: &Self) -> Self {
        for (group, most) in other.iter() {
            let limit = self.0.entry(group.clone()).or_insert(most);
            *limit = most.min(*limit);
        }
        self
    }
}

impl TaskGroup {
    /// One task type by itself.
    pub fn one(task: TaskType) -> Self {
        Self([task].into())
    }

    /// Its task types, at least one.
    pub fn tasks(&self) -> &BTreeSet<TaskType> {
        &self.0
    }

    /// The task type, where it is only one.
    pub fn single(&self) -> Option<TaskType> {
        self.0.first().copied().filter(|_| self.0.len() == 1)
    }
}

impl fmt::Display for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, task) in self.0.iter().enumerate() {
            write!(f, "{}{}", if position == 0 { "" } else { "+" }, task.short())?;
        }
        Ok(())
    }
}

/// Short codes in any case.
impl FromStr for TaskGroup {
    type Err = CapError;

    fn from_str(text: &str) -> Result<Self, CapError> {
        let task = |short: &str| {
            let found = TaskType::from_short(&short.trim().to_ascii_uppercase());
            found.ok_or_else(|| CapError::Task { text: short.trim().to_owned() })
        };
        text.split('+').map(task).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for CapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            CapLimit::Most(most) => write!(f, "{}={most}", self.group),
            CapLimit::Unlimited => write!(f, "{}=none", self.group),
            CapLimit::Configured => write!(f, "{}=default", self.group),
        }
    }
}

impl FromStr for CapSpec {
    type Err = CapError;

    fn from_str(text: &str) -> Result<Self, CapError> {
        let bad = || CapError::Spec { text: text.to_owned() };
        let (group, limit) = text.split_once('=').ok_or_else(bad)?;
        let limit = match limit.trim() {
            "none" => CapLimit::Unlimited,
            "default" => CapLimit::Configured,
            number => CapLimit::Most(number.parse().map_err(|_| bad())?),
        };
        Ok(Self { group: group.parse()?, limit })
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(TaskGroup, CapSpec);

/// A text that is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// A code that no task has.
    #[error(
        "{text:?} is no task; expected short codes such as PC1, joined by + where several count together: {}",
        short_codes()
    )]
    Task {
        /// The code as given.
        text: String,
    },
    /// Not a group, `=` and a limit.
    #[error(
        "{text:?} is no limit; expected PC1=3, PC2+C2=1, PC1=none (no limit) or PC1=default (as configured)"
    )]
    Spec {
        /// The text as given.
        text: String,
    },
}

fn short_codes() -> String {
    TaskType::ALL.iter().map(|task| task.short()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> CapSpec {
        text.parse().expect("a limit")
    }

    #[test]
    fn limits_are_written_as_they_are_read() {
        for text in ["PC1=3", "PC2+C2=1", "AP=none", "GET=default", "C2=0"] {
            assert_eq!(spec(text).to_string(), text);
            let json = serde_json::to_string(&spec(text)).expect("JSON");
            assert_eq!(serde_json::from_str::<CapSpec>(&json).expect("itself"), spec(text));
        }
        assert_eq!(spec("c2 + pc2 = 1"), spec("PC2+C2=1"), "order, case and spaces say nothing");
    }

    #[test]
    fn what_is_no_limit_says_what_would_be_one() {
        let told = |text: &str| text.parse::<CapSpec>().expect_err("no limit").to_string();
        assert!(told("PC3=1").starts_with("\"PC3\" is no task; expected short codes such as PC1"));
        for text in ["PC1", "PC1=", "PC1=-1", "PC1=many", "PC1=4294967296"] {
            assert!(told(text).contains("expected PC1=3, PC2+C2=1"), "{text}");
        }
        assert!(told("PC1+=2").contains("\"\" is no task"));
    }

    #[test]
    fn of_two_limits_the_smaller_holds() {
        let caps = |texts: &[&str]| {
            let mut caps = TaskCaps::none();
            for text in texts {
                let CapSpec { group, limit: CapLimit::Most(most) } = spec(text) else { panic!("{text}") };
                caps.set(group, most);
            }
            caps
        };
        let both = caps(&["PC1=3", "C2=1"]).and(&caps(&["PC1=2", "C2=5", "PC2+C2=1"]));
        assert_eq!(both, caps(&["PC1=2", "C2=1", "PC2+C2=1"]));
        let json = serde_json::to_string(&both).expect("JSON");
        assert_eq!(json, r#"{"PC1":2,"PC2+C2":1,"C2":1}"#);
        assert_eq!(serde_json::from_str::<TaskCaps>(&json).expect("itself"), both);
    }
}
