//! `sectorstore.json`: what a storage path says of itself, byte for byte as Lotus writes it.
//!
//! Reading is as lenient as Go (missing and null fields, keys in any case, unknown keys ignored) and strict where a
//! misreading would put sectors in the wrong place: bad JSON, an id that is none, an unreadable miner filter.

use std::collections::BTreeSet;
use std::path::Path;

use sealtasks::{ActorId, FileType, PathFilters, StorageId, StorageStanza};
use serde::{Deserialize, Deserializer, Serialize};

use crate::disk;
use crate::error::StoreError;

/// The file's name in a storage path.
pub const META_FILE: &str = "sectorstore.json";

/// More than this is no `sectorstore.json` (bytes).
const META_BYTES_MAX: u64 = 1 << 20;

/// A value repeated in an error is cut to this many characters.
const VALUE_MAX: usize = 256;

/// The fields in Lotus's order. Lists may be null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StorageMeta {
    /// The path's id, a UUID when Lotus or we made it.
    #[serde(rename = "ID", deserialize_with = "null_as_default")]
    pub id: String,
    /// Preference among paths; 0 = read-only.
    #[serde(deserialize_with = "null_as_default")]
    pub weight: u64,
    /// Sealing may use it.
    #[serde(deserialize_with = "null_as_default")]
    pub can_seal: bool,
    /// Finished sectors may live here.
    #[serde(deserialize_with = "null_as_default")]
    pub can_store: bool,
    /// Limit in bytes; 0 = none.
    #[serde(deserialize_with = "null_as_default")]
    pub max_storage: u64,
    /// Groups it belongs to.
    pub groups: Option<Vec<String>>,
    /// Groups its files may be fetched into.
    pub allow_to: Option<Vec<String>>,
    /// Only these file types.
    pub allow_types: Option<Vec<String>>,
    /// Never these file types.
    pub deny_types: Option<Vec<String>>,
    /// Only these miners, as addresses.
    pub allow_miners: Option<Vec<String>>,
    /// Never these miners, as addresses.
    pub deny_miners: Option<Vec<String>>,
}

const KEYS: [&str; 11] = [
    "ID",
    "Weight",
    "CanSeal",
    "CanStore",
    "MaxStorage",
    "Groups",
    "AllowTo",
    "AllowTypes",
    "DenyTypes",
    "AllowMiners",
    "DenyMiners",
];

impl StorageMeta {
    /// The file for a path with this id and these settings. Empty lists are written as null, as Lotus does.
    pub fn new(id: &StorageId, stanza: &StorageStanza) -> Self {
        let list = |items: Vec<String>| if items.is_empty() { None } else { Some(items) };
        let types = |kinds: &[FileType]| list(kinds.iter().map(ToString::to_string).collect());
        let miners = |ids: &[ActorId]| list(ids.iter().map(|id| format!("f0{}", id.get())).collect());
        Self {
            id: id.to_string(),
            weight: stanza.weight,
            can_seal: stanza.can_seal,
            can_store: stanza.can_store,
            max_storage: stanza.max_storage,
            groups: list(stanza.groups.iter().cloned().collect()),
            allow_to: list(stanza.allow_to.iter().cloned().collect()),
            allow_types: types(&stanza.filters.allow_types),
            deny_types: types(&stanza.filters.deny_types),
            allow_miners: miners(&stanza.filters.allow_miners),
            deny_miners: miners(&stanza.filters.deny_miners),
        }
    }

    /// Reads the `sectorstore.json` of the storage path `dir`.
    ///
    /// # Errors
    /// When the file is missing, unreadable, larger than 1 MiB or not the JSON it should be.
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(META_FILE);
        let bytes = disk::read_bounded(&path, META_BYTES_MAX)?;
        Self::parse(&bytes).map_err(|source| StoreError::Json { path, source })
    }

    /// Reads the bytes of a `sectorstore.json`.
    ///
    /// # Errors
    /// When they are not a JSON object with fields of the right types.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let given: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)?;
        let mut known = serde_json::Map::new();
        for key in KEYS {
            let loose =
                || given.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
            if let Some(value) = given.get(key).or_else(loose) {
                known.insert(key.to_owned(), value.clone());
            }
        }
        serde_json::from_value(known.into())
    }

    /// The file's bytes: two spaces of indent, no newline at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain strings and numbers always serialise")
    }

    /// The id and the settings as values. `dir` is named in errors.
    ///
    /// # Errors
    /// When the id is empty or malformed, a miner filter names no id address, or a list of allowed types has no
    /// known type in it (dropping them all would allow everything). Other unknown type names are dropped with a
    /// warning, as Lotus does.
    pub fn validate(&self, dir: &Path) -> Result<(StorageId, StorageStanza), StoreError> {
        let path = dir.join(META_FILE);
        let field = |field, value: &str, expected| StoreError::MetaField {
            path: path.clone(),
            field,
            value: value.chars().take(VALUE_MAX).collect(),
            expected,
        };
        let id: StorageId = self
            .id
            .parse()
            .map_err(|_| field("ID", &self.id, "a UUID (or 1 to 128 letters, digits, '-' and '_')"))?;
        let miners = |name, list: &Option<Vec<String>>| {
            let parse = |text: &String| {
                text.parse().map_err(|_| field(name, text, "a miner id address such as f01000"))
            };
            list.iter().flatten().map(parse).collect::<Result<Vec<ActorId>, _>>()
        };
        let allow_types = known_types(&path, "AllowTypes", &self.allow_types);
        if allow_types.is_empty() && self.allow_types.as_ref().is_some_and(|list| !list.is_empty()) {
            let given = self.allow_types.iter().flatten().cloned().collect::<Vec<_>>().join(",");
            return Err(field(
                "AllowTypes",
                &given,
                "file types: unsealed, sealed, cache, update, update-cache, piece",
            ));
        }
        let filters = PathFilters {
            allow_types,
            deny_types: known_types(&path, "DenyTypes", &self.deny_types),
            allow_miners: miners("AllowMiners", &self.allow_miners)?,
            deny_miners: miners("DenyMiners", &self.deny_miners)?,
        };
        let set = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect::<BTreeSet<_>>();
        let stanza = StorageStanza {
            weight: self.weight,
            max_storage: self.max_storage,
            can_seal: self.can_seal,
            can_store: self.can_store,
            groups: set(&self.groups),
            allow_to: set(&self.allow_to),
            filters,
        };
        Ok((id, stanza))
    }
}

/// Makes `dir` a storage path: creates it (0755) and writes its `sectorstore.json` (0644).
///
/// # Errors
/// When it is one already, when `meta` would not open again, or when the disk refuses.
pub fn init_path(dir: &Path, meta: &StorageMeta) -> Result<(), StoreError> {
    meta.validate(dir)?;
    disk::create_dir(dir)?;
    let path = dir.join(META_FILE);
    match disk::write_new(&path, &meta.to_bytes()) {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::AlreadyInitialized { path: dir.to_owned() })
        }
        done => done,
    }
}

fn known_types(path: &Path, field: &'static str, list: &Option<Vec<String>>) -> Vec<FileType> {
    let mut known = Vec::new();
    for text in list.iter().flatten() {
        match text.parse() {
            Ok(kind) => known.push(kind),
            Err(error) => {
                tracing::warn!(?path, field, %error, "unknown file type in a path's filter is ignored")
            }
        }
    }
    known
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    input: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}
