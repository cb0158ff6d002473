//! `sectors unseal|read-piece|release-unsealed`.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use rpc::unsealing::{PieceBytes, PieceWish, UnsealState, UnsealView};
use rpc::{ApiError, SectorName};
use serde::Serialize;

use crate::args::{ReadPieceArgs, ReleaseUnsealedArgs, UnsealArgs};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{bytes, line, print_json};

/// How often it is asked how an unsealing goes.
const POLL: Duration = Duration::from_secs(1);

/// `sectors unseal`.
pub async fn unseal(connection: &Connection, args: &UnsealArgs) -> Outcome {
    let begun = connection.unseal.unseal_sector(args.number).await.map_err(unseal_failure)?;
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
        view = connection.unseal.unseal_state(view.sector).await.map_err(rpc_failure)?;
    }
    Ok(view)
}

/// A refusal with its exit code: no such sector, or not unsealed and not to be.
fn unseal_failure(error: ApiError) -> Failure {
    let text = error.to_string();
    let code = match () {
        () if text.contains("MGR053") => Code::Unknown,
        () if text.contains("MGR08") || text.contains("MGR110") => Code::Sealing,
        () => return rpc_failure(error),
    };
    Failure::from_error(code, &error)
}

fn failed(view: &UnsealView, what: &str) -> Failure {
    let why = view.error.as_deref().unwrap_or("the task ended, and the manager knows no reason");
    Failure::new(Code::Sealing, format!("sector {} {what}: {why}", view.sector))
}

/// `sectors release-unsealed`.
pub async fn release(connection: &Connection, args: &ReleaseUnsealedArgs) -> Outcome {
    let begun = connection.unseal.release_unsealed(args.number, args.keep.clone()).await;
    let begun = begun.map_err(unseal_failure)?;
    let task = begun.task;
    let view = ended(connection, begun).await?;
    // A manager that was restarted in between knows of no failure, nor that it was done. A later task may be the last one.
    if view.done < task {
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
    sector: SectorName,
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
    let wish =
        PieceWish { sector: args.number, offset: args.offset, size: args.size, unseal: !args.no_unseal };
    let piece = connection.unseal.read_piece(wish).await.map_err(unseal_failure)?;
    let (size, unsealed_first) = (piece.size, piece.unsealed);
    if to_stdout {
        return copy(piece, &mut io::stdout()).await;
    }
    save(piece, &args.output).await?;
    let view = ReadView { sector: args.number, offset: args.offset, size, unsealed_first };
    if args.json {
        return print_json(&view);
    }
    let how = if unsealed_first { ", unsealed first" } else { "" };
    line(&format!("{} of sector {} in {}{how}", bytes(size), args.number, args.output.display()))
}

/// Under another name until it is whole, so that a file that is there stays until then.
async fn save(piece: PieceBytes, output: &Path) -> Outcome {
    if fs::metadata(output).is_ok_and(|found| !found.is_file()) {
        // A device or a pipe is written to; in its place a file would take its name.
        return copy(piece, &mut File::options().write(true).open(output)?).await;
    }
    // Through a link to the file that it names.
    let output = fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let mut file = builder.permissions(Permissions::from_mode(0o666)).tempfile_in(parent)?;
    copy(piece, file.as_file_mut()).await?;
    file.as_file().sync_all()?;
    file.persist(&output).map_err(|error| Failure::from_error(Code::Failed, &error.error))?;
    Ok(File::open(parent)?.sync_all()?)
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
