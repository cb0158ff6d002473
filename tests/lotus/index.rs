//! The sector index of the scripted miner: Lotus's rules, as far as one worker and one holder meet them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::go::{self, Fault, Reply, refuse, unreadable};
use super::{FILE_TYPES, sector_name, type_name};

/// The keys of StorageInfo, each of which Lotus sends.
const INFO_KEYS: [&str; 12] = [
    "ID",
    "URLs",
    "Weight",
    "MaxStorage",
    "CanSeal",
    "CanStore",
    "Groups",
    "AllowTo",
    "AllowTypes",
    "DenyTypes",
    "AllowMiners",
    "DenyMiners",
];
/// The keys of FsStat.
const STAT_KEYS: [&str; 6] = ["Capacity", "Available", "FSAvailable", "Reserved", "Max", "Used"];

/// One declared file.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    pub path: String,
    pub sector: (u64, u64),
    pub bit: u64,
    pub primary: bool,
}

/// The index.
#[derive(Default)]
pub struct Index {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    paths: Vec<Value>,
    files: Vec<Declared>,
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The declared files of a sector.
    pub fn of(&self, sector: (u64, u64)) -> Vec<Declared> {
        self.lock().files.iter().filter(|file| file.sector == sector).cloned().collect()
    }

    /// The attached path with this id.
    pub fn path(&self, id: &str) -> Option<Value> {
        self.lock().paths.iter().find(|path| path["ID"] == id).cloned()
    }

    /// `StorageAttach [StorageInfo, FsStat]`; every key must be there, with Go's types.
    pub fn attach(&self, info: &Value, stat: &Value) -> Reply {
        exact_keys(info, &INFO_KEYS, "StorageInfo")?;
        exact_keys(stat, &STAT_KEYS, "FsStat")?;
        let id = go::text(&info["ID"], "ID")?;
        if STAT_KEYS.iter().any(|key| !stat[key].is_i64()) || !info["URLs"].is_array() {
            return Err(unreadable(format!("{info} {stat}")));
        }
        let mut tables = self.lock();
        tables.paths.retain(|path| path["ID"] != id);
        tables.paths.push(info.clone());
        Ok(Value::Null)
    }

    /// `StorageReportHealth [id, HealthReport]`.
    pub fn health(&self, id: &Value, report: &Value) -> Reply {
        let id = go::text(id, "ID")?;
        exact_keys(report, &["Stat", "Err"], "HealthReport")?;
        exact_keys(&report["Stat"], &STAT_KEYS, "FsStat")?;
        if self.path(id).is_none() {
            return Err(refuse(format!("health report for unknown storage: {id}")));
        }
        Ok(Value::Null)
    }

    /// `StorageDeclareSector [id, SectorID, filetype, primary]`.
    pub fn declare(&self, params: &[Value]) -> Reply {
        let path = go::text(&params[0], "storageID")?.to_owned();
        let sector = go::sector_id(&params[1])?;
        let bit = single(&params[2])?;
        let primary = params[3].as_bool().ok_or_else(|| unreadable(format!("primary is {}", params[3])))?;
        if self.path(&path).is_none() {
            return Err(refuse(format!("declared in {path}, which was never attached")));
        }
        let mut tables = self.lock();
        let known =
            tables.files.iter_mut().find(|file| (&file.path, file.sector, file.bit) == (&path, sector, bit));
        match known {
            // A declaration may raise to primary and never lowers.
            Some(known) => known.primary |= primary,
            None => tables.files.push(Declared { path, sector, bit, primary }),
        }
        Ok(Value::Null)
    }

    /// `StorageDropSector [id, SectorID, filetype]`.
    pub fn drop_file(&self, params: &[Value]) -> Reply {
        let path = go::text(&params[0], "storageID")?;
        let (sector, bit) = (go::sector_id(&params[1])?, single(&params[2])?);
        self.lock().files.retain(|file| (file.path.as_str(), file.sector, file.bit) != (path, sector, bit));
        Ok(Value::Null)
    }

    /// `StorageFindSector [SectorID, filetype, size, allowFetch]`: who holds any of the types.
    pub fn find(&self, params: &[Value]) -> Reply {
        let sector = go::sector_id(&params[0])?;
        let types = go::uint(&params[1], "filetype")?;
        go::uint(&params[2], "ssize")?;
        if !params[3].is_boolean() {
            return Err(unreadable(format!("allowFetch is {}", params[3])));
        }
        let tables = self.lock();
        let holders = tables.paths.iter().filter_map(|path| {
            let here = |file: &&Declared| path["ID"] == file.path.as_str() && file.sector == sector;
            let held: Vec<_> =
                tables.files.iter().filter(here).filter(|file| file.bit & types != 0).collect();
            let file = held.first()?;
            let bases = path["URLs"].as_array()?.iter().filter_map(Value::as_str);
            let below = format!("{}/{}", type_name(file.bit), sector_name(sector.0, sector.1));
            let urls: Vec<String> = bases.map(|base| format!("{base}/{below}")).collect();
            Some(json!({
                "ID": path["ID"], "URLs": urls, "BaseURLs": path["URLs"], "Weight": path["Weight"],
                "CanSeal": path["CanSeal"], "CanStore": path["CanStore"],
                "Primary": held.iter().any(|file| file.primary), "AllowTypes": [], "DenyTypes": [],
                "AllowMiners": null, "DenyMiners": null,
            }))
        });
        Ok(holders.collect())
    }

    /// `StorageBestAlloc [filetype, size, PathType, miner]`: the paths of that kind.
    pub fn best_alloc(&self, params: &[Value]) -> Reply {
        go::uint(&params[0], "filetype")?;
        let (size, miner) = (go::uint(&params[1], "ssize")?, go::uint(&params[3], "miner")?);
        if (size, miner) != (2048, 1000) {
            return Err(unreadable(format!("room for {size} bytes of miner {miner}")));
        }
        let kind = match go::text(&params[2], "PathType")? {
            "sealing" => "CanSeal",
            "storage" => "CanStore",
            other => return Err(unreadable(format!("PathType {other}"))),
        };
        let fit: Vec<Value> = self.lock().paths.iter().filter(|path| path[kind] == true).cloned().collect();
        if fit.is_empty() { Err(refuse("no good path found")) } else { Ok(fit.into()) }
    }

    /// `StorageInfo [id]`.
    pub fn info(&self, id: &Value) -> Reply {
        self.path(go::text(id, "ID")?).ok_or_else(|| refuse("sector store not found"))
    }

    /// `StorageList []`: bits of one sector in one path OR-ed together.
    pub fn list(&self) -> Value {
        let tables = self.lock();
        let mut listed = serde_json::Map::new();
        for path in &tables.paths {
            let id = path["ID"].as_str().unwrap_or_default();
            let mut decls: Vec<((u64, u64), u64)> = Vec::new();
            for file in tables.files.iter().filter(|file| file.path == id) {
                match decls.iter_mut().find(|(sector, _)| *sector == file.sector) {
                    Some((_, bits)) => *bits |= file.bit,
                    None => decls.push((file.sector, file.bit)),
                }
            }
            let decl =
                |((miner, number), bits)| json!({ "Miner": miner, "Number": number, "SectorFileType": bits });
            listed.insert(id.to_owned(), decls.into_iter().map(decl).collect());
        }
        listed.into()
    }
}

/// A filetype of exactly one bit: Lotus's worker declares and drops file by file.
fn single(value: &Value) -> Result<u64, Fault> {
    let bit = go::uint(value, "filetype")?;
    let known = FILE_TYPES.iter().any(|(known, _)| *known == bit);
    if known { Ok(bit) } else { Err(unreadable(format!("filetype {bit} is not one file"))) }
}

/// All of these keys and no other: what Go would silently drop is a mistake of the sender's.
///
/// # Errors
/// -32700, which the miner turns into a complaint.
pub fn exact_keys(value: &Value, keys: &[&str], what: &str) -> Result<(), Fault> {
    let object = value.as_object().ok_or_else(|| unreadable(format!("{what} is {value}")))?;
    let missing: Vec<_> = keys.iter().filter(|key| !object.contains_key(**key)).collect();
    let foreign: Vec<_> = object.keys().filter(|key| !keys.contains(&key.as_str())).collect();
    if missing.is_empty() && foreign.is_empty() {
        return Ok(());
    }
    Err(unreadable(format!("{what} lacks {missing:?} and has {foreign:?} too much: {value}")))
}
