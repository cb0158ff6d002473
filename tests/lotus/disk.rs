//! A storage path on disk as Lotus lays it out, and Lotus's tar: flat, unpadded at its end, unterminated.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{FILE_TYPES, fresh_uuid, sector_name, type_name};

/// One path.
#[derive(Clone, Debug)]
pub struct StoragePath {
    pub id: String,
    pub dir: PathBuf,
    pub can_seal: bool,
    pub can_store: bool,
}

/// What a path is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Sealing,
    Storing,
}

impl StoragePath {
    /// Makes it, `sectorstore.json` and all.
    pub fn create(dir: &Path, purpose: Purpose) -> Self {
        let id = fresh_uuid();
        let (can_seal, can_store) = (purpose == Purpose::Sealing, purpose == Purpose::Storing);
        for (_, name) in FILE_TYPES {
            std::fs::create_dir_all(dir.join(name)).expect("a directory of sector files");
        }
        let text = format!(
            "{{\n  \"ID\": \"{id}\",\n  \"Weight\": 10,\n  \"CanSeal\": {can_seal},\n  \"CanStore\": {can_store},\n  \
             \"MaxStorage\": 0,\n  \"Groups\": null,\n  \"AllowTo\": null,\n  \"AllowTypes\": null,\n  \"DenyTypes\": \
             null,\n  \"AllowMiners\": null,\n  \"DenyMiners\": null\n}}"
        );
        std::fs::write(dir.join("sectorstore.json"), text).expect("sectorstore.json");
        Self { id, dir: dir.to_owned(), can_seal, can_store }
    }

    /// Where a sector's file lies, or would.
    pub fn file(&self, bit: u64, sector: (u64, u64)) -> PathBuf {
        self.dir.join(type_name(bit)).join(sector_name(sector.0, sector.1))
    }

    /// StorageInfo as Lotus sends it: nil lists are null.
    pub fn info(&self, urls: &[String]) -> Value {
        json!({
            "ID": self.id, "URLs": urls, "Weight": 10, "MaxStorage": 0, "CanSeal": self.can_seal,
            "CanStore": self.can_store, "Groups": null, "AllowTo": null, "AllowTypes": null, "DenyTypes": null,
            "AllowMiners": null, "DenyMiners": null,
        })
    }

    /// Every file there: its bit, miner and number.
    pub fn entries(&self) -> Vec<(u64, (u64, u64))> {
        let mut found = Vec::new();
        for (bit, name) in FILE_TYPES {
            for entry in
                std::fs::read_dir(self.dir.join(name)).expect("a directory of sector files").flatten()
            {
                let name = entry.file_name().to_string_lossy().into_owned();
                let numbers = name.strip_prefix("s-t0").and_then(|rest| rest.split_once('-'));
                let Some((miner, number)) = numbers else { continue };
                let number = number.parse().expect("a sector number");
                found.push((bit, (miner.parse().expect("a miner"), number)));
            }
        }
        found
    }
}

/// A roomy disk, as FsStat.
pub fn roomy() -> Value {
    json!({
        "Capacity": 1_i64 << 40, "Available": 1_i64 << 39, "FSAvailable": 1_i64 << 39, "Reserved": 0, "Max": 0,
        "Used": 0,
    })
}

/// The directory's files as Lotus sends them: by name, USTAR headers, and nothing behind the last file's bytes, neither
/// padding nor end blocks.
pub fn unterminated_tar(dir: &Path) -> Vec<u8> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("a cache").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut tar: Vec<u8> = Vec::new();
    for file in files {
        // The padding of the file before comes with the next header.
        tar.resize(tar.len().next_multiple_of(512), 0);
        let bytes = std::fs::read(&file).expect("a cache file");
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        tar.extend(tar_header(&name, bytes.len()));
        tar.extend(bytes);
    }
    tar
}

fn tar_header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0001750\0");
    put(116, "0001750\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "13744716537\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    put(265, "lotus");
    put(297, "lotus");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Takes a tar apart as strictly as Lotus does: plain files with names from its table, nothing else.
///
/// # Errors
/// What Lotus's fetcher would refuse.
pub fn read_tar(tar: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = Vec::new();
    let mut at = 0;
    while let Some(header) = tar.get(at..at + 512).filter(|header| header.iter().any(|byte| *byte != 0)) {
        let field = |from: usize, to: usize| {
            let text = &header[from..to];
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            String::from_utf8_lossy(&text[..end]).trim().to_owned()
        };
        let name = field(0, 100);
        if header[156] != b'0' && header[156] != 0 {
            return Err(format!("{name}: an entry of type {}", char::from(header[156])));
        }
        if !in_lotus_table(&name) {
            return Err(format!("{name:?} is not among Lotus's names"));
        }
        let octal = |text: String| usize::from_str_radix(&text, 8).map_err(|_| format!("{name}: {text:?}"));
        let size = octal(field(124, 136))?;
        let sum = header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { usize::from(*byte) });
        if octal(field(148, 156))? != sum.sum::<usize>() {
            return Err(format!("{name}: the header's sum is wrong"));
        }
        let begin = at + 512;
        let bytes = tar.get(begin..begin + size).ok_or_else(|| format!("{name} is cut off"))?;
        files.push((name, bytes.to_vec()));
        at = (begin + size).next_multiple_of(512);
    }
    Ok(files)
}

/// Lotus's table of cache files, and the one name of small sectors that is missing in it.
fn in_lotus_table(name: &str) -> bool {
    let numbered = |stem: &str, most: u32| {
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".dat"));
        rest.and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number <= most)
    };
    ["p_aux", "t_aux", "sc-02-data-tree-d.dat", "sc-02-data-tree-r-last.dat", "sc-02-data-tree-c.dat"]
        .contains(&name)
        || numbered("sc-02-data-layer-", 11)
        || numbered("sc-02-data-tree-r-last-", 15)
        || numbered("sc-02-data-tree-c-", 15)
}
