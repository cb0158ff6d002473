//! Each command: its plan, its work, its exit code.

pub mod auth;
pub mod backup;
pub mod control;
pub mod daemon;
pub mod data_cid;
pub mod exec;
pub mod explain;
pub mod init;
pub mod operate;
pub mod params;
pub mod pipelining;
pub mod proving;
pub mod rebuild;
pub mod repair;
pub mod run;
pub mod simulate;
pub mod storage;
mod storage_balance;
mod storage_care;
mod storage_scrub;
mod storage_transfers;
pub mod unsealing;
pub mod version;
pub mod worker;
mod worker_failure;
pub mod worker_run;
pub mod worker_tasks;
