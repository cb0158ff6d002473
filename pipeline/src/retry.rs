//! Failures: what is kept of them, how often each class may be retried and after how long.

use std::collections::BTreeMap;

use sealtasks::FailureClass;
use serde::{Deserialize, Serialize};

use crate::{Outcome, SectorState};

/// How a class of failure is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// Failures in a row that are retried by themselves; one more waits for the operator.
    pub tries: u32,
    /// Seconds before the first retry; doubled with each further one.
    pub first_s: u64,
    /// Seconds that the doubling ends at.
    pub most_s: u64,
}

/// The retries of a class. The first wait is Lotus's cooldown of one minute, but for the network, where peers come
/// back sooner; Lotus likewise gives up on PreCommit1 after 3 retries (and then removes the sector, which we never do).
pub const fn back_off(class: FailureClass) -> BackOff {
    match class {
        FailureClass::Environment => BackOff { tries: 5, first_s: 60, most_s: 600 },
        FailureClass::Network => BackOff { tries: 100, first_s: 10, most_s: 300 },
        // Room comes back when other sectors leave, which may take a day.
        FailureClass::Space => BackOff { tries: 200, first_s: 60, most_s: 900 },
        FailureClass::Compute => BackOff { tries: 3, first_s: 60, most_s: 600 },
        // Counted over the sector's life, since each one throws away hours of work.
        FailureClass::BadData => BackOff { tries: 3, first_s: 60, most_s: 600 },
        FailureClass::Aborted => BackOff { tries: 0, first_s: 0, most_s: 0 },
    }
}

/// One failure as the record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The state whose step failed.
    pub state: SectorState,
    /// What kind of failure.
    pub class: FailureClass,
    /// The chain of causes; beyond [`Failure::MESSAGE_MAX`] bytes the middle is left out.
    pub message: String,
    /// When, in wall milliseconds.
    pub at_ms: u64,
}

impl Failure {
    /// Bytes kept of a message.
    pub const MESSAGE_MAX: usize = 4096;
    /// Failures kept of a sector; the oldest goes first.
    pub const KEPT_MAX: usize = 32;
    /// Bytes of the beginning of a message that is too long: what failed. The rest is its end, for a program's last words
    /// say why.
    const HEAD: usize = 512;
    const LEFT_OUT: &str = "\n[the middle is left out]\n";

    fn shorten(&mut self) {
        let message = &self.message;
        let Some(over) = message.len().checked_sub(Self::MESSAGE_MAX).filter(|over| *over > 0) else {
            return;
        };
        let mut head = Self::HEAD;
        while !message.is_char_boundary(head) {
            head -= 1;
        }
        let mut tail = Self::HEAD + over + Self::LEFT_OUT.len();
        while !message.is_char_boundary(tail) {
            tail += 1;
        }
        self.message = format!("{}{}{}", &message[..head], Self::LEFT_OUT, &message[tail..]);
    }
}

const _: () =
    assert!(Failure::HEAD + Failure::LEFT_OUT.len() < Failure::MESSAGE_MAX, "there is room for an end");

/// The retry that a failed sector waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingRetry {
    /// Which retry; a row of the transition table.
    pub retry: Outcome,
    /// When it may come.
    pub when: RetryWhen,
}

/// When a retry may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryWhen {
    /// From this wall millisecond on.
    NotBeforeMs(u64),
    /// When the operator says so: the class's budget is used up, or waiting cannot help.
    Operator,
}

/// The failures of a sector and how many of each class came in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failures {
    /// The latest ones, oldest first.
    pub(crate) kept: Vec<Failure>,
    /// Since the last progress; of bad data, since the pledge or the operator's last retry.
    pub(crate) counts: BTreeMap<FailureClass, u32>,
    /// Proofs found invalid since the replica was last made or the operator's last retry; Lotus's `InvalidProofs`.
    pub(crate) invalid_proofs: u32,
    /// Commit1 has found the replica bad, once since it was made or since Commit1 last succeeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) doubted: bool,
}

impl Failures {
    /// Keeps the failure and says when its retry may come.
    pub(crate) fn add(&mut self, failure: Failure) -> RetryWhen {
        let (class, at_ms) = (failure.class, failure.at_ms);
        self.keep(failure);
        let count = self.counts.entry(class).or_default();
        *count = count.saturating_add(1);
        let policy = back_off(class);
        if *count > policy.tries {
            return RetryWhen::Operator;
        }
        let doubled = policy.first_s.saturating_mul(1_u64.checked_shl(*count - 1).unwrap_or(u64::MAX));
        RetryWhen::NotBeforeMs(at_ms.saturating_add(doubled.min(policy.most_s) * 1000))
    }

    /// Keeps the failure, of which the sector has gone on by itself.
    pub(crate) fn keep(&mut self, mut failure: Failure) {
        failure.shorten();
        let too_many = self.kept.len().saturating_sub(Failure::KEPT_MAX - 1);
        self.kept.drain(..too_many);
        self.kept.push(failure);
    }

    /// A step succeeded. Bad data is remembered, or two steps could send a sector to and fro for ever.
    pub(crate) fn progress(&mut self) {
        self.counts.retain(|class, _| *class == FailureClass::BadData);
    }

    /// The operator takes responsibility.
    pub(crate) fn forgive(&mut self) {
        self.counts.clear();
        (self.invalid_proofs, self.doubted) = (0, false);
    }
}
