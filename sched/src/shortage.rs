//! What a task is short of on a worker or a machine, with the numbers, for people and programs.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::devices::GPU_WHOLE;

/// A resource that is short, with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "resource", rename_all = "snake_case")]
pub enum Shortage {
    /// As many tasks of this type and size run as may.
    Concurrency {
        /// Running now.
        running: u64,
        /// The limit.
        most: u64,
    },
    /// RAM, in bytes.
    Memory {
        /// The task's minimum and its type's base memory where that is not there yet.
        needs: u64,
        /// Not promised to running tasks.
        free: u64,
        /// What of `free` has to stay so, that small tasks never wait for long ones.
        #[serde(default)]
        kept: u64,
        /// All of it.
        total: u64,
    },
    /// RAM and swap together, in bytes.
    MemoryAndSwap {
        /// The task's maximum and its type's base memory where that is not there yet.
        needs: u64,
        /// Neither promised to running tasks nor in use.
        free: u64,
        /// What of `free` has to stay so, that small tasks never wait for long ones.
        #[serde(default)]
        kept: u64,
        /// All of it.
        total: u64,
    },
    /// CPU threads.
    Threads {
        /// The task's.
        needs: u64,
        /// Not promised to running tasks.
        free: u64,
        /// All of them.
        total: u64,
    },
    /// GPUs, in thousandths of one.
    Gpu {
        /// The task's.
        needs: u64,
        /// Thousandths not promised, over all devices.
        free: u64,
        /// How many devices.
        devices: usize,
    },
}

impl Shortage {
    /// Whether the same resource is short, whatever the numbers.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// How much of the same a machine that is short of it, and has no more of it, has left beside this worker of it: as much,
    /// or less because others hold some; `None`: they are not short of the same.
    pub(crate) fn on_machine(&self, machines: &Self) -> Option<Ordering> {
        let (total, all, free, least) = match (self, machines) {
            (Self::Memory { free, total, .. }, Self::Memory { free: least, total: all, .. })
            | (
                Self::MemoryAndSwap { free, total, .. },
                Self::MemoryAndSwap { free: least, total: all, .. },
            )
            | (Self::Threads { free, total, .. }, Self::Threads { free: least, total: all, .. }) => {
                (*total, *all, free, least)
            }
            (Self::Gpu { free, devices, .. }, Self::Gpu { free: least, devices: all, .. }) => {
                (*devices as u64, *all as u64, free, least)
            }
            _ => return None,
        };
        (total == all).then(|| least.cmp(free))
    }
}

/// A sum as it is told: 64 bits, which every JSON reader takes, are more than any machine has.
pub(crate) fn told(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency { running, most } => {
                write!(f, "runs {running} of this type, at most {most} may")
            }
            Self::Memory { needs, free, kept, total } => memory(f, "memory", [*needs, *free, *kept, *total]),
            Self::MemoryAndSwap { needs, free, kept, total } => {
                memory(f, "memory and swap", [*needs, *free, *kept, *total])
            }
            Self::Threads { needs, free, total } => {
                let threads = if *needs == 1 { "thread" } else { "threads" };
                write!(f, "needs {needs} CPU {threads}, {free} free of {total}")
            }
            Self::Gpu { needs, free, devices } => {
                write!(f, "needs {} GPUs, {} free of {devices}", Thousandths(*needs), Thousandths(*free))
            }
        }
    }
}

fn memory(f: &mut fmt::Formatter<'_>, what: &str, bytes: [u64; 4]) -> fmt::Result {
    let [needs, free, kept, total] = bytes.map(|bytes| Bytes(bytes.into()));
    write!(f, "needs {needs} of {what}, {free} free of {total}")?;
    if kept.0 > 0 { write!(f, ", {kept} of it kept for small tasks") } else { Ok(()) }
}

/// Bytes in the largest binary unit, with one decimal where it is not whole.
pub(crate) struct Bytes(pub(crate) u128);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let unit = (0..UNITS.len()).rev().find(|unit| self.0 >> (10 * unit) > 0).unwrap_or(0);
        let tenths = (self.0.saturating_mul(10)) >> (10 * unit);
        match tenths % 10 {
            0 => write!(f, "{} {}", tenths / 10, UNITS[unit]),
            part => write!(f, "{}.{part} {}", tenths / 10, UNITS[unit]),
        }
    }
}

struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % GPU_WHOLE {
            0 => write!(f, "{}", self.0 / GPU_WHOLE),
            part => write!(f, "{}.{part:03}", self.0 / GPU_WHOLE),
        }
    }
}
