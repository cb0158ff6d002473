//! Scrubbing: the commitments of whole files are those that sealing gave; one changed byte gives others.

use std::fs;

use sealtasks::{FileType, SectorSize};

mod world;

use world::{Content, World, noise, sector};

#[test]
fn whole_files_give_the_commitments_of_the_record_and_a_changed_byte_others() {
    let world = World::new(sector(1000, 70));
    let sealed = world.seal(&[Content::Bytes(noise(1016, 1)), Content::Bytes(noise(1016, 2))]);
    let size = SectorSize::KiB2;
    let (unsealed, replica) = (world.path(FileType::Unsealed), world.path(FileType::Sealed));
    let cache = world.path(FileType::Cache);
    let before: Vec<_> =
        fs::read_dir(&cache).expect("the cache").flatten().map(|it| it.file_name()).collect();
    let comm_r = || {
        let work = tempfile::tempdir().expect("a directory");
        proofs::scrub::comm_r(world.sector.proof, &replica, &cache, work.path())
    };
    assert_eq!(proofs::scrub::comm_d(&unsealed, size).expect("CommD"), sealed.unsealed);
    assert_eq!(comm_r().expect("CommR"), sealed.sealed);
    let after: Vec<_> = fs::read_dir(&cache).expect("the cache").flatten().map(|it| it.file_name()).collect();
    assert_eq!(before, after, "nothing is written into the sector");

    for (path, at) in [(&unsealed, 100), (&replica, 2000)] {
        let mut bytes = fs::read(path).expect("the file");
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("written");
    }
    assert_ne!(proofs::scrub::comm_d(&unsealed, size).expect("CommD"), sealed.unsealed);
    assert_ne!(comm_r().expect("CommR"), sealed.sealed);

    fs::write(&replica, [0; 100]).expect("cut");
    let error = comm_r().expect_err("too short").to_string();
    assert!(error.contains("100 bytes instead of 2048"), "{error}");
    fs::remove_file(&unsealed).expect("gone");
    proofs::scrub::comm_d(&unsealed, size).expect_err("it is not there");
}
