//! Stand-ins for Lotus: a scripted worker and a scripted miner, so that both of our ends are tried against the protocol
//! without a Lotus at hand. They read the protocol on their own: JSON by hand, HTTP by hand, nothing of the room `rpc`,
//! so that one misreading cannot hide in both ends. What a peer sends wrongly is a complaint; a test ends with none.
//! They stand in for Lotus's behaviour on the wire only; the sealing itself is done by `sealyard exec`.
#![allow(dead_code, reason = "each test target uses its part of this")]

pub mod commitment;
pub mod disk;
pub mod go;
pub mod http;
pub mod index;
pub mod jobs;
pub mod miner;
pub mod remote;
pub mod trace;
pub mod worker;
pub mod yard;

/// The name of a sector's file, as on Lotus's disks.
pub fn sector_name(miner: u64, number: u64) -> String {
    format!("s-t0{miner}-{number}")
}

/// Directory names of the file types by their bits.
pub const FILE_TYPES: [(u64, &str); 6] =
    [(1, "unsealed"), (2, "sealed"), (4, "cache"), (8, "update"), (16, "update-cache"), (32, "piece")];

/// The directory of one file type.
pub fn type_name(bit: u64) -> &'static str {
    FILE_TYPES.iter().find(|(known, _)| *known == bit).map(|(_, name)| *name).expect("a single type's bit")
}

/// The bit of one directory.
pub fn type_bit(name: &str) -> Option<u64> {
    FILE_TYPES.iter().find(|(_, known)| *known == name).map(|(bit, _)| *bit)
}

/// A fresh uuid, as text.
pub fn fresh_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
