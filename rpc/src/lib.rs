//! The wire between managers, workers and operators: Lotus's JSON-RPC shapes and methods, our extensions, tokens, API
//! info, clients and servers for both sides, and the traits that local and remote workers both fulfil.
//!
//! It never opens a storage path and never decides what runs where.

pub mod api;
pub mod api_info;
pub mod backup;
pub mod beat;
pub mod client;
pub mod error;
pub mod explain;
pub mod extension;
pub mod keystore;
pub mod mark;
pub mod multiaddr;
pub mod operator;
pub mod piece_url;
pub mod pipelining;
pub mod proving;
pub mod push;
pub mod push_sender;
pub mod reader;
pub mod repo_files;
pub mod repo_lock;
mod return_method;
pub mod sector_name;
pub mod server;
pub mod storage;
pub mod subject;
pub mod tls;
pub mod token;
pub mod unsealing;
pub mod versions;
mod wire;

pub use api::{ApiResult, Job, ManagerApi, ReturnMethod, Returned, WorkerApi};
pub use api_info::{ApiInfo, Transport};
pub use client::{ManagerClient, NodeClient, WorkerClient};
pub use error::ApiError;
pub use mark::Mark;
pub use operator::OperatorApi;
pub use pipelining::PipelineApi;
pub use proving::ProvingApi;
pub use push::PushStreams;
pub use reader::PieceData;
pub use sector_name::{Miners, SectorName};
pub use server::{
    Authenticate, data_methods, manager_methods, operator_methods, pipeline_methods, proving_methods,
    rpc_router, storage_methods, unseal_methods, worker_methods,
};
pub use storage::StorageApi;
pub use tls::{Identity, Trust};
pub use token::{Grant, Permission, Scope, Secret};
pub use unsealing::UnsealApi;
