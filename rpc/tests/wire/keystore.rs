//! The secret's file and the two files by which a running program is found.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rpc::keystore::{self, KeystoreError};
use rpc::{Permission, repo_files};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_secret_is_made_once_and_kept_to_its_owner() {
    let repo = tempfile::tempdir().unwrap();
    let (first, created) = keystore::load_or_create(repo.path()).unwrap();
    assert!(created);
    let file = repo.path().join("keystore/MF2XI2BNNJ3XILLQOJUXMYLUMU");
    assert_eq!((keystore::path(repo.path()), mode(&file)), (file.clone(), 0o600));
    assert_eq!(mode(&repo.path().join("keystore")), 0o700);
    assert_eq!(fs::read_dir(repo.path().join("keystore")).unwrap().count(), 1, "nothing else is left there");
    let (again, created) = keystore::load_or_create(repo.path()).unwrap();
    assert!(!created && again == first);
    assert!(keystore::create(repo.path(), &again).is_err(), "a secret is never replaced");
    assert!(keystore::load(repo.path()).unwrap() == Some(first));
}

#[test]
fn a_lotus_miner_s_secret_keeps_its_tokens_valid() {
    let repo = tempfile::tempdir().unwrap();
    fs::create_dir(repo.path().join("keystore")).unwrap();
    let file = keystore::path(repo.path());
    fs::write(
        &file,
        r#"{"Type":"jwt-hmac-secret","PrivateKey":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}"#,
    )
    .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = keystore::load(repo.path()).unwrap().unwrap();
    let ours = rpc::Secret::from_bytes(vec![7; 32]).unwrap();
    assert_eq!(secret.verify(&ours.mint(&[Permission::Sign]).unwrap()).unwrap(), [Permission::Sign]);
}

#[test]
fn a_secret_that_others_can_read_or_that_is_none_is_refused() {
    let repo = tempfile::tempdir().unwrap();
    keystore::load_or_create(repo.path()).unwrap();
    let file = keystore::path(repo.path());
    for exposed in [0o640, 0o604, 0o660, 0o601] {
        fs::set_permissions(&file, fs::Permissions::from_mode(exposed)).unwrap();
        let error = keystore::load_or_create(repo.path()).unwrap_err();
        assert!(matches!(error, KeystoreError::Exposed { mode, .. } if mode == exposed), "{error}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(keystore::load(repo.path()).is_ok(), "stricter is fine");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for (text, says) in [
        ("", "expected"),
        (r#"{"Type":"secp256k1","PrivateKey":"BwcH"}"#, "\"secp256k1\""),
        (r#"{"Type":"jwt-hmac-secret","PrivateKey":"*"}"#, "not base64"),
        (r#"{"Type":"jwt-hmac-secret","PrivateKey":"BwcH"}"#, "3 bytes"),
    ] {
        fs::write(&file, text).unwrap();
        let error = keystore::load_or_create(repo.path()).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn the_small_files_are_written_trimmed_and_removed() {
    let repo = tempfile::tempdir().unwrap();
    assert_eq!(repo_files::read_api(repo.path()).unwrap(), None);
    repo_files::remove_api(repo.path()).unwrap();
    repo_files::write_api(repo.path(), "/ip4/127.0.0.1/tcp/2345/http").unwrap();
    repo_files::write_token(repo.path(), "a.b.c").unwrap();
    assert_eq!(fs::read_to_string(repo.path().join("api")).unwrap(), "/ip4/127.0.0.1/tcp/2345/http");
    assert_eq!((mode(&repo.path().join("api")), mode(&repo.path().join("token"))), (0o644, 0o600));
    fs::write(repo.path().join("token"), " a.b.c\n").unwrap();
    assert_eq!(repo_files::read_token(repo.path()).unwrap().as_deref(), Some("a.b.c"));
    repo_files::remove_api(repo.path()).unwrap();
    assert_eq!(repo_files::read_api(repo.path()).unwrap(), None);
    assert_eq!(fs::read_dir(repo.path()).unwrap().count(), 1, "only the token is left");
}
