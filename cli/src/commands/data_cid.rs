//! `sealing data-cid`: the commitment of a file, of standard input or of what a URL gives. Never: asks a manager.
//!
//! Whatever says how long it is must be right: data that ends early is an error, never filled up with zeros.

use std::fs::File;
use std::io::{self, Read};

use pieces::{PieceData, data_cid};
use rpc::piece_url;
use rpc::reader::PieceStream;
use sealtasks::{PaddedPieceSize, PieceInfo, UnpaddedPieceSize};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use super::storage::parse_bytes;
use crate::args::DataCidArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, print_json};
use crate::tls;

/// What it says with `--json`.
#[derive(Serialize)]
struct DataCidView {
    cid: String,
    padded_size: u64,
    unpadded_size: u64,
}

/// `sealing data-cid`.
pub async fn print_data_cid(args: &DataCidArgs) -> Outcome {
    let name = args.file.to_str().unwrap_or_default();
    let info = if name == "-" {
        of_stream(args, &mut io::stdin().lock(), "standard input")?
    } else if name.starts_with("http://") || name.starts_with("https://") {
        of_url(args, name).await?
    } else {
        of_file(args)?
    };
    let cid = info.cid.to_string();
    let (padded_size, unpadded_size) = (info.size.get(), info.size.unpadded().get());
    if args.json {
        return print_json(&DataCidView { cid, padded_size, unpadded_size });
    }
    line(&format!("{cid}   {padded_size}"))
}

fn of_file(args: &DataCidArgs) -> Result<PieceInfo, Failure> {
    let name = args.file.display();
    let unreadable =
        |error: io::Error| Failure::new(Code::Setting, format!("{name} cannot be read: {error}"));
    let mut file = File::open(&args.file).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if found.is_dir() {
        return Err(Failure::new(Code::Setting, format!("{name} is a directory")));
    }
    if !found.is_file() {
        // A pipe or a device has no length.
        return of_stream(args, &mut file, &name.to_string());
    }
    let length = found.len();
    let taken = if args.file_size == 0 { length } else { args.file_size };
    if taken > length {
        let text = format!("{name} has {length} bytes, fewer than --file-size {taken}");
        return Err(Failure::new(Code::Usage, text));
    }
    let size = piece_size(args, taken)?;
    if taken == length {
        return data_cid(size, PieceData::File(&file)).map_err(bad_data);
    }
    data_cid(size, PieceData::Stream(&mut Exactly { inner: file, left: taken })).map_err(bad_data)
}

fn of_stream(args: &DataCidArgs, stream: &mut dyn Read, name: &str) -> Result<PieceInfo, Failure> {
    if args.file_size == 0 && args.padded_size.is_none() {
        let text = format!("{name} has no size to tell the piece's by; give --file-size or the padded size");
        return Err(Failure::new(Code::Usage, text));
    }
    let size = piece_size(args, args.file_size)?;
    match args.file_size {
        0 => data_cid(size, PieceData::Stream(stream)).map_err(bad_data),
        left => data_cid(size, PieceData::Stream(&mut Exactly { inner: stream, left })).map_err(bad_data),
    }
}

async fn of_url(args: &DataCidArgs, url: &str) -> Result<PieceInfo, Failure> {
    let bound = match (args.file_size, &args.padded_size) {
        (0, None) => u64::MAX,
        (0, Some(_)) => piece_size(args, 0)?.get(),
        (bytes, _) => bytes,
    };
    let trust = tls::trust(|| None)?;
    let opened = piece_url::open(url, bound, &trust).await;
    let opened = opened.map_err(|error| {
        Failure::new(Code::Failed, format!("{}: {}", error.code(), rpc::error::chain(&error)))
    })?;
    let stated = opened.stated;
    let taken = if args.file_size == 0 { stated } else { Some(args.file_size) };
    if let (Some(taken), Some(stated)) = (taken, stated)
        && taken > stated
    {
        let text = format!("the server gives {stated} bytes, fewer than --file-size {taken}");
        return Err(Failure::new(Code::Usage, text));
    }
    if taken.is_none() && args.padded_size.is_none() {
        let text = "the server does not say how long it is; give --file-size or the padded size";
        return Err(Failure::new(Code::Usage, text));
    }
    let size = piece_size(args, taken.unwrap_or_default())?;
    let mut body = Awaited { stream: opened.stream, runtime: tokio::runtime::Handle::current() };
    let hashing = tokio::task::spawn_blocking(move || match taken {
        None => data_cid(size, PieceData::Stream(&mut body)),
        Some(left) => data_cid(size, PieceData::Stream(&mut Exactly { inner: body, left })),
    });
    let info = hashing.await.map_err(|error| Failure::from_error(Code::Failed, &error))?;
    info.map_err(bad_data)
}

/// The size that was asked for, or the smallest that holds this many bytes.
fn piece_size(args: &DataCidArgs, taken: u64) -> Result<UnpaddedPieceSize, Failure> {
    let chunks = taken.div_ceil(127).max(1).checked_next_power_of_two();
    let padded = match &args.padded_size {
        Some(text) => parse_bytes(text)?,
        None => chunks.and_then(|chunks| chunks.checked_mul(128)).unwrap_or(0),
    };
    let size = PaddedPieceSize::try_from(padded).map_err(|error| Failure::from_error(Code::Usage, &error))?;
    let holds = size.unpadded().get();
    if taken > holds {
        let text = format!("{taken} bytes do not fit a piece of {padded} padded bytes, which holds {holds}");
        return Err(Failure::new(Code::Usage, text));
    }
    Ok(size.unpadded())
}

fn bad_data(error: pieces::PieceError) -> Failure {
    Failure::from_error(Code::Failed, &error)
}

/// The first `left` bytes of a stream; one that ends before is an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut out[..most])?;
        if count == 0 && most > 0 {
            let text = format!("the data ends {} bytes early", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// A stream read from a thread that may block.
struct Awaited {
    stream: PieceStream,
    runtime: tokio::runtime::Handle,
}

impl Read for Awaited {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.read(out))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn args(padded_size: Option<&str>, file_size: u64) -> DataCidArgs {
        DataCidArgs {
            file: Path::new("-").to_owned(),
            padded_size: padded_size.map(str::to_owned),
            file_size,
            json: false,
        }
    }

    #[test]
    fn the_smallest_piece_that_holds_the_data_is_taken() {
        for (taken, padded) in [(0, 128), (1, 128), (127, 128), (128, 256), (254, 256), (255, 512)] {
            let size = piece_size(&args(None, taken), taken).map(|size| size.padded().get());
            assert_eq!(size.ok(), Some(padded), "{taken}");
        }
        assert!(piece_size(&args(None, u64::MAX), u64::MAX).is_err());
        assert_eq!(piece_size(&args(Some("2KiB"), 0), 2032).map(|size| size.get()).ok(), Some(2032));
        assert!(piece_size(&args(Some("2KiB"), 0), 2033).is_err(), "does not fit");
        assert!(piece_size(&args(Some("3KiB"), 0), 0).is_err(), "no power of two");
    }

    #[test]
    fn data_that_ends_early_is_never_filled_up() {
        let given = |file_size| of_stream(&args(None, file_size), &mut &[7; 100][..], "it");
        assert!(given(100).is_ok() && given(99).is_ok());
        let error = given(101).expect_err("one byte is missing").to_string();
        assert!(error.contains("ends 1 bytes early"), "{error}");
        assert!(given(0).is_err(), "no size at all");
    }
}
