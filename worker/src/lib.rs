//! Runs sealing tasks: acquires their files, starts their executors, journals every call, and returns each result until
//! the manager has taken it.
//!
//! The life of a call: [`journal`] writes it down before it is answered; its files are acquired and space is reserved;
//! [`executor`] runs the task as a program of its own; what it made is declared; the result is journalled and offered
//! until it is acknowledged. A crash at any point loses nothing that was answered: when the worker starts again, executors
//! that live on are taken over, finished calls are returned as they ended and lost ones as restarted; `legacy` has the
//! table.
//!
//! A worker never decides what runs where, never prints, and never knows the proofs library: `cli` names the executor
//! program and the proof parameters.

mod api;
mod auth;
mod beats;
mod call;
mod calls;
pub mod config;
pub mod confine;
mod declarations;
pub mod environment;
pub mod error;
pub mod executor;
mod executor_log;
mod feed;
mod files;
mod fork;
mod gpus;
pub mod journal;
mod legacy;
pub mod machine;
mod manager_index;
pub mod managers;
pub mod offer;
mod periods;
mod process;
mod proving;
pub mod registration;
pub mod rehearsal;
pub mod repo;
mod report;
pub mod resources;
mod returns;
mod scrub;
mod spare;
mod threads;
mod tickets;
mod usage;
pub mod waiting;
mod worker;

pub use auth::ManagerTokens;
pub use config::{Config, ConfigError, SealingThread};
pub use error::WorkerError;
pub use executor::{ExecutorOptions, Replacement};
pub use legacy::begun_files;
pub use manager_index::ManagerIndex;
pub use managers::{Candidate, MANAGERS_MAX, ManagerFacts, Managers};
pub use offer::{BUILT, ProofParams};
pub use periods::Periods;
pub use registration::{RegistrationOptions, Status, StatusSink};
pub use repo::{FirstPath, Repo, RepoError};
pub use worker::{LAST_RETURNS, Worker, WorkerHandle, WorkerOptions};
