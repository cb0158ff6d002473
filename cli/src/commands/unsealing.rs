//! `sectors unseal|read-piece|release-unsealed`, `sealing data-cid`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use pieces::{PieceData, data_cid};
use rpc::unsealing::{PieceBytes, PieceWish, UnsealState, UnsealView};
use sealtasks::{PaddedPieceSize, PieceInfo, SectorNumber, UnpaddedPieceSize};
use serde::Serialize;

use crate::args::{DataCidArgs, ReadPieceArgs, ReleaseUnsealedArgs, UnsealArgs};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{bytes, line, print_json};

/// How often it is asked how an unsealing goes.
const POLL: Duration = Duration::from_secs(1);

/// `sectors unseal`.
pub async fn unseal(connection: &Connection, args: &UnsealArgs) -> Outcome {
    let sector = SectorNumber::new(args.number);
    let begun = connection.unseal.unseal_sector(sector).await.map_err(rpc_failure)?;
    let view = if args.no_wait { begun } else { ended(connection, begun).await? };
    if view.state == UnsealState::NotUnsealed || view.state == UnsealState::Failed {
        return Err(failed(&view, "was not unsealed"));
    }
    if args.json {
        return print_json(&view);
    }
    line(&match (view.state, view.task) {
        (UnsealState::UnderWay, Some(task)) => {
            format!("sector {} is being unsealed: task {task}; `sealyard sealing jobs` shows it", args.number)
        }
        _ => format!("sector {} is unsealed", args.number),
    })
}

/// The state once nothing is under way.
async fn ended(connection: &Connection, mut view: UnsealView) -> Result<UnsealView, Failure> {
    while view.state == UnsealState::UnderWay {
        tokio::time::sleep(POLL).await;
        let sector = SectorNumber::new(view.sector);
        view = connection.unseal.unseal_state(sector).await.map_err(rpc_failure)?;
    }
    Ok(view)
}

fn failed(view: &UnsealView, what: &str) -> Failure {
    let why = view.error.as_deref().unwrap_or("the task ended, and the manager knows no reason");
    Failure::new(Code::Sealing, format!("sector {} {what}: {why}", view.sector))
}

/// `sectors release-unsealed`.
pub async fn release(connection: &Connection, args: &ReleaseUnsealedArgs) -> Outcome {
    let sector = SectorNumber::new(args.number);
    let begun = connection.unseal.release_unsealed(sector, args.keep.clone()).await.map_err(rpc_failure)?;
    let view = ended(connection, begun).await?;
    if view.state == UnsealState::Failed {
        return Err(failed(&view, "still has its unsealed data"));
    }
    if args.json {
        return print_json(&view);
    }
    line(&format!("unsealed data of sector {} is released", args.number))
}

/// What `read-piece` says with `--json`.
#[derive(Serialize)]
struct ReadView {
    sector: u64,
    offset: u64,
    size: u64,
    /// It had to be unsealed first.
    unsealed_first: bool,
}

/// `sectors read-piece`.
pub async fn read_piece(connection: &Connection, args: &ReadPieceArgs) -> Outcome {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && args.json {
        return Err(Failure::new(Code::Usage, "--json and --output - would both write to standard output"));
    }
    let wish = PieceWish {
        sector: SectorNumber::new(args.number),
        offset: args.offset,
        size: args.size,
        unseal: !args.no_unseal,
    };
    let piece = connection.unseal.read_piece(wish).await.map_err(rpc_failure)?;
    let (size, unsealed_first) = (piece.size, piece.unsealed);
    if to_stdout {
        return copy(piece, &mut io::stdout()).await;
    }
    // Under another name until it is whole.
    let parent = args.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
    copy(piece, file.as_file_mut()).await?;
    file.as_file().sync_all()?;
    file.persist(&args.output).map_err(|error| Failure::from_error(Code::Failed, &error.error))?;
    let view = ReadView { sector: args.number, offset: args.offset, size, unsealed_first };
    if args.json {
        return print_json(&view);
    }
    let how = if unsealed_first { ", unsealed first" } else { "" };
    line(&format!("{} of sector {} in {}{how}", bytes(size), args.number, args.output.display()))
}

async fn copy(mut piece: PieceBytes, to: &mut (dyn Write + Send)) -> Outcome {
    let mut left = piece.size;
    while let Some(part) = piece.parts.next().await {
        let part = part.map_err(|error| Failure::from_error(Code::Failed, &error))?;
        left = left.saturating_sub(part.len() as u64);
        match to.write_all(&part) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Failure::reader_gone()),
            written => written?,
        }
    }
    to.flush()?;
    match left {
        0 => Ok(()),
        _ => Err(Failure::new(Code::Failed, format!("the transfer broke off {left} bytes early"))),
    }
}

/// What `data-cid` says with `--json`.
#[derive(Serialize)]
struct DataCidView {
    cid: String,
    padded_size: u64,
    unpadded_size: u64,
}

/// `sealing data-cid`. Asks no manager.
pub fn data_cid_of(args: &DataCidArgs) -> Outcome {
    let info = if args.file == Path::new("-") { of_stream(args)? } else { of_file(args)? };
    let cid = info.cid.to_string();
    if args.json {
        let unpadded_size = info.size.unpadded().get();
        return print_json(&DataCidView { cid, padded_size: info.size.get(), unpadded_size });
    }
    line(&format!("{cid}   {}", bytes(info.size.get())))
}

fn of_file(args: &DataCidArgs) -> Result<PieceInfo, Failure> {
    let name = args.file.display();
    let unreadable =
        |error: io::Error| Failure::new(Code::Setting, format!("{name} cannot be read: {error}"));
    let length = fs::metadata(&args.file).map_err(unreadable)?.len();
    let taken = if args.file_size == 0 { length } else { args.file_size };
    if taken > length {
        return Err(Failure::new(
            Code::Usage,
            format!("{name} has {length} bytes, fewer than --file-size {taken}"),
        ));
    }
    let file = File::open(&args.file).map_err(unreadable)?;
    let size = piece_size(args, taken)?;
    if taken == length {
        return data_cid(size, PieceData::File(&file)).map_err(bad_data);
    }
    data_cid(size, PieceData::Stream(&mut file.take(taken))).map_err(bad_data)
}

fn of_stream(args: &DataCidArgs) -> Result<PieceInfo, Failure> {
    let mut stdin = io::stdin().lock();
    if args.file_size == 0 && args.padded_size.is_none() {
        let text = "standard input has no size to tell the piece's by; give --file-size or the padded size";
        return Err(Failure::new(Code::Usage, text));
    }
    let size = piece_size(args, args.file_size)?;
    match args.file_size {
        0 => data_cid(size, PieceData::Stream(&mut stdin)).map_err(bad_data),
        taken => data_cid(size, PieceData::Stream(&mut stdin.take(taken))).map_err(bad_data),
    }
}

/// The size that was asked for, or the smallest that holds this many bytes.
fn piece_size(args: &DataCidArgs, taken: u64) -> Result<UnpaddedPieceSize, Failure> {
    let padded = match args.padded_size {
        Some(padded) => padded,
        None => taken
            .div_ceil(127)
            .max(1)
            .checked_next_power_of_two()
            .and_then(|n| n.checked_mul(128))
            .unwrap_or(0),
    };
    let size = PaddedPieceSize::try_from(padded).map_err(|error| Failure::from_error(Code::Usage, &error))?;
    Ok(size.unpadded())
}

fn bad_data(error: pieces::PieceError) -> Failure {
    Failure::from_error(Code::Failed, &error)
}
