//! Every text form reads back as the value it was written from, and has only one spelling.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use sealtasks::*;

fn ids() -> impl Strategy<Value = SectorId> {
    (any::<u64>(), any::<u64>()).prop_map(|(miner, number)| SectorId::new(miner, number))
}

fn calls() -> impl Strategy<Value = CallId> {
    (ids(), any::<u128>()).prop_map(|(sector, id)| CallId { sector, id: uuid::Uuid::from_u128(id) })
}

/// Whatever is accepted is written back the same, so that no two texts mean one value.
fn one_spelling<T: FromStr + Display>(text: &str) -> Result<(), TestCaseError> {
    if let Ok(value) = text.parse::<T>() {
        prop_assert_eq!(value.to_string(), text);
    }
    Ok(())
}

fn returns<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(value: T) -> Result<(), TestCaseError> {
    let text = value.to_string();
    let read = text.parse::<T>();
    prop_assert_eq!(read.map_err(|error| TestCaseError::fail(format!("{text}: {error:?}")))?, value);
    Ok(())
}

proptest! {
    #[test]
    fn sectors_and_actors(sector in ids()) {
        returns(sector)?;
        returns(sector.miner)?;
        let other_network = format!("f0{}", sector.miner.get());
        prop_assert_eq!(other_network.parse::<ActorId>(), Ok(sector.miner));
    }

    #[test]
    fn calls_return(call in calls()) {
        returns(call)?;
    }

    #[test]
    fn attempts_return(task in any::<u64>(), attempt in 1u32..) {
        returns(AttemptId { task: TaskId::new(task), attempt })?;
    }

    #[test]
    fn storage_ids_return(id in "[A-Za-z0-9_-]{1,128}") {
        returns(id.parse::<StorageId>().unwrap())?;
    }

    #[test]
    fn sized_tasks_return(proof in 0i64..20, task in 0..TaskType::ALL.len()) {
        returns(SealTaskType { proof: proof.try_into().unwrap(), task: TaskType::ALL[task] })?;
    }

    #[test]
    fn file_type_sets_return(bits in 0i64..64) {
        let set = FileTypes::try_from(bits).unwrap();
        prop_assert_eq!(i64::from(set), bits);
        prop_assert_eq!(set.iter().collect::<FileTypes>(), set);
        prop_assert_eq!(set.iter().count(), set.len());
        prop_assert_eq!(serde_json::to_string(&set).unwrap(), bits.to_string());
    }

    #[test]
    fn cids_return(bytes in any::<[u8; 32]>()) {
        returns(UnsealedCid::new(Commitment::new(bytes)))?;
        returns(SealedCid::new(Commitment::new(bytes)))?;
        let text = Commitment::new(bytes).to_string();
        prop_assert_eq!(Commitment::try_from(text), Ok(Commitment::new(bytes)));
    }

    #[test]
    fn one_text_per_value(text in r"(s-t0|t0|f0)?[0-9]{0,3}[-.:+ ]?[0-9]{0,21}(seal/v0/commit/1)?") {
        one_spelling::<SectorId>(&text)?;
        one_spelling::<AttemptId>(&text)?;
        one_spelling::<SealTaskType>(&text)?;
        one_spelling::<CallId>(&format!("{text}-00000000-0000-0000-0000-00000000000a"))?;
    }

    #[test]
    fn no_text_breaks_a_parser(text in any::<String>()) {
        one_spelling::<SectorId>(&text)?;
        one_spelling::<CallId>(&text)?;
        one_spelling::<AttemptId>(&text)?;
        one_spelling::<StorageId>(&text)?;
        one_spelling::<SealTaskType>(&text)?;
        one_spelling::<FileType>(&text)?;
        one_spelling::<SectorSize>(&text)?;
        one_spelling::<UnsealedCid>(&text)?;
        one_spelling::<SealedCid>(&text)?;
    }

    #[test]
    fn piece_sizes_return(exponent in 0u32..=56) {
        let unpadded = UnpaddedPieceSize::try_from(127u64 << exponent).unwrap();
        prop_assert_eq!(unpadded.padded().get(), 128u64 << exponent);
        prop_assert_eq!(unpadded.padded().unpadded(), unpadded);
        prop_assert_eq!(PaddedPieceSize::try_from(unpadded.padded().get()), Ok(unpadded.padded()));
    }

    #[test]
    fn other_numbers_are_no_piece_sizes(bytes in any::<u64>()) {
        let is_unpadded = (0..=56).any(|n| 127u64 << n == bytes);
        let is_padded = (0..=56).any(|n| 128u64 << n == bytes);
        prop_assert_eq!(UnpaddedPieceSize::try_from(bytes).is_ok(), is_unpadded);
        prop_assert_eq!(PaddedPieceSize::try_from(bytes).is_ok(), is_padded);
        if let Ok(offset) = UnpaddedOffset::try_from(bytes) {
            prop_assert_eq!(offset.padded() % 128, 0);
            prop_assert_eq!(offset.padded() / 128 * 127, bytes);
        }
    }
}

#[test]
fn names_return() {
    for task in TaskType::ALL {
        assert_eq!(task.name().parse::<TaskType>(), Ok(*task));
        assert_eq!(TaskType::from_short(task.short()), Some(*task));
    }
    for kind in FileType::ALL {
        assert_eq!(kind.name().parse::<FileType>(), Ok(kind));
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
    }
    for size in SectorSize::ALL {
        assert_eq!(size.to_string().parse::<SectorSize>(), Ok(size));
        assert_eq!(SectorSize::from_bytes(size.bytes()), Some(size));
        assert_eq!(serde_json::to_string(&size).unwrap(), format!("\"{size}\""));
    }
}

#[test]
fn the_forms_are_lotus_s() {
    let sector = SectorId::new(1000, 1);
    let id = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    assert_eq!(sector.to_string(), "s-t01000-1");
    assert_eq!(CallId { sector, id: id.parse().unwrap() }.to_string(), format!("1000-1-{id}"));
    let sized = SealTaskType { proof: 5.try_into().unwrap(), task: TaskType::PreCommit1 };
    assert_eq!(sized.to_string(), "5:seal/v0/precommit/1");
    assert_eq!(WorkerId::CLOSED.to_string(), "00000000-0000-0000-0000-000000000000");
}

#[test]
fn foreign_sectors_are_refused() {
    for text in [
        "",
        "s-t01000",
        "s-t01000-",
        "s-t0-1",
        "s-t01000-1.tmp",
        "s-t01000-1-2",
        "s-t01000-01",
        "s-t00100-1",
        "s-t01000-+1",
        " s-t01000-1",
        "s-t01000-1\n",
        "s-f01000-1",
        "S-t01000-1",
        "s-t01000-18446744073709551616",
        "s-t01000-١",
    ] {
        assert!(text.parse::<SectorId>().is_err(), "{text:?} was taken for a sector");
    }
    for text in ["", "1000", "t0", "t1abc", "t01000 ", "t0-1", "f2xyz", "t0+1", "t001"] {
        assert!(text.parse::<ActorId>().is_err(), "{text:?} was taken for a miner");
    }
}

#[test]
fn foreign_ids_are_refused() {
    let id = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    for text in [
        String::new(),
        id.to_owned(),
        format!("1000-{id}"),
        format!("1000-1-{id}0"),
        format!("1000-1-{{{id}}}"),
        format!("1000-1-{}", id.to_uppercase()),
        format!("1000-1-{}", id.replace('-', "")),
        format!("+1-1-{id}"),
        format!("01-1-{id}"),
        format!("s-t01000-1-{id}"),
    ] {
        assert!(text.parse::<CallId>().is_err(), "{text:?} was taken for a call");
    }
    for text in ["", "1", "1.", ".1", "1.0", "1.2.3", "01.1", "1.+1", "1.4294967296", "-1.1"] {
        assert!(text.parse::<AttemptId>().is_err(), "{text:?} was taken for an attempt");
    }
    let long = "a".repeat(129);
    for text in ["", "a.b", "../x", "a/b", "a b", "ä", long.as_str()] {
        assert!(text.parse::<StorageId>().is_err(), "{text:?} was taken for a storage id");
    }
}

#[test]
fn foreign_names_and_numbers_are_refused() {
    for text in ["", "PC1", "seal/v0/precommit/3", "seal/v0/precommit/1 "] {
        assert!(text.parse::<TaskType>().is_err(), "{text:?} was taken for a task");
    }
    for text in [
        "",
        "seal/v0/commit/1",
        "20:seal/v0/commit/1",
        "-1:seal/v0/commit/1",
        "05:seal/v0/commit/1",
        "5:",
        "5:C1",
    ] {
        assert!(text.parse::<SealTaskType>().is_err(), "{text:?} was taken for a sized task");
    }
    for text in ["", "2K", "2048", "32gib", "1GiB", "32GiB "] {
        assert!(text.parse::<SectorSize>().is_err(), "{text:?} was taken for a sector size");
    }
    for text in ["", "Sealed", "updatecache", "snap"] {
        assert!(text.parse::<FileType>().is_err(), "{text:?} was taken for a file type");
    }
    for number in [-1, 64, 255, 256, i64::MAX, i64::MIN] {
        assert!(FileTypes::try_from(number).is_err(), "{number} was taken for file types");
    }
    for number in [-1, 20, 261, i64::MAX, i64::MIN] {
        assert!(RegisteredSealProof::try_from(number).is_err(), "{number} was taken for a proof");
    }
}
