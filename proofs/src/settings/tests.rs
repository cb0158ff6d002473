//! Settings that are served, refused, and reported.

use super::*;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn check_in_empty_directory(pairs: &[(&str, &str)]) -> Result<(), SettingError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    check(&variables(pairs), directory.path())
}

#[test]
fn every_library_setting_is_known_with_its_default() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = in_force(&Variables::new(), directory.path()).expect("defaults are valid");
    let value = |name: &str| settings.iter().find(|s| s.name == name).and_then(|s| s.value.clone());
    assert_eq!(value("FIL_PROOFS_USE_MULTICORE_SDR").as_deref(), Some("false"));
    assert_eq!(value("FIL_PROOFS_SDR_PARENTS_CACHE_SIZE").as_deref(), Some("2048"));
    assert_eq!(value("FIL_PROOFS_PARAMETER_CACHE").as_deref(), Some("/var/tmp/filecoin-proof-parameters/"));
    assert_eq!(value("CUDA_VISIBLE_DEVICES"), None);
    assert!(settings.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn the_environment_beats_the_file_and_the_file_beats_the_default() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(SETTINGS_FILE);
    std::fs::write(&path, "rows_to_discard = 0\nverify_cache = true\n").expect("the file is written");
    let settings =
        in_force(&variables(&[("FIL_PROOFS_VERIFY_CACHE", "0")]), directory.path()).expect("valid");
    let found = |name: &str| settings.iter().find(|s| s.name == name).cloned().expect("known");
    assert_eq!(found("FIL_PROOFS_VERIFY_CACHE").origin, Origin::Environment);
    assert_eq!(found("FIL_PROOFS_ROWS_TO_DISCARD").origin, Origin::File(path));
    assert_eq!(found("FIL_PROOFS_ROWS_TO_DISCARD").value.as_deref(), Some("0"));
    assert_eq!(found("FIL_PROOFS_MULTICORE_SDR_PRODUCERS").origin, Origin::Default);
}

#[test]
fn a_setting_whose_feature_is_not_compiled_in_is_an_error() {
    let gpu = [
        ("FIL_PROOFS_USE_GPU_COLUMN_BUILDER", "1"),
        ("FIL_PROOFS_USE_GPU_TREE_BUILDER", "true"),
        ("BELLMAN_CUSTOM_GPU", "GeForce RTX 3090:10496"),
        ("RUST_GPU_TOOLS_CUSTOM_GPU", "GeForce RTX 3090:10496"),
    ];
    for pair in gpu {
        assert_eq!(check_in_empty_directory(&[pair]).is_ok(), HAS_GPU, "{pair:?}");
    }
    let multicore = check_in_empty_directory(&[("FIL_PROOFS_USE_MULTICORE_SDR", "1")]);
    assert_eq!(multicore.is_ok(), cfg!(feature = "multicore-sdr"));
    if let Err(error) = multicore {
        assert_eq!(
            error.to_string(),
            "FIL_PROOFS_USE_MULTICORE_SDR=1 needs the feature multicore-sdr, which this build lacks; unset it, or build \
             with `cargo build --release --features multicore-sdr`"
        );
    }
}

#[test]
fn a_switch_that_is_off_asks_for_nothing() {
    check_in_empty_directory(&[
        ("FIL_PROOFS_USE_MULTICORE_SDR", "0"),
        ("FIL_PROOFS_USE_GPU_TREE_BUILDER", "no"),
    ])
    .expect("off is always served");
    check_in_empty_directory(&[("BELLMAN_NO_GPU", "1"), ("CUDA_VISIBLE_DEVICES", "0,1")]).expect("harmless");
}

#[test]
fn the_file_is_held_to_the_same_rules() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(SETTINGS_FILE);
    std::fs::write(&path, "sdr_parents_cache_size = \"many\"\n").expect("the file is written");
    let error = check(&Variables::new(), directory.path()).expect_err("not a number");
    let expected =
        format!("FIL_PROOFS_SDR_PARENTS_CACHE_SIZE=\"many\" is no whole number (set in {})", path.display());
    assert_eq!(error.to_string(), expected);
    std::fs::write(&path, "sdr_parents_cache_size =").expect("the file is written");
    assert!(matches!(check(&Variables::new(), directory.path()), Err(SettingError::Toml { .. })));
}

#[test]
fn a_malformed_value_is_an_error_before_the_library_panics_over_it() {
    for pair in [
        ("FIL_PROOFS_VERIFY_CACHE", "maybe"),
        ("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "-1"),
        ("FIL_PROOFS_ROWS_TO_DISCARD", ""),
        ("FIL_PROOFS_GPU_FRAMEWORK", "vulkan"),
    ] {
        let outcome = check_in_empty_directory(&[pair]);
        assert!(matches!(outcome, Err(SettingError::Malformed { .. })), "{pair:?}: {outcome:?}");
    }
}

#[test]
fn unknown_variables_of_the_libraries_are_named() {
    let given =
        variables(&[("FIL_PROOFS_MAXIMIZE_CACHING", "1"), ("FIL_PROOFS_VERIFY_CACHE", "1"), ("HOME", "/")]);
    assert_eq!(ignored(&given), ["FIL_PROOFS_MAXIMIZE_CACHING"]);
}
