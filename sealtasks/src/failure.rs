//! Why a call failed: Lotus's numeric codes on the wire, and the classes that decide what happens next.

use serde::{Deserialize, Serialize};

/// A call's failure as it travels in `Return*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} (code {})", .code.number())]
pub struct CallError {
    /// The class of the failure as Lotus knows it.
    pub code: CallErrorCode,
    /// The whole chain of causes, outermost first.
    pub message: String,
}

/// Lotus's call error codes. Numbers we do not know are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub enum CallErrorCode {
    /// 0: permanent as far as anyone knows.
    Unknown,
    /// 100: may pass.
    TempUnknown,
    /// 101: the worker restarted and disowns the call.
    TempWorkerRestart,
    /// 102: no path had the space.
    TempAllocateSpace,
    /// Any other number.
    Other(i64),
}

impl CallErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> i64 {
        match self {
            Self::Unknown => 0,
            Self::TempUnknown => 100,
            Self::TempWorkerRestart => 101,
            Self::TempAllocateSpace => 102,
            Self::Other(number) => number,
        }
    }
}

impl From<i64> for CallErrorCode {
    fn from(number: i64) -> Self {
        match number {
            0 => Self::Unknown,
            100 => Self::TempUnknown,
            101 => Self::TempWorkerRestart,
            102 => Self::TempAllocateSpace,
            other => Self::Other(other),
        }
    }
}

impl From<CallErrorCode> for i64 {
    fn from(code: CallErrorCode) -> i64 {
        code.number()
    }
}

/// What kind of thing went wrong; each class has its own budget of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Missing parameters, wrong settings, a program that does not start.
    Environment,
    /// A peer could not be reached or hung up.
    Network,
    /// Not enough room.
    Space,
    /// The computation itself failed or was killed.
    Compute,
    /// The input is proven bad.
    BadData,
    /// Somebody asked for it to stop.
    Aborted,
}

/// An error with all its causes in one line, outermost first: what Go's clients show and what a log wants.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let words = cause.to_string();
        // Some errors repeat their cause in their own words; once is enough.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    enum Told {
        #[error("disk full")]
        Disk,
        #[error("writing {0}")]
        Write(&'static str, #[source] Box<Told>),
        #[error("not stored: {0}")]
        Repeats(#[source] Box<Told>),
    }

    #[test]
    fn causes_are_told_once_outermost_first() {
        let write = |what| Told::Write(what, Box::new(Told::Disk));
        assert_eq!(chain(&write("p_aux")), "writing p_aux: disk full");
        assert_eq!(chain(&Told::Repeats(Box::new(write("t_aux")))), "not stored: writing t_aux: disk full");
        assert_eq!(chain(&Told::Disk), "disk full");
    }
}
