//! What is thought of a sector, from what came of each of its copies.

use sealtasks::SectorId;

use super::*;

fn copy_of(path: &str, outcome: CopyOutcome) -> ProvenCopy {
    let path: StorageId = path.parse().expect("an id");
    ProvenCopy { sealed: path.clone(), cache: path, url: "http://host/remote".to_owned(), outcome }
}

fn judge(outcomes: &[CopyOutcome]) -> ProvingView {
    let view = ProvingView {
        sector: SectorId::new(1000, 1),
        state: ProvingState::Unknown,
        detail: NOBODY.to_owned(),
        paths: Vec::new(),
        copies: Vec::new(),
    };
    let copies = outcomes.iter().enumerate().map(|(at, outcome)| copy_of(&format!("p{at}"), outcome.clone()));
    judged(view, copies.collect())
}

/// Every set of outcomes in every order: only files that are at fault make a sector bad, and only a proof makes it good.
#[test]
fn a_sector_is_bad_by_its_files_alone_and_good_by_a_proof_alone() {
    let told = [
        (CopyOutcome::Proven, ProvingState::Good),
        (CopyOutcome::Faulty("faulty".to_owned()), ProvingState::Bad),
        (CopyOutcome::Away("away".to_owned()), ProvingState::Away),
        (CopyOutcome::Untold("untold".to_owned()), ProvingState::Unknown),
    ];
    // The nth digit to the base of five: nothing, or one of the four.
    for combination in 0..5_usize.pow(3) {
        let digits = [combination % 5, combination / 5 % 5, combination / 25];
        let picked: Vec<_> = digits.into_iter().filter_map(|digit| told.get(digit)).collect();
        let outcomes: Vec<CopyOutcome> = picked.iter().map(|(outcome, _)| outcome.clone()).collect();
        let view = judge(&outcomes);
        let has = |state| picked.iter().any(|(_, found)| *found == state);
        let (expected, detail) = match () {
            () if has(ProvingState::Bad) => (ProvingState::Bad, "faulty"),
            () if has(ProvingState::Good) => (ProvingState::Good, ""),
            () if has(ProvingState::Unknown) => (ProvingState::Unknown, "untold"),
            () if has(ProvingState::Away) => (ProvingState::Away, "away"),
            () => (ProvingState::Unknown, NOBODY),
        };
        assert_eq!(view.state, expected, "{outcomes:?}");
        assert!(view.detail.starts_with(detail), "{outcomes:?}: {}", view.detail);
        assert_eq!(view.detail.is_empty(), expected == ProvingState::Good, "{outcomes:?}");
        let states: Vec<ProvingState> = view.copies.iter().map(|copy| copy.state).collect();
        assert_eq!(states, picked.iter().map(|(_, state)| *state).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_that_no_path_has_is_named() {
    let held = |types| ("p".parse().expect("an id"), types);
    let (sealed, cache) = (FileTypes::SEALED, FileTypes::CACHE);
    assert_eq!(missing(&[held(sealed), held(cache)]), None);
    assert_eq!(missing(&[held(sealed | cache)]), None);
    assert_eq!(missing(&[held(cache)]).as_deref(), Some("no storage path has its sealed file"));
    assert_eq!(missing(&[held(sealed)]).as_deref(), Some("no storage path has its cache directory"));
    assert_eq!(missing(&[]).as_deref(), Some("no storage path has its sealed file"));
}

#[test]
fn what_was_bad_is_asked_for_again_until_it_is_answered() {
    let (failed, id) = (Failed::default(), SectorId::new(1000, 1));
    failed.note(&judge(&[CopyOutcome::Proven]), &[1]);
    failed.note(&judge(&[CopyOutcome::Away("away".to_owned())]), &[1]);
    assert!(failed.of(id).is_empty());
    failed.note(&judge(&[CopyOutcome::Faulty("faulty".to_owned())]), &[5]);
    // Other leaves of it may be good.
    failed.note(&judge(&[CopyOutcome::Proven]), &[1]);
    assert_eq!(failed.of(id), [5].into());
    failed.note(&judge(&[CopyOutcome::Proven]), &[1, 5]);
    assert!(failed.of(id).is_empty());
}
