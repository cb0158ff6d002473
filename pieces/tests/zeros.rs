//! Zeros and holes: neither read, hashed nor written where that can be avoided, and nobody sees the difference.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Whence, lseek};
use pieces::{PieceData, PieceError, PieceReader, add_piece, data_cid, fr32, pad_piece};
use sealtasks::{Commitment, SectorSize, UnpaddedPieceSize};
use sha2::{Digest, Sha256};

const SECTOR: SectorSize = SectorSize::MiB512;
/// 16 MiB padded: several batches.
const PIECE: u64 = 127 << 17;

fn size(bytes: u64) -> UnpaddedPieceSize {
    UnpaddedPieceSize::try_from(bytes).unwrap()
}

/// Data with zeros of many lengths in it: within a chunk, one block, several blocks, a whole batch and more.
fn patchy() -> Vec<u8> {
    let mut raw: Vec<u8> =
        (0..PIECE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    for zeros in [10..40, 65_024..130_048, 300_000..900_000, 5 << 20..12 << 20] {
        raw[zeros].fill(0);
    }
    raw
}

/// The tree as it is defined, node by node.
fn commit_slowly(raw: &[u8]) -> Commitment {
    let mut nodes = vec![0; raw.len() / 127 * 128];
    fr32::pad(raw, &mut nodes).unwrap();
    while nodes.len() > 32 {
        let parent = |pair: &[u8]| {
            let mut node: [u8; 32] = Sha256::digest(pair).into();
            node[31] &= 0x3f;
            node
        };
        nodes = nodes.chunks(64).map(parent).collect::<Vec<_>>().concat();
    }
    Commitment::new(nodes.try_into().unwrap())
}

/// The same bytes as a file whose zeros are holes where they fill blocks of the file system.
fn sparse(path: &Path, raw: &[u8]) -> File {
    let mut file = File::options().create_new(true).read(true).write(true).open(path).unwrap();
    for (at, block) in raw.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(at as u64 * 4096)).unwrap();
            file.write_all(block).unwrap();
        }
    }
    file.set_len(raw.len() as u64).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_piece_with_zeros_in_it_is_the_same_from_a_stream_and_from_a_file_with_holes() {
    let directory = tempfile::tempdir().unwrap();
    let raw = patchy();
    let expected = commit_slowly(&raw);
    let holes = sparse(&directory.path().join("source"), &raw);
    assert!(
        holes.metadata().unwrap().blocks() * 512 < PIECE - (4 << 20),
        "the file system makes no holes here"
    );
    for from_file in [false, true] {
        let path = directory.path().join(format!("sector-{from_file}"));
        let mut stream = &raw[..];
        let data = if from_file { PieceData::File(&holes) } else { PieceData::Stream(&mut stream) };
        let info = add_piece(&path, SECTOR, &[], size(PIECE), data).unwrap();
        assert_eq!(info.cid.commitment(), expected, "from a file: {from_file}");
        let mut back = Vec::new();
        PieceReader::open(&path, SECTOR, 0, PIECE).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == raw, "from a file: {from_file}");
    }
    assert_eq!((&holes).stream_position().unwrap(), PIECE, "the position moved as if the file was read");
}

/// Bytes of a file's data that were ever written: space that is reserved counts as a hole.
fn written(path: &Path, data: u64) -> u64 {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    let seek = |at: u64, whence| lseek(&file, at as i64, whence).map(|at| at as u64);
    let (mut at, mut written) = (0, 0);
    while at < data {
        let Ok(start) = seek(at, Whence::SeekData) else { break };
        let end = seek(start, Whence::SeekHole).unwrap();
        written += end.min(data).saturating_sub(start.min(data));
        at = end;
    }
    written
}

#[test]
fn zeros_are_not_written_into_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sector");
    let sector = SectorSize::MiB512;
    add_piece(&path, sector, &[], size(PIECE), PieceData::Zeros).unwrap();
    assert_eq!(written(&path, sector.bytes()), 0, "a piece of zeros");
    // Its space is taken all the same.
    assert!(path.metadata().unwrap().blocks() * 512 >= sector.bytes());
    let raw = patchy();
    let second = add_piece(&path, sector, &[size(PIECE)], size(PIECE), PieceData::Stream(&mut &raw[..]));
    assert_eq!(second.unwrap().cid.commitment(), commit_slowly(&raw));
    std::fs::remove_file(&path).unwrap();
    add_piece(&path, sector, &[], size(PIECE), PieceData::Stream(&mut &raw[..])).unwrap();
    // Of 16 MiB seven are zeros, and three batches of 2 MiB hold nothing else.
    let some = written(&path, sector.bytes());
    assert!(some > 0 && some <= 10 << 20, "{some} bytes were written");
}

#[test]
fn zeros_replace_what_an_interrupted_attempt_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sector");
    let raw = patchy();
    let mut noise: Vec<u8> = raw.iter().map(|byte| !byte).collect();
    add_piece(&path, SECTOR, &[], size(PIECE), PieceData::Stream(&mut &noise[..])).unwrap();
    let info = add_piece(&path, SECTOR, &[], size(PIECE), PieceData::Stream(&mut &raw[..])).unwrap();
    assert_eq!(info.cid.commitment(), commit_slowly(&raw));
    noise.clear();
    PieceReader::open(&path, SECTOR, 0, PIECE).unwrap().read_to_end(&mut noise).unwrap();
    assert!(noise == raw);
}

#[test]
fn the_padded_form_goes_to_any_writer() {
    let raw = patchy();
    let mut expected = vec![0; raw.len() / 127 * 128];
    fr32::pad(&raw, &mut expected).unwrap();
    let mut padded = Vec::new();
    let info = pad_piece(size(PIECE), PieceData::Stream(&mut &raw[..]), &mut padded).unwrap();
    assert!(padded == expected);
    assert_eq!(info, data_cid(size(PIECE), PieceData::Stream(&mut &raw[..])).unwrap());
    padded.clear();
    pad_piece(size(508), PieceData::Zeros, &mut padded).unwrap();
    assert_eq!(padded, [0; 512]);
    let short = pad_piece(size(PIECE), PieceData::Stream(&mut &raw[1..]), &mut io::sink());
    assert!(matches!(short, Err(PieceError::SourceShort { held, .. }) if held == PIECE - 1));
    let long = pad_piece(size(PIECE / 2), PieceData::Stream(&mut &raw[..]), &mut io::sink());
    assert!(matches!(long, Err(PieceError::SourceLong { .. })));
}

#[test]
fn a_file_that_is_too_short_or_too_long_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing but a hole, and a byte less than the piece; then a byte more.
    for (len, fits) in [(PIECE - 1, false), (PIECE, true), (PIECE + 1, false)] {
        let mut file = tempfile::tempfile_in(directory.path()).unwrap();
        file.set_len(len + 5).unwrap();
        file.seek(SeekFrom::Start(5)).unwrap();
        let padded = pad_piece(size(PIECE), PieceData::File(&file), &mut io::sink());
        assert_eq!(padded.is_ok(), fits, "{len} bytes");
    }
}

#[test]
fn a_pipe_is_read_as_a_stream() {
    let raw = patchy();
    let (reading, mut writing) = io::pipe().unwrap();
    let reading = File::from(std::os::fd::OwnedFd::from(reading));
    let info = std::thread::scope(|scope| {
        scope.spawn(|| {
            writing.write_all(&raw).unwrap();
            drop(writing);
        });
        data_cid(size(PIECE), PieceData::File(&reading))
    });
    assert_eq!(info.unwrap().cid.commitment(), commit_slowly(&raw));
}

/// Takes some bytes, then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
            None => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_target_that_fails_ends_the_piece_with_its_own_error() {
    let raw = patchy();
    for room in [0, 3 << 20] {
        let error = pad_piece(size(PIECE), PieceData::Stream(&mut &raw[..]), &mut Full(room)).unwrap_err();
        assert!(
            matches!(&error, PieceError::Target(why) if why.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
    }
}
