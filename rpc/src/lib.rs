//! The wire between managers, workers and operators: Lotus's JSON-RPC shapes and methods, our extensions, tokens, API
//! info, clients and servers for both sides, and the traits that local and remote workers both fulfil.
//!
//! It never opens a storage path and never decides what runs where.

pub mod api;
pub mod error;
pub mod extension;
pub mod reader;
pub mod token;

pub use api::{ApiResult, Job, ManagerApi, Returned, WorkerApi};
pub use error::ApiError;
pub use reader::PieceData;
pub use token::Permission;
