//! What an operator asks about: a sector, or a piece of work as any listing names it. Never: whether it exists.

use std::fmt;
use std::str::FromStr;

use sealtasks::{ActorId, AttemptId, CallId, SectorId, SectorNumber, TaskId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A sector or a piece of work. Every kind has a text form of its own, so that none is mistaken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// A sector of the manager's miner: `7`.
    Number(SectorNumber),
    /// A sector with its miner: `f01000/7`, `t01000/7` or `s-t01000-7`.
    Sector(SectorId),
    /// A task: `task:5`.
    Task(TaskId),
    /// An attempt: `5.1`.
    Attempt(AttemptId),
    /// A call, as Lotus and the workers name it: `1000-7-<uuid>`.
    Call(CallId),
    /// A queued request, as Lotus's `SealingSchedDiag` names it: its `SchedId`.
    Request(Uuid),
}

/// A text that names nothing that can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no sector, task, call or attempt; expected a sector (7, f01000/7 or s-t01000-7), a task (task:5), an \
     attempt (5.1), a call (1000-7-<uuid>) or a SchedId"
)]
pub struct SubjectError {
    /// The text as given, cut to 128 characters.
    pub text: String,
}

const TASK: &str = "task:";

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let bad = || SubjectError { text: text.chars().take(128).collect() };
        if let Some(number) = number(text) {
            return Ok(Self::Number(SectorNumber::new(number)));
        }
        if let Some(row) = text.strip_prefix(TASK) {
            return number(row).map(|row| Self::Task(TaskId::new(row))).ok_or_else(bad);
        }
        if let Some((miner, sector)) = text.split_once('/') {
            let miner: ActorId = miner.parse().map_err(|_| bad())?;
            let number = SectorNumber::new(number(sector).ok_or_else(bad)?);
            return Ok(Self::Sector(SectorId { miner, number }));
        }
        if let Ok(sector) = text.parse() {
            return Ok(Self::Sector(sector));
        }
        if let Ok(attempt) = text.parse() {
            return Ok(Self::Attempt(attempt));
        }
        if let Ok(call) = text.parse() {
            return Ok(Self::Call(call));
        }
        Uuid::try_parse(text).map(Self::Request).map_err(|_| bad())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Sector(sector) => sector.fmt(f),
            Self::Task(task) => write!(f, "{TASK}{task}"),
            Self::Attempt(attempt) => attempt.fmt(f),
            Self::Call(call) => call.fmt(f),
            Self::Request(request) => request.fmt(f),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(text: String) -> Result<Self, SubjectError> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_text_of_its_own() {
        let call = "1000-7-6a3f8c1e-0000-4000-8000-000000000001";
        let sector = SectorId::new(1000, 7);
        let table = [
            ("7", Subject::Number(SectorNumber::new(7))),
            ("s-t01000-7", Subject::Sector(sector)),
            ("task:5", Subject::Task(TaskId::new(5))),
            ("5.1", Subject::Attempt(AttemptId { task: TaskId::new(5), attempt: 1 })),
            (call, Subject::Call(call.parse().expect("a call"))),
        ];
        for (text, subject) in table {
            assert_eq!(text.parse(), Ok(subject), "{text}");
            assert_eq!(subject.to_string(), text);
        }
        for text in ["f01000/7", "t01000/7"] {
            assert_eq!(text.parse(), Ok(Subject::Sector(sector)), "{text}");
        }
        let request = "6a3f8c1e-0000-4000-8000-000000000001";
        assert!(matches!(request.parse(), Ok(Subject::Request(_))));
    }

    #[test]
    fn what_names_nothing_is_refused_with_what_would_be_right() {
        for text in ["", "-7", "seven", "5.0", "f1000/7", "task:", "task:x", "1000-7", "99999999999999999999"]
        {
            let error = text.parse::<Subject>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("task:5"), "{error}");
        }
    }
}
