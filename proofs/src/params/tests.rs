//! What is needed, where it is looked for, and which directory is chosen.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealtasks::SectorSize;

use super::generate::Target;
use super::*;

const SIZE: SectorSize = SectorSize::MiB512;

fn directories(root: &Path) -> Directories {
    Directories {
        shared: root.join("shared"),
        insecure: Some(root.join("insecure")),
        digests: Some(root.join("own").join("digests.json")),
    }
}

fn write(directory: &Path, name: &str, content: &[u8]) {
    fs::create_dir_all(directory).expect("a directory");
    fs::write(directory.join(name), content).expect("a file");
}

#[test]
fn every_size_needs_a_published_key_pair() {
    for size in SectorSize::ALL {
        let files = needed(size, Purpose::Prove);
        let extensions: Vec<_> = files.iter().filter_map(|file| file.name.rsplit('.').next()).collect();
        assert_eq!(extensions, ["params", "vk"], "{size}");
        assert!(files.iter().all(|file| file.digest.len() == DIGEST_DIGITS && file.cid.starts_with("Qm")));
        assert_eq!(needed(size, Purpose::Verify), files[1..]);
        // The library's own idea of the name.
        let proof = crate::to_library(sealtasks::RegisteredSealProof::for_new_sector(size));
        let path = proof.cache_params_path().expect("the library knows its names");
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(files[0].name.as_str()));
    }
    let two_kib = &needed(SectorSize::KiB2, Purpose::Prove)[0];
    assert_eq!(two_kib.digest, "434fb1338ecfaf0f59256f30dde4968f");
    assert_eq!(two_kib.cid, "QmWceMgnWYLopMuM4AoGMvGEau7tNe5UK83XFjH5V9B17h");
}

#[test]
fn directories_follow_the_environment() {
    let none = Directories::from_variables(|_| None);
    assert_eq!(none.shared, Path::new("/var/tmp/filecoin-proof-parameters"));
    assert_eq!(none.insecure, None);
    let set = Directories::from_variables(|name| {
        let value = match name {
            "HOME" => "/home/a",
            SHARED_VARIABLE => "/p",
            _ => return None,
        };
        Some(value.into())
    });
    assert_eq!(set.shared, Path::new("/p"));
    assert_eq!(set.insecure.as_deref(), Some(Path::new("/home/a/.cache/sealyard/insecure-parameters")));
    let moved = Directories::from_variables(|name| (name == INSECURE_VARIABLE).then(|| "/q".into()));
    assert_eq!(moved.insecure.as_deref(), Some(Path::new("/q")));
}

#[test]
fn status_tells_missing_incomplete_unchecked_and_wrong_apart() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let directories = directories(root.path());
    let shared = directories.shared.clone();
    let mut cache = directories.digest_cache();
    let files = needed(SIZE, Purpose::Prove);
    fn states(shared: &Path, check: Check<'_>) -> Vec<FileState> {
        status(shared, SIZE, check).into_iter().map(|file| file.state).collect()
    }
    assert_eq!(states(&shared, Check::Quick(&cache)), [FileState::Missing, FileState::Missing]);

    write(&shared, &format!("{}.part", files[0].name), b"begun");
    write(&shared, &files[1].name, b"not a key");
    assert_eq!(
        states(&shared, Check::Quick(&cache)),
        [FileState::Incomplete { bytes: 5 }, FileState::Unchecked { bytes: 9 }]
    );
    let wrong = digest_file(&shared.join(&files[1].name)).expect("readable");
    assert_eq!(
        states(&shared, Check::Digests(&mut cache))[1],
        FileState::WrongDigest { found: wrong.clone() }
    );

    // Remembered across processes, so that a quick look knows it too.
    cache.save();
    let reopened = directories.digest_cache();
    assert_eq!(states(&shared, Check::Quick(&reopened))[1], FileState::WrongDigest { found: wrong });
    // A file of another length is another file.
    write(&shared, &files[1].name, b"not a key either");
    assert_eq!(states(&shared, Check::Quick(&reopened))[1], FileState::Unchecked { bytes: 16 });
}

#[test]
fn known_digest_vector() {
    let root = tempfile::tempdir().expect("a temporary directory");
    write(root.path(), "abc", b"abc");
    // BLAKE2b-512 of "abc", RFC 7693 appendix A, first 32 digits.
    assert_eq!(digest_file(&root.path().join("abc")).expect("readable"), "ba80a53f981c4d0d6a2797b69f12f6e9");
}

#[test]
fn the_insecure_directory_is_chosen_only_when_complete_and_only_for_test_sizes() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let directories = directories(root.path());
    let first = needed(SIZE, Purpose::Prove).remove(0).name;
    let missing = Choice::Missing { shared: directories.shared.clone(), file: first };
    assert_eq!(directories.choose(SIZE), missing);

    let insecure = directories.insecure.clone().expect("set");
    for file in needed(SIZE, Purpose::Prove) {
        write(&insecure, &file.name, b"generated");
    }
    assert_eq!(directories.choose(SIZE), missing, "files without the marker may be half of a set");
    write(&insecure, ".complete-512MiB", b"");
    assert_eq!(directories.choose(SIZE), Choice::Insecure(insecure.clone()));
    let mut cache = directories.digest_cache();
    let origins = |status: Vec<FileStatus>| status.iter().map(|file| file.state.origin()).collect::<Vec<_>>();
    let generated = origins(status(&insecure, SIZE, Check::Digests(&mut cache)));
    assert_eq!(generated, [Some(Origin::Generated), Some(Origin::Generated)]);

    for file in needed(SectorSize::KiB2, Purpose::Prove) {
        write(&insecure, &file.name, b"with the wrong content");
    }
    assert_eq!(directories.choose(SectorSize::KiB2).directory(), None, "pinned digests are compared");
    assert_eq!(directories.choose(SectorSize::GiB32).directory(), None);
}

/// A run that any machine has room for: what it writes is made up, so nothing need be free.
fn target(root: &Path) -> Target {
    target_of(root, SIZE)
}

fn target_of(root: &Path, size: SectorSize) -> Target {
    let requirement = Requirement { memory: 0, disk: 0, ..requirement(size).expect("a test size") };
    Target { directory: root.join("insecure"), size, requirement }
}

fn produce_two(directory: &Path) -> Result<(), GenerateError> {
    for file in needed(SIZE, Purpose::Prove) {
        write(directory, &file.name, b"generated");
    }
    Ok(())
}

#[test]
fn a_failed_run_leaves_nothing_and_a_good_one_is_not_repeated() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (target, shared) = (target(root.path()), root.path().join("shared"));
    // What a run that was killed leaves.
    write(&target.directory.join(".generating-512MiB-old"), "half.params", b"half");
    let broken = target.fill(&shared, &|_| {}, &|directory| {
        write(directory, "half.params", b"half");
        Err(GenerateError::Library { message: "out of luck".into() })
    });
    assert!(matches!(broken, Err(GenerateError::Library { .. })));
    let left: Vec<_> = fs::read_dir(&target.directory)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(left, [".generate-512MiB.lock"]);

    let runs = Cell::new(0);
    let produce = |directory: &Path| {
        runs.set(runs.get() + 1);
        produce_two(directory)
    };
    assert_eq!(target.fill(&shared, &|_| {}, &produce).expect("generated").made.len(), 2);
    assert_eq!(target.fill(&shared, &|_| {}, &produce).expect("there already").made.len(), 0);
    assert_eq!(runs.get(), 1);
}

#[test]
fn a_second_process_waits_and_takes_the_result() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (target, shared) = (target(root.path()), root.path().join("shared"));
    let runs = AtomicUsize::new(0);
    let (waiting, second_waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (inside, first_is_inside) = std::sync::mpsc::channel();
        let (target, shared, runs) = (&target, &shared, &runs);
        let first = scope.spawn(move || {
            target.fill(shared, &|_| {}, &|directory| {
                runs.fetch_add(1, Ordering::SeqCst);
                inside.send(()).expect("the second listens");
                // Goes on only when the second has met the lock.
                second_waits.recv_timeout(std::time::Duration::from_secs(30)).expect("the second waits");
                produce_two(directory)
            })
        });
        first_is_inside.recv_timeout(std::time::Duration::from_secs(30)).expect("the first begins");
        let waiting = std::sync::Mutex::new(waiting);
        let progress = |event| {
            assert_eq!(event, GenerateProgress::Waiting);
            waiting.lock().expect("no panic").send(()).expect("the first listens");
        };
        let second = target.fill(shared, &progress, &|_| panic!("generated twice"));
        assert_eq!(second.expect("taken over").made.len(), 0);
        assert_eq!(first.join().expect("no panic").expect("generated").made.len(), 2);
    });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn insecure_parameters_never_go_into_the_shared_directory() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let target = target(root.path());
    let outcome = target.fill(&target.directory, &|_| {}, &|_| panic!("must not begin"));
    assert!(matches!(outcome, Err(GenerateError::SharedDirectory { .. })), "{outcome:?}");
}

#[test]
fn generated_bytes_that_differ_from_the_pin_are_not_kept() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let target = target_of(root.path(), SectorSize::KiB2);
    let outcome = target.fill(&root.path().join("shared"), &|_| {}, &|directory| {
        write(directory, &needed(SectorSize::KiB2, Purpose::Verify)[0].name, b"of a broken machine");
        Ok(())
    });
    match outcome {
        Err(GenerateError::Digest { expected, .. }) => {
            assert_eq!(expected, "7ed130c162338570b03830bedc86d95a")
        }
        other => panic!("{other:?}"),
    }
    assert!(!target.directory.join(".complete-2KiB").exists());
}

#[test]
fn a_machine_without_the_memory_or_the_disk_is_told_before_the_run_begins() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (mut target, shared) = (target(root.path()), root.path().join("shared"));
    target.requirement.disk = u64::MAX;
    let outcome = target.fill(&shared, &|_| {}, &|_| panic!("must not begin"));
    assert!(matches!(outcome, Err(GenerateError::Disk { needed: u64::MAX, .. })), "{outcome:?}");
    target.requirement.memory = u64::MAX;
    let outcome = target.fill(&shared, &|_| {}, &|_| panic!("must not begin"));
    assert!(matches!(outcome, Err(GenerateError::Memory { needed: u64::MAX, .. })), "{outcome:?}");
}

#[test]
fn production_sizes_are_never_generated() {
    assert!(matches!(
        generate(SectorSize::GiB32, &|_| {}),
        Err(GenerateError::Size { .. } | GenerateError::NoDirectory)
    ));
    assert!(SectorSize::ALL.iter().all(|size| requirement(*size).is_some() == size.is_test_size()));
}
