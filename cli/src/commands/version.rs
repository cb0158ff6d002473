//! `version`: this program, what was compiled in, and the protocol versions it speaks.

use serde_json::json;

use crate::args::ListArgs;
use crate::exit::Outcome;
use crate::show::{line, print_json};

/// Prints it.
pub fn version(args: ListArgs) -> Outcome {
    let features = proofs::settings::compiled_features();
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        return print_json(&json!({
            "version": version,
            "features": features,
            "manager_api": rpc::versions::Version(rpc::versions::MANAGER_VERSION).to_string(),
            "worker_api": rpc::versions::Version(rpc::versions::WORKER_VERSION).to_string(),
        }));
    }
    line(&format!("sealyard {version}"))?;
    let list = if features.is_empty() { "none (CPU only)".to_owned() } else { features.join(", ") };
    line(&format!("features: {list}"))?;
    line(&format!(
        "protocol: manager {}, worker {}",
        rpc::versions::Version(rpc::versions::MANAGER_VERSION),
        rpc::versions::Version(rpc::versions::WORKER_VERSION)
    ))
}
