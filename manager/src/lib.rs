//! The manager: feeds events to `sched` and `pipeline`, carries out their actions, keeps the durable state, serves the
//! API. Never: proofs, executors, printing; decisions about placement or a sector's next state are made in the pure
//! rooms and only carried out here.
//!
//! What a crash loses: connections, the index (paths are declared again), and anything not acknowledged. Tasks, attempts
//! and calls are durable before they are acted on.

mod answers;
mod asked;
pub mod backup;
mod binding;
pub mod config;
mod data_cid;
mod driver;
mod effects;
mod explain;
mod foreign;
mod heartbeats;
mod loading;
mod manager;
mod memory;
mod messages;
mod missing;
mod naming;
mod older;
mod on_chain;
mod orders;
mod pipelining;
mod proving;
mod refill;
mod remains;
mod removal;
mod repo;
mod request;
mod scrub;
mod service;
mod shared;
mod staging;
mod standing;
pub mod state;
mod storage;
mod tickets;
mod transfers;
mod unnamed;
mod unsaid;
mod unsealing;
mod workers;
mod worth;

pub use binding::{ChainChoice, add_miner, remove_miner};
pub use config::{Config, ConfigError};
pub use manager::{Manager, ManagerError, ManagerHandle, ManagerOptions};
pub use repo::{InitOptions, LocalStorage, Repo, RepoError};
pub use shared::{BackOff, Timing, Verifier};
pub use workers::{DialError, Dialer, RpcDialer};
