//! Ids of calls, tasks, attempts, workers and storage paths. Random ones are minted elsewhere and only carried here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::sector::decimal;
use crate::{ActorId, SectorId, SectorNumber};

/// One asynchronous call to a worker, minted by the worker that accepted it. Text form `miner-number-uuid`, as Lotus's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId {
    /// The sector the call is about; miner 0, number 0 for DataCid.
    pub sector: SectorId,
    /// The call itself.
    pub id: Uuid,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.sector.miner.get(), self.sector.number, self.id)
    }
}

impl FromStr for CallId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Call { text: text.to_owned() };
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().ok_or_else(bad);
        let (miner, number, id) = (next()?, next()?, next()?);
        let number_of = |part: &str| decimal(part).ok_or_else(bad);
        let uuid = Uuid::try_parse(id).map_err(|_| bad())?;
        // One call has one text: braces, `urn:` and upper case, which the parser takes, are none of Lotus's forms.
        if uuid.to_string() != id {
            return Err(bad());
        }
        Ok(Self {
            sector: SectorId {
                miner: ActorId::new(number_of(miner)?),
                number: SectorNumber::new(number_of(number)?),
            },
            id: uuid,
        })
    }
}

/// One task of one sector as the durable state knows it: row number of the task table, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(u64);

impl TaskId {
    /// The task in this row.
    pub const fn new(row: u64) -> Self {
        Self(row)
    }

    /// The row number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One attempt at a task. A later attempt fences every earlier one: their results are refused. Text form `task.attempt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// Counts from 1.
    pub attempt: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.attempt)
    }
}

impl FromStr for AttemptId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Attempt { text: text.to_owned() };
        let (task, attempt) = text.split_once('.').ok_or_else(bad)?;
        let attempt = decimal(attempt).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        Ok(Self { task: TaskId(decimal(task).ok_or_else(bad)?), attempt: attempt.ok_or_else(bad)? })
    }
}

/// A worker's session. All zeros means "closed" on Lotus's wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub Uuid);

impl WorkerId {
    /// The session of a worker that is closing.
    pub const CLOSED: Self = Self(Uuid::nil());
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A storage path's id from `sectorstore.json`: a UUID as Lotus writes it, but any text of 1 to 128 letters, digits,
/// `-` and `_` is accepted, since operators edit the file. A `.` cannot be: it separates ids in `DELETE ?keep=`.
/// Shared text, since every plan names paths: a clone copies no bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorageId(Arc<str>);

impl StorageId {
    /// The longest id accepted, in bytes.
    pub const LENGTH_MAX: usize = 128;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for StorageId {
    fn from(id: Uuid) -> Self {
        Self(id.to_string().into())
    }
}

impl TryFrom<String> for StorageId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Storage { text: text.chars().take(2 * Self::LENGTH_MAX).collect() })
        }
    }
}

impl FromStr for StorageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.to_owned().try_into()
    }
}

impl From<StorageId> for String {
    fn from(id: StorageId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `miner-number-uuid`.
    #[error("{text:?} is no call id; expected <miner>-<sector number>-<uuid>")]
    Call {
        /// The text as given.
        text: String,
    },
    /// Not `task.attempt`.
    #[error("{text:?} is no attempt id; expected <task>.<attempt>, attempts counted from 1")]
    Attempt {
        /// The text as given.
        text: String,
    },
    /// Not 1 to 128 letters, digits, `-`, `_`.
    #[error("{text:?} is no storage path id; expected 1 to 128 letters, digits, '-' and '_'")]
    Storage {
        /// The text as given, cut to 256 characters.
        text: String,
    },
}
