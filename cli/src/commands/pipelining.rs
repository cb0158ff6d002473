//! Filling and steering the pipeline: `sectors pledge|add-piece|start-seal|update-state`, `sealing why pledge`.

use rpc::SectorName;
use rpc::api::PledgeOptions;
use rpc::pipelining::PledgingView;
use sealtasks::SectorSize;
use serde_json::json;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::control::by;
use crate::args::{AddPieceArgs, PledgeArgs, UpdateStateArgs};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, paint, print_json};

/// Bytes of a file that are read at a time.
const CHUNK: usize = 256 << 10;

/// `sectors pledge` and `pledge`.
pub async fn pledge(connection: &Connection, args: &PledgeArgs) -> Outcome {
    if args.pause || args.resume {
        let view = connection.pipeline.pause_pledging(args.pause, by()).await.map_err(rpc_failure)?;
        return told(&view, args.json);
    }
    let size = args.sector_size.as_deref().map(str::parse::<SectorSize>).transpose();
    let sector_size = size.map_err(|error| Failure::from_error(Code::Usage, &error))?;
    let options = PledgeOptions { stop_after_c1: args.until.is_some(), sector_size, miner: args.miner };
    let miners = super::operate::miners(connection).await?;
    let mut pledged = Vec::new();
    for _ in 0..args.count {
        let sector = connection.manager.pledge(options).await.map_err(rpc_failure)?;
        if !args.json {
            line(&format!("Created CC sector: {}", miners.name(sector)))?;
        }
        pledged.push(sector);
    }
    if args.json { print_json(&pledged) } else { Ok(()) }
}

/// `sealing why pledge`.
pub async fn why_pledge(connection: &Connection, json: bool) -> Outcome {
    let view = connection.pipeline.pledging().await.map_err(rpc_failure)?;
    told(&view, json)
}

fn told(view: &PledgingView, json: bool) -> Outcome {
    if json {
        return print_json(view);
    }
    line(&view.summary)?;
    if !view.change.is_empty() {
        line(&format!("What would change it: {}", paint::green(&view.change)))?;
    }
    Ok(())
}

/// `sectors add-piece`.
pub async fn add_piece(connection: &Connection, args: &AddPieceArgs) -> Outcome {
    let name = args.file.display();
    let unreadable =
        |error: std::io::Error| Failure::new(Code::Setting, format!("{name} cannot be read: {error}"));
    let file = File::open(&args.file).await.map_err(unreadable)?;
    if file.metadata().await.map_err(unreadable)?.is_dir() {
        return Err(Failure::new(Code::Setting, format!("{name} is a directory")));
    }
    let parts = Box::pin(ReaderStream::with_capacity(file, CHUNK));
    let added = connection.pipeline.add_piece(args.sector, args.miner, parts).await.map_err(rpc_failure)?;
    if args.json {
        return print_json(&added);
    }
    line(&format!(
        "{name} ({} bytes) goes to sector {} as a piece of {} bytes: {}",
        added.bytes, added.sector, added.padded_size, added.cid
    ))
}

/// `sectors start-seal`.
pub async fn start_sealing(connection: &Connection, number: SectorName, json: bool) -> Outcome {
    connection.pipeline.start_sealing(number).await.map_err(rpc_failure)?;
    if json {
        return print_json(&json!({ "sector": number }));
    }
    line(&format!("sector {number} is sealed with the data that it has"))
}

/// `sectors update-state`.
pub async fn update_state(connection: &Connection, args: &UpdateStateArgs) -> Outcome {
    if !args.really_do_it {
        let text =
            format!("nothing was done; --really-do-it puts sector {} into {}", args.number, args.state);
        return Err(Failure::new(Code::Usage, text));
    }
    connection.pipeline.update_state(args.number, args.state.clone()).await.map_err(rpc_failure)?;
    if args.json {
        return print_json(&json!({ "sector": args.number, "state": args.state }));
    }
    line(&format!("sector {} is in {} now", args.number, args.state))
}
