//! AddPiece from end to end: what is written, what is given back, and what an error leaves behind.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pieces::commitment::{combine, zero_commitment};
use pieces::{PartialFile, PieceData, PieceError, PieceReader, add_piece, data_cid, fr32};
use sealtasks::{PieceInfo, SectorSize, UnpaddedPieceSize};
use tempfile::TempDir;

const KIB2: SectorSize = SectorSize::KiB2;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s-t01000-1");
    (directory, path)
}

fn size(bytes: u64) -> UnpaddedPieceSize {
    UnpaddedPieceSize::try_from(bytes).unwrap()
}

fn bytes(len: u64, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| ((i ^ salt).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn add(path: &Path, existing: &[u64], len: u64, raw: &[u8]) -> Result<PieceInfo, PieceError> {
    let existing: Vec<_> = existing.iter().map(|bytes| size(*bytes)).collect();
    add_piece(path, KIB2, &existing, size(len), PieceData::Stream(&mut &raw[..]))
}

fn read(path: &Path, sector: SectorSize, offset: u64, len: u64) -> Vec<u8> {
    let mut raw = Vec::new();
    PieceReader::open(path, sector, offset, len).unwrap().read_to_end(&mut raw).unwrap();
    raw
}

fn allocated(path: &Path) -> u64 {
    PartialFile::open(path, KIB2).unwrap().allocated().count()
}

/// Delivers some bytes, then fails.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::other("the line went dead")) } else { self.0.read(out) }
    }
}

#[test]
fn pieces_fill_a_sector_one_behind_the_other() {
    let (_directory, path) = place();
    let (first, second) = (bytes(508, 1), bytes(508, 2));
    let infos = [
        add(&path, &[], 508, &first).unwrap(),
        add(&path, &[508], 508, &second).unwrap(),
        add_piece(&path, KIB2, &[size(508), size(508)], size(1016), PieceData::Zeros).unwrap(),
    ];
    assert_eq!(infos[0], data_cid(size(508), PieceData::Stream(&mut &first[..])).unwrap());
    assert_eq!(infos[1], data_cid(size(508), PieceData::Stream(&mut &second[..])).unwrap());
    assert_eq!(infos[2].cid.commitment(), zero_commitment(infos[2].size));
    let raw = [first, second, vec![0; 1016]].concat();
    let mut padded = vec![0; 2048];
    fr32::pad(&raw, &mut padded).unwrap();
    padded.extend([4, 0x10, 2, 3, 0, 0, 0]);
    assert!(fs::read(&path).unwrap() == padded, "data and trailer, byte for byte");
    assert_eq!(read(&path, KIB2, 0, 2032), raw);
    let whole = data_cid(size(2032), PieceData::Stream(&mut &raw[..])).unwrap();
    assert_eq!(combine(&infos, KIB2).unwrap(), whole.cid.commitment());
}

#[test]
fn a_long_piece_behind_another_comes_back_whole() {
    let (_directory, path) = place();
    let sector = SectorSize::MiB512;
    // Two and more batches, of different content.
    let raw = bytes(127 << 17, 3);
    add_piece(&path, sector, &[], size(127 << 17), PieceData::Zeros).unwrap();
    let info =
        add_piece(&path, sector, &[size(127 << 17)], size(127 << 17), PieceData::Stream(&mut &raw[..]))
            .unwrap();
    assert_eq!(info, data_cid(size(127 << 17), PieceData::Stream(&mut &raw[..])).unwrap());
    assert!(read(&path, sector, 127 << 17, 127 << 17) == raw);
    assert!(read(&path, sector, 0, 127 << 17).iter().all(|byte| *byte == 0));
}

#[test]
fn a_wrong_sized_first_piece_leaves_no_file() {
    let (_directory, path) = place();
    let error = add(&path, &[], 1016, &bytes(1000, 1)).unwrap_err();
    assert!(matches!(error, PieceError::SourceShort { size: 1016, held: 1000 }), "{error}");
    assert_eq!(error.to_string(), "wrong-sized piece: the source holds 1000 bytes; the piece has 1016");
    assert!(!path.exists());
    let error = add(&path, &[], 1016, &bytes(1017, 1)).unwrap_err();
    assert!(matches!(error, PieceError::SourceLong { size: 1016 }), "{error}");
    assert!(!path.exists());
    let error =
        add_piece(&path, KIB2, &[], size(1016), PieceData::Stream(&mut Breaks(&[1; 500]))).unwrap_err();
    assert!(matches!(error, PieceError::Source(_)), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_wrong_sized_later_piece_leaves_the_file_as_it_was() {
    let (_directory, path) = place();
    add(&path, &[], 1016, &bytes(1016, 1)).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(add(&path, &[1016], 1016, &bytes(900, 2)).is_err());
    assert!(add(&path, &[1016], 1016, &bytes(2000, 2)).is_err());
    assert!(
        add_piece(&path, KIB2, &[size(1016)], size(1016), PieceData::Stream(&mut Breaks(&[1; 9]))).is_err()
    );
    assert!(fs::read(&path).unwrap() == before);
    add(&path, &[1016], 1016, &bytes(1016, 2)).unwrap();
    assert_eq!(allocated(&path), 2048);
}

#[test]
fn a_piece_lies_at_a_multiple_of_its_size() {
    let (_directory, path) = place();
    add(&path, &[], 127, &bytes(127, 1)).unwrap();
    let before = fs::read(&path).unwrap();
    let error = add(&path, &[127], 508, &bytes(508, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "piece 1 of 508 bytes cannot lie at padded offset 128, which is no multiple of 512; \
         the largest piece that fits there has 127 bytes"
    );
    // The pieces named as existing must make sense themselves.
    assert!(matches!(add(&path, &[127, 254], 127, &[]), Err(PieceError::Misaligned { index: 1, .. })));
    assert!(matches!(add(&path, &[1016, 1016], 127, &[]), Err(PieceError::NoRoom { index: 2, free: 0, .. })));
    assert!(matches!(
        add(&path, &[127], 4064, &[]),
        Err(PieceError::NoRoom { free: 1920, padded: 4096, .. })
    ));
    assert!(matches!(add(&path, &[127], 127 << 56, &[]), Err(PieceError::NoRoom { .. })));
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn pieces_said_to_exist_must_be_there() {
    let (_directory, path) = place();
    assert!(matches!(add(&path, &[127], 127, &[0; 127]), Err(PieceError::File(_))), "no file at all");
    assert!(!path.exists());
    add(&path, &[], 127, &bytes(127, 1)).unwrap();
    let error = add(&path, &[127, 127], 254, &[0; 254]).unwrap_err();
    assert!(matches!(error, PieceError::ExistingMissing { bytes: 256, .. }), "{error}");
    assert_eq!(allocated(&path), 128);
}

#[test]
fn a_repeated_attempt_replaces_its_own_piece_only() {
    let (_directory, path) = place();
    add(&path, &[], 1016, &bytes(1016, 1)).unwrap();
    add(&path, &[1016], 508, &bytes(508, 2)).unwrap();
    // The answer was lost, and the call comes again, with other data than what lies there.
    let again = add(&path, &[1016], 508, &bytes(508, 3)).unwrap();
    assert_eq!(again, data_cid(size(508), PieceData::Stream(&mut &bytes(508, 3)[..])).unwrap());
    assert_eq!(read(&path, KIB2, 1016, 508), bytes(508, 3));
    // As zeros: what lay there must not shine through.
    add_piece(&path, KIB2, &[size(1016)], size(508), PieceData::Zeros).unwrap();
    assert_eq!(read(&path, KIB2, 1016, 508), [0; 508]);
    let before = fs::read(&path).unwrap();
    let error = add(&path, &[], 1016, &bytes(1016, 9)).unwrap_err();
    assert!(matches!(error, PieceError::Occupied { start: 0, end: 1536, .. }), "{error}");
    assert!(matches!(add(&path, &[1016], 127, &[0; 127]), Err(PieceError::Occupied { .. })));
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn an_interrupted_attempt_is_no_obstacle() {
    let (_directory, path) = place();
    // Killed while the file was being made.
    fs::write(&path, []).unwrap();
    add(&path, &[], 1016, &bytes(1016, 1)).unwrap();
    // Killed while the second piece was being written: bytes that nothing marks.
    let mut dirty = fs::read(&path).unwrap();
    dirty[1024..1500].fill(0xee);
    fs::write(&path, dirty).unwrap();
    add_piece(&path, KIB2, &[size(1016)], size(1016), PieceData::Zeros).unwrap();
    assert_eq!(read(&path, KIB2, 1016, 1016), [0; 1016]);
    // A file cut short by something else is nobody's leftover.
    fs::write(&path, [1; 100]).unwrap();
    assert!(add(&path, &[], 1016, &bytes(1016, 1)).is_err());
    assert_eq!(fs::read(&path).unwrap(), [1; 100]);
}

#[test]
fn a_zero_piece_is_not_written() {
    let (_directory, path) = place();
    let sector = SectorSize::MiB8;
    let whole = UnpaddedPieceSize::whole_sector(sector);
    let info = add_piece(&path, sector, &[], whole, PieceData::Zeros).unwrap();
    assert_eq!(info, data_cid(whole, PieceData::Stream(&mut io::empty())).unwrap());
    let file = fs::File::open(&path).unwrap();
    let first_written = nix::unistd::lseek(&file, 0, nix::unistd::Whence::SeekData).unwrap();
    assert_eq!(first_written as u64, sector.bytes(), "only the trailer holds data");
    assert!(read(&path, sector, 0, whole.get()).iter().all(|byte| *byte == 0));
}

#[test]
fn data_cid_extends_with_zeros_and_refuses_more() {
    let raw = bytes(300, 1);
    let mut longer = raw.clone();
    longer.resize(508, 0);
    let of = |len, mut raw: &[u8]| data_cid(size(len), PieceData::Stream(&mut raw));
    assert_eq!(of(508, &raw).unwrap(), of(508, &longer).unwrap());
    assert!(matches!(of(254, &raw), Err(PieceError::SourceLong { size: 254 })));
    assert_eq!(of(127, &[]).unwrap().cid.commitment(), zero_commitment(size(127).padded()));
    assert_eq!(data_cid(size(127), PieceData::Zeros).unwrap(), of(127, &[]).unwrap());
}
