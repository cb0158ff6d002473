//! What is known of lost sectors before a repair: from the file of them, or from printed pre-commitments and a full node.

use std::path::{Path, PathBuf};

use chain::recovery::{
    Export, FILE_SIZE_MAX, FailedSector, Metadata, MetadataError, export_printed, parse, parse_printed,
};

use super::repair::{of_environment, report};
use crate::args::RepairRunArgs;
use crate::exit::{Code, Failure};
use crate::full_node::failure;

/// What is known, and from where.
pub struct Known {
    /// The sectors of which enough is known.
    pub metadata: Metadata,
    /// The others.
    pub failed: Vec<FailedSector>,
    /// Where they are named.
    pub file: PathBuf,
}

/// What the operator and the chain say.
pub async fn known(repo: &Path, args: &RepairRunArgs) -> Result<Known, Failure> {
    match (&args.sectors_recovery_metadata, &args.precommit_json, args.miner) {
        (Some(file), None, _) => {
            Ok(Known { metadata: read(file, parse)?, failed: Vec::new(), file: file.clone() })
        }
        (None, Some(file), Some(miner)) => {
            let printed = read(file, parse_printed)?;
            let lotus = of_environment(repo, args.nosync).await?;
            let export = export_printed(&lotus, miner, &printed, report);
            let Export { metadata, failed } = export.await.map_err(|error| failure(&error))?;
            Ok(Known { metadata, failed, file: file.clone() })
        }
        _ => Err(Failure::new(Code::Usage, "either --metadata, or --precommit-json with --miner")),
    }
}

fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, MetadataError>) -> Result<T, Failure> {
    let unreadable = |text: String| Failure::new(Code::Setting, format!("{}: {text}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if usize::try_from(length).map_or(true, |length| length > FILE_SIZE_MAX) {
        return Err(unreadable(format!("{length} bytes; at most {FILE_SIZE_MAX} are read")));
    }
    let text = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text).map_err(|error| unreadable(error.to_string()))
}
