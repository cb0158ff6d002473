//! The one room that knows filecoin-proofs-api: each sealing task as an executor, the settings those libraries read,
//! and the proof parameters they need.
//!
//! An executor reads an [`ExecutorRequest`](sealtasks::ExecutorRequest) from a file and writes an
//! [`ExecutorReport`](sealtasks::ExecutorReport) to another ([`exec_files`]); `EXECUTORS.md` beside this room's manifest
//! documents the seam. [`execute`] is the same work on typed values.
//!
//! This room never schedules, never moves a sector's files between paths, never talks to a manager, and never writes
//! parameters it made itself into the directory that is shared with other programs.

mod data;
mod execute;
mod failure;
mod files;
mod p_aux;
pub mod params;
mod pre_commit2;
mod proof_kind;
pub mod scrub;
mod seal;
mod seam;
pub mod settings;
mod unencoded;
mod unseal;
mod vanilla;
mod verify;
mod warm;

pub use execute::execute;
pub use failure::TaskError;
pub use proof_kind::{from_library, to_library, window_post};
pub use seam::{Outcome, PIECE_DESCRIPTOR, REQUEST_BYTES_MAX, SeamError, exec_files, exec_files_and};
pub use warm::warm;
