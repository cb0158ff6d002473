//! `storage transfers`: what is being downloaded where, and how much it may use.

use sealtasks::TransferChange;

use super::storage::parse_bytes;
use crate::args::TransfersArgs;
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{print_json, print_transfers};

/// Changes what it was told to, then shows what holds and what runs. A process that did not answer makes it fail where
/// something was to be changed.
pub async fn transfers(connection: &Connection, args: &TransfersArgs) -> Outcome {
    let change = change(args)?;
    let hosts = connection.storage.transfers(args.worker.clone(), change).await.map_err(rpc_failure)?;
    if args.json {
        print_json(&hosts)?
    } else {
        print_transfers(&hosts, &super::operate::miners(connection).await?)?
    }
    let silent: Vec<&str> =
        hosts.iter().filter(|host| host.report.is_none()).map(|host| host.host.as_str()).collect();
    if change.is_empty() || silent.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, format!("nothing was changed on {}", silent.join(", ")))
        .advise("say it again, with --worker, when they are back"))
}

fn change(args: &TransfersArgs) -> Result<TransferChange, Failure> {
    let bandwidth = match args.limit.as_deref() {
        None => None,
        Some("none") => Some(0),
        Some(text) => match parse_bytes(text.strip_suffix("/s").unwrap_or(text))? {
            0 => {
                return Err(Failure::new(Code::Usage, "--limit 0 would let nothing through")
                    .advise("write --limit none for no limit"));
            }
            rate => Some(rate),
        },
    };
    let TransfersArgs { parallel, streams, verify, .. } = *args;
    let change = TransferChange { bandwidth, parallel, streams, verify };
    change.check().map_err(|error| Failure::from_error(Code::Usage, &error))?;
    Ok(change)
}
