//! Copies are exact whatever the length, holes stay holes and are not read, and one wrong byte shows wherever it is.

use std::os::unix::fs::MetadataExt as _;

use super::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 251) as u8).collect()
}

#[test]
fn copies_of_every_length_are_exact() {
    let dir = tempfile::tempdir().expect("a directory");
    for length in [0, 1, 4095, 4096, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 4097] {
        let (from, to) = (dir.path().join(format!("a{length}")), dir.path().join(format!("b{length}")));
        std::fs::write(&from, pattern(length)).expect("written");
        let hash = copy(&from, &to).expect("copied");
        assert_eq!(std::fs::read(&to).expect("read"), pattern(length), "{length}");
        let (original, copied) = (on_disk(&from).expect("read").hash, on_disk(&to).expect("read").hash);
        assert_eq!(original, copied, "{length}");
        assert!(hash.is_none_or(|hash| hash == copied), "{length}");
        assert!(copy(&from, &to).is_err(), "what is there is not replaced");
    }
}

#[test]
fn a_part_written_later_leaves_the_others_as_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    let length = (2 * BUFFER + 100) as u64;
    let mut buffer = Lent::take();
    for offset in [(2 * BUFFER) as u64, 0, BUFFER as u64] {
        let sink = Sink::open(&path, length, true).expect("opened again");
        buffer.whole().fill(1 + (offset / BUFFER as u64) as u8);
        let count = usize::try_from(length - offset).expect("small").min(BUFFER);
        sink.write(&mut buffer, offset, count).expect("written");
        sink.finish().expect("durable");
    }
    let bytes = std::fs::read(&path).expect("read");
    assert_eq!(bytes.len() as u64, length);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == 1 + (at / BUFFER) as u8));
}

/// A file of 16 buffers with data in the third, over the border to the fourth, and in the last byte.
fn sparse(path: &Path) -> u64 {
    let length = 16 * BUFFER as u64;
    let file = File::create_new(path).expect("created");
    file.set_len(length).expect("extended");
    file.write_all_at(&[7; 4096], 2 * BUFFER as u64 + 4096).expect("written");
    file.write_all_at(&[8; 8192], 3 * BUFFER as u64 - 4096).expect("written");
    file.write_all_at(&[9], length - 1).expect("written");
    file.sync_all().expect("synced");
    length
}

#[test]
fn holes_are_neither_read_nor_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let length = sparse(&from);
    let original = on_disk(&from).expect("read");
    if original.bytes == length {
        return; // this file system knows no holes
    }
    assert_eq!(original.bytes, 3 * BUFFER as u64, "three buffers have data");
    let hash = copy(&from, &to).expect("copied");
    let copied = on_disk(&to).expect("read");
    assert_eq!((copied.hash, copied.bytes), (original.hash, original.bytes));
    assert!(hash.is_none_or(|hash| hash == original.hash));
    assert_eq!(std::fs::read(&to).expect("read"), std::fs::read(&from).expect("read"));
    let blocks = std::fs::metadata(&to).expect("there").blocks() * 512;
    assert!(blocks <= 4 * BUFFER as u64, "{blocks} bytes on disk");
}

#[test]
fn the_hash_depends_on_the_bytes_and_their_places_and_not_on_the_holes() {
    let dir = tempfile::tempdir().expect("a directory");
    let hash_of = |name: &str, make: &dyn Fn(&Path)| {
        let path = dir.path().join(name);
        make(&path);
        on_disk(&path).expect("read").hash
    };
    let holes = hash_of("holes", &|path| {
        sparse(path);
    });
    let dense = hash_of("dense", &|path| {
        let bytes = std::fs::read(dir.path().join("holes")).expect("read");
        std::fs::write(path, bytes).expect("written");
    });
    assert_eq!(holes, dense, "written zeros are as good as a hole");
    for (name, offset) in [("in a hole", 12 * BUFFER as u64), ("in data", 2 * BUFFER as u64 + 5000)] {
        let other = hash_of(name, &|path| {
            sparse(path);
            let file = OpenOptions::new().write(true).open(path).expect("opened");
            file.write_all_at(b"!", offset).expect("written");
            file.sync_all().expect("synced");
        });
        assert_ne!(holes, other, "{name}");
    }
    let moved = hash_of("moved", &|path| {
        let file = File::create_new(path).expect("created");
        file.set_len(16 * BUFFER as u64).expect("extended");
        file.write_all_at(&[7; 4096], 9 * BUFFER as u64).expect("written");
    });
    let here = hash_of("here", &|path| {
        let file = File::create_new(path).expect("created");
        file.set_len(16 * BUFFER as u64).expect("extended");
        file.write_all_at(&[7; 4096], 8 * BUFFER as u64).expect("written");
    });
    assert_ne!(moved, here, "the same bytes elsewhere");
}
