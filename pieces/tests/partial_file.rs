//! Partial unsealed files: their bytes, what is refused, and that freed space is free.
//!
//! Lotus has no test of its own for them. What its partialfile does, right or wrong, and what stands for it here; all pass:
//!
//! | Lotus | here |
//! |---|---|
//! | creates with an empty trailer, marks, frees: the trailer's bytes | the same bytes: `the_trailer_is_what_lotus_writes` |
//! | a file of just the sector's size counts as full | the same: `a_file_without_a_trailer_is_full` |
//! | smaller files, and trailers whose length does not fit, are errors | the same: `damaged_files_are_refused_and_left_alone` |
//! | a trailer above 1 MiB is warned of | refused: the same test |
//! | a bit beyond the sector's size is an error | the same: the same test |
//! | a reader reads what is not allocated, with a warning | refused: `bytes_that_are_not_unsealed_are_not_read` |
//! | a writer overwrites what is allocated, with a warning | refused: `a_writer_keeps_to_its_range_and_off_data` |
//! | a second change by one handle loses the first | both stay, of two handles too: `two_handles_see_each_others_changes` |
//! | freeing punches no hole, since the mode is refused | the space is free: `freed_space_is_free` |
//! | whether a range is allocated is asked in unpadded bytes | the same: `a_writer_keeps_to_its_range_and_off_data` |

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pieces::{PartialFile, PartialFileError, PieceReader, fr32};
use proptest::prelude::*;
use sealtasks::{SectorSize, UnpaddedOffset};
use tempfile::TempDir;

const KIB2: SectorSize = SectorSize::KiB2;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s-t01000-1");
    (directory, path)
}

fn trailer(path: &Path, sector: SectorSize) -> Vec<u8> {
    fs::read(path).unwrap().split_off(sector.bytes() as usize)
}

fn allocated(file: &PartialFile) -> Vec<(u64, u64)> {
    file.allocated().iter().map(|run| (run.start, run.end)).collect()
}

/// A 2 KiB file with this behind its data.
fn with_trailer(path: &Path, trailer: &[u8]) {
    let mut bytes = vec![0; 2048];
    bytes.extend_from_slice(trailer);
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_trailer_is_what_lotus_writes() {
    let (_directory, path) = place();
    let mut file = PartialFile::create(&path, KIB2).unwrap();
    assert_eq!(trailer(&path, KIB2), [0, 0, 0, 0]);
    file.mark_allocated(0, 1024).unwrap();
    assert_eq!(trailer(&path, KIB2), [0x04, 0x10, 0x01, 0x03, 0, 0, 0]);
    file.mark_allocated(1024, 1024).unwrap();
    assert_eq!(trailer(&path, KIB2), [0x04, 0x10, 0x02, 0x03, 0, 0, 0]);
    assert_eq!(allocated(&PartialFile::open(&path, KIB2).unwrap()), [(0, 2048)]);
    file.free(0..2048).unwrap();
    assert_eq!(trailer(&path, KIB2), [0, 0, 0, 0], "a shorter trailer leaves nothing of the longer one");
}

#[test]
fn a_file_without_a_trailer_is_full() {
    let (_directory, path) = place();
    fs::write(&path, [7; 2048]).unwrap();
    let mut file = PartialFile::open(&path, KIB2).unwrap();
    assert_eq!(allocated(&file), [(0, 2048)]);
    file.mark_allocated(0, 128).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 2048, "nothing changed, so nothing is written");
    file.free(1024..2048).unwrap();
    assert_eq!(allocated(&PartialFile::open(&path, KIB2).unwrap()), [(0, 1024)]);
}

#[test]
fn damaged_files_are_refused_and_left_alone() {
    type Check = fn(&PartialFileError) -> bool;
    let (_directory, path) = place();
    let cases: [(&[u8], Check); 7] = [
        (&[0], |e| matches!(e, PartialFileError::TrailerCut { bytes: 1, .. })),
        (&[0, 0, 0], |e| matches!(e, PartialFileError::TrailerCut { bytes: 3, .. })),
        (&[4, 0x10, 2, 2, 0, 0, 0], |e| {
            matches!(e, PartialFileError::TrailerLength { stated: 2, found: 3, .. })
        }),
        (&[0xff; 4], |e| matches!(e, PartialFileError::TrailerLength { stated: u32::MAX, found: 0, .. })),
        // Marks 4096 bytes of 2048.
        (&[4, 0x10, 4, 3, 0, 0, 0], |e| matches!(e, PartialFileError::Trailer { .. })),
        // A new trailer of the same start within the length of a longer, older one: a change that was cut off.
        (&[0, 0, 0, 0, 3, 0, 0, 0], |e| matches!(e, PartialFileError::TrailerLength { .. })),
        (&[4, 0x10, 1, 0, 0, 0, 0], |e| matches!(e, PartialFileError::TrailerLength { .. })),
    ];
    for (bytes, expected) in cases {
        with_trailer(&path, bytes);
        let error = PartialFile::open(&path, KIB2).unwrap_err();
        assert!(expected(&error), "{bytes:?}: {error}");
        assert_eq!(trailer(&path, KIB2), bytes);
    }
    fs::write(&path, [0; 2047]).unwrap();
    assert!(matches!(PartialFile::open(&path, KIB2), Err(PartialFileError::TooSmall { bytes: 2047, .. })));
    let long = File::create(&path).unwrap();
    long.set_len(2048 + (1 << 20) + 5).unwrap();
    assert!(matches!(PartialFile::open(&path, KIB2), Err(PartialFileError::TrailerTooLong { .. })));
    let directory = path.parent().unwrap();
    assert!(PartialFile::open_read_only(directory, SectorSize::KiB2).is_err());
}

#[test]
fn creating_never_touches_what_is_there() {
    let (directory, path) = place();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(PartialFile::create(&path, KIB2), Err(PartialFileError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let nowhere = directory.path().join("missing/s-t01000-1");
    assert!(matches!(PartialFile::create(&nowhere, KIB2), Err(PartialFileError::Io { .. })));
}

/// A directory on a small tmpfs: one that is mounted for it, else the usual one. `None` where there is neither, which is said.
fn on_tmpfs() -> Option<(TempDir, Option<Mounted>)> {
    let directory = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(directory.path());
    if mount.output().is_ok_and(|output| output.status.success()) {
        let mounted = Mounted(directory.path().to_owned());
        return Some((directory, Some(mounted)));
    }
    assert!(std::env::var_os("SEALYARD_TESTS_MOUNT").is_none(), "a tmpfs cannot be mounted, as is demanded");
    let small = nix::sys::statvfs::statvfs("/dev/shm").is_ok_and(|stat| {
        // 0 is a tmpfs without a limit, which would try.
        (1..SectorSize::GiB64.bytes()).contains(&(stat.blocks() * stat.fragment_size()))
    });
    let directory = small.then(|| tempfile::tempdir_in("/dev/shm").ok()).flatten();
    if directory.is_none() {
        #[expect(clippy::print_stderr, reason = "a test that leaves something out says so")]
        {
            eprintln!("LEFT OUT: a full disk; there is no small tmpfs, and this user may not mount one");
        }
    }
    Some((directory?, None))
}

/// Unmounted when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// tmpfs refuses at once what is larger than the whole of it, without touching memory.
#[test]
fn a_full_disk_is_said_and_leaves_no_file() {
    let Some((directory, _mounted)) = on_tmpfs() else { return };
    let path = directory.path().join("s-t01000-1");
    let error = PartialFile::create(&path, SectorSize::GiB64).unwrap_err();
    assert!(matches!(error, PartialFileError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("no space left to reserve space in"), "{error}");
    assert!(!path.exists());
}

#[test]
fn two_handles_see_each_others_changes() {
    let (_directory, path) = place();
    let mut one = PartialFile::create(&path, KIB2).unwrap();
    let mut other = PartialFile::open(&path, KIB2).unwrap();
    one.mark_allocated(0, 128).unwrap();
    other.mark_allocated(256, 128).unwrap();
    one.free(0..128).unwrap();
    assert_eq!(allocated(&PartialFile::open(&path, KIB2).unwrap()), [(256, 384)]);
}

#[test]
fn freed_space_is_free() {
    let (_directory, path) = place();
    let sector = SectorSize::MiB8;
    let mut file = PartialFile::create(&path, sector).unwrap();
    file.writer(0, sector.bytes()).unwrap().write_all(&vec![0xab; sector.bytes() as usize]).unwrap();
    file.mark_allocated(0, sector.bytes()).unwrap();
    let blocks = || fs::metadata(&path).unwrap().blocks() * 512;
    let full = blocks();
    assert!(full >= sector.bytes());
    // Two ranges that meet inside a disk block: the block goes with the second.
    let half = sector.bytes() / 2 + 128;
    file.free(0..half).unwrap();
    file.free(half..sector.bytes()).unwrap();
    assert!(blocks() <= full - sector.bytes(), "{} bytes of {full} are still in use", blocks());
    assert!(file.allocated().is_empty());
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(bytes.len() as u64, sector.bytes() + 4);
}

#[test]
fn ranges_outside_the_sector_are_refused() {
    let (_directory, path) = place();
    let mut file = PartialFile::create(&path, KIB2).unwrap();
    for (offset, len) in [(0, 2049), (2048, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let outside = |result: Result<(), PartialFileError>| {
            assert!(matches!(result, Err(PartialFileError::OutsideSector { .. })), "{offset} {len}");
        };
        outside(file.writer(offset, len).map(drop));
        outside(file.mark_allocated(offset, len));
        outside(
            file.free(offset..offset.saturating_add(len)).and_then(|()| file.mark_allocated(offset, len)),
        );
    }
    assert_eq!(trailer(&path, KIB2), [0; 4]);
}

#[test]
fn a_writer_keeps_to_its_range_and_off_data() {
    let (_directory, path) = place();
    let mut file = PartialFile::create(&path, KIB2).unwrap();
    let mut writer = file.writer(128, 128).unwrap();
    writer.write_all(&[1; 128]).unwrap();
    assert_eq!(writer.remaining(), 0);
    assert!(writer.write_all(&[1]).is_err());
    assert!(!file.has_allocated(UnpaddedOffset::try_from(127).unwrap(), 127), "written is not allocated");
    file.mark_allocated(128, 128).unwrap();
    assert!(file.has_allocated(UnpaddedOffset::try_from(127).unwrap(), 127));
    assert!(!file.has_allocated(UnpaddedOffset::try_from(127).unwrap(), 128));
    assert!(!file.has_allocated(UnpaddedOffset::try_from(127).unwrap(), u64::MAX));
    assert!(matches!(file.writer(0, 256), Err(PartialFileError::Allocated { start: 128, end: 256, .. })));
    assert!(file.writer(256, 128).is_ok());
}

#[test]
fn bytes_that_are_not_unsealed_are_not_read() {
    let (_directory, path) = place();
    let mut file = PartialFile::create(&path, KIB2).unwrap();
    file.mark_allocated(0, 1024).unwrap();
    assert!(PieceReader::open(&path, KIB2, 0, 1016).is_ok());
    let error = PieceReader::open(&path, KIB2, 1000, 17).unwrap_err();
    assert!(matches!(error, PartialFileError::NotAllocated { start: 896, end: 1152, .. }), "{error}");
    let error = PieceReader::open(&path, KIB2, 2000, 33).unwrap_err();
    assert!(matches!(error, PartialFileError::RawOutsideSector { .. }), "{error}");
}

/// What to do with a reader: read so many bytes, or seek from start, end or here.
fn moves() -> impl Strategy<Value = Vec<(u8, i64)>> {
    prop::collection::vec((0u8..4, -300_000i64..300_000), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_reader_reads_like_the_bytes_themselves(offset in 0u64..300_000, len in 0u64..500_000, moves in moves()) {
        let (_directory, path) = place();
        let sector = SectorSize::MiB8;
        let raw: Vec<u8> = (0..127u32 << 13).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let mut padded = vec![0; 128 << 13];
        fr32::pad(&raw, &mut padded).unwrap();
        let mut file = PartialFile::create(&path, sector).unwrap();
        file.writer(0, padded.len() as u64).unwrap().write_all(&padded).unwrap();
        file.mark_allocated(0, padded.len() as u64).unwrap();

        let mut plain = std::io::Cursor::new(&raw[offset as usize..(offset + len) as usize]);
        let mut reader = PieceReader::open(&path, sector, offset, len).unwrap();
        for (what, by) in moves {
            let to = match what {
                0 => SeekFrom::Start(by.unsigned_abs()),
                1 => SeekFrom::End(by),
                2 => SeekFrom::Current(by),
                _ => {
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    (&mut plain).take(by.unsigned_abs()).read_to_end(&mut a).unwrap();
                    (&mut reader).take(by.unsigned_abs()).read_to_end(&mut b).unwrap();
                    prop_assert!(a == b, "{} bytes wanted, {} and {} read", by, a.len(), b.len());
                    continue;
                }
            };
            prop_assert_eq!(plain.seek(to).ok(), reader.seek(to).ok());
        }
    }
}
