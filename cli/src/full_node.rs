//! The full node of the chain: found by flag, environment or configuration, connected to, waited for until it is synced.

use std::path::Path;

use chain::{ChainError, Lotus, SyncProgress};
use rpc::{ApiError, ApiInfo};

use crate::exit::{Code, Failure, Outcome};
use crate::show::talk;
use crate::tls;

/// The variable that names the full node.
pub const FULL_NODE: &str = "FULLNODE_API_INFO";
/// How it is come by.
pub const ADVICE: &str = "set it to <token>:<address>, as `lotus auth api-info --perm read` prints it";
/// While the node is behind, every so many looks are reported.
const LOOKS_PER_REPORT: usize = 10;
/// A node that is less far behind than this, in seconds, is as good as synced.
const BEHIND_MAX_S: u64 = 90;

/// Connects to the node of this API info; `repo` is where certificate authorities may be named.
pub async fn connect(repo: &Path, info: &str) -> Result<Lotus, Failure> {
    let info: ApiInfo = info
        .parse()
        .map_err(|error| Failure::new(Code::Setting, format!("{FULL_NODE}: {error}")).advise(ADVICE))?;
    let trust = tls::trust(|| tls::managers_authorities(repo))?;
    Lotus::connect(&info, &trust).await.map_err(|error| failure(&error))
}

/// Waits until the node is where its network is, and tells how far it is.
pub async fn synced(lotus: &Lotus) -> Outcome {
    let mut looks = 0;
    let report = |progress: &SyncProgress| {
        if looks % LOOKS_PER_REPORT == 0 && progress.behind_s > BEHIND_MAX_S {
            talk!("the full node is at height {}, {} s behind its network", progress.head, progress.behind_s);
        }
        looks += 1;
    };
    lotus.synced(report).await.map_err(|error| failure(&error))
}

/// The failure of a command that asks a chain.
pub fn failure(error: &ChainError) -> Failure {
    Failure::from_error(code(error), error)
}

/// Its exit code.
pub const fn code(error: &ChainError) -> Code {
    match error {
        ChainError::Client { .. } | ChainError::SectorSize { .. } => Code::Setting,
        ChainError::ApiVersion { .. } => Code::Version,
        ChainError::Node { source: ApiError::Unauthorized { .. }, .. } => Code::Token,
        ChainError::Node { source: ApiError::Unreachable { .. }, .. } => Code::Unreachable,
        _ => Code::Failed,
    }
}
