//! `sectorstore.json` and `storage.json`: the bytes that Lotus writes, and what is made of damaged ones.

use std::fs;
use std::path::Path;

use sealtasks::{ActorId, FileType, PathFilters, StorageStanza};
use stores::{StorageConfig, StorageMeta, StoreError, init_path};

const LOTUS: &str = r#"{
  "ID": "7c1f7a5e-6d2c-4d32-9a3e-0a5a5b0f9f11",
  "Weight": 10,
  "CanSeal": true,
  "CanStore": false,
  "MaxStorage": 0,
  "Groups": null,
  "AllowTo": null,
  "AllowTypes": null,
  "DenyTypes": null,
  "AllowMiners": null,
  "DenyMiners": null
}"#;

fn parse(text: &str) -> Result<StorageStanza, StoreError> {
    let meta = StorageMeta::parse(text.as_bytes())
        .map_err(|source| StoreError::Json { path: "sectorstore.json".into(), source })?;
    Ok(meta.validate(Path::new("/p"))?.1)
}

#[test]
fn bytes_are_those_of_lotus() {
    let meta = StorageMeta::parse(LOTUS.as_bytes()).expect("Lotus's file");
    assert_eq!(String::from_utf8(meta.to_bytes()).expect("text"), LOTUS);
    let (id, stanza) = meta.validate(Path::new("/p")).expect("valid");
    assert_eq!(StorageMeta::new(&id, &stanza), meta);
}

#[test]
fn lists_are_written_and_read() {
    let stanza = StorageStanza {
        weight: 3,
        max_storage: 1 << 40,
        groups: ["rack1".to_owned()].into(),
        filters: PathFilters {
            deny_types: vec![FileType::UpdateCache],
            allow_miners: vec![ActorId::new(1000)],
            ..PathFilters::default()
        },
        ..StorageStanza::default()
    };
    let id = "a".parse().expect("an id");
    let text = String::from_utf8(StorageMeta::new(&id, &stanza).to_bytes()).expect("text");
    assert!(text.contains("\"Groups\": [\n    \"rack1\"\n  ],"), "{text}");
    assert!(text.contains("\"AllowMiners\": [\n    \"f01000\"\n  ]"), "{text}");
    assert_eq!(parse(&text).expect("valid"), stanza);
}

#[test]
fn reading_is_as_lenient_as_go() {
    let old = parse(r#"{"ID":"x","Weight":5,"CanSeal":true,"CanStore":true}"#).expect("an old file");
    assert_eq!((old.weight, old.max_storage), (5, 0));
    let loose =
        parse(r#"{"id":"x","weight":null,"canstore":true,"Extra":{"a":1},"Groups":[]}"#).expect("loose");
    assert_eq!((loose.weight, loose.can_store), (0, true));
    assert!(parse(r#"{"ID":"x","AllowTypes":["sealed","bogus"]}"#).is_ok());
}

#[test]
fn reading_is_strict_where_sectors_would_go_astray() {
    let cases = [
        ("", "STO002"),
        ("{", "STO002"),
        ("[]", "STO002"),
        (r#"{"ID":"x","Weight":"ten"}"#, "STO002"),
        (r#"{"ID":"x","Weight":-1}"#, "STO002"),
        (r#"{"Weight":10}"#, "STO003"),
        (r#"{"ID":""}"#, "STO003"),
        (r#"{"ID":"a.b"}"#, "STO003"),
        (r#"{"ID":"../x"}"#, "STO003"),
        (r#"{"ID":"x","AllowMiners":["f3abc"]}"#, "STO003"),
        (r#"{"ID":"x","AllowTypes":["bogus"]}"#, "STO003"),
    ];
    for (text, code) in cases {
        assert_eq!(parse(text).expect_err(text).code(), code, "{text}");
    }
}

#[test]
fn a_path_is_initialized_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("new");
    let meta = StorageMeta::parse(LOTUS.as_bytes()).expect("Lotus's file");
    init_path(&path, &meta).expect("new");
    assert_eq!(fs::read_to_string(path.join("sectorstore.json")).expect("written"), LOTUS);
    let other = StorageMeta { weight: 1, ..meta };
    assert_eq!(init_path(&path, &other).expect_err("there already").code(), "STO004");
    assert_eq!(fs::read_to_string(path.join("sectorstore.json")).expect("kept"), LOTUS);
    assert_eq!(fs::read_dir(&path).expect("a directory").count(), 1, "no temporary file stays");
}

#[test]
fn storage_json_round_trip() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("storage.json");
    assert_eq!(StorageConfig::read(&file).expect("missing is empty").paths().count(), 0);
    let mut config = StorageConfig::default();
    config.add(Path::new("/a"));
    config.add(Path::new("/b"));
    config.add(Path::new("/a"));
    config.write(&file).expect("written");
    let text = fs::read_to_string(&file).expect("there");
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    assert_eq!(compact, r#"{"StoragePaths":[{"Path":"/a"},{"Path":"/b"}]}"#);
    let mut read = StorageConfig::read(&file).expect("read");
    read.remove(Path::new("/a"));
    assert_eq!(read.paths().collect::<Vec<_>>(), [Path::new("/b")]);
    fs::write(&file, r#"{"StoragePaths":null}"#).expect("written");
    assert_eq!(StorageConfig::read(&file).expect("null is empty").paths().count(), 0);
    fs::write(&file, "{\"StoragePaths\":[{\"Path\"").expect("written");
    assert_eq!(StorageConfig::read(&file).expect_err("damaged").code(), "STO002");
}
