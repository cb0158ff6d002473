//! Whose manager this is: fixed when the repo is made. Never: anything that changes later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rpc::Miners;
use rusqlite::{Connection, OptionalExtension as _};
use sealtasks::{ActorId, SectorSize};
use serde::Deserialize;

use super::copy::SECTOR_GAP;
use super::query::all;
use super::{State, StateError, database, loaded, schema, stored};

/// So many events are read for miners that were removed: there may be a hundred million, and nothing but a setting that nobody
/// needs any more depends on it.
const EVENTS_MAX: i64 = 1_000_000;

/// The miner and what its sectors are made of.
#[derive(Clone, PartialEq, Eq)]
pub struct MinerIdentity {
    /// The miner actor.
    pub actor: ActorId,
    /// Its sector size.
    pub sector_size: SectorSize,
    /// The secret from which the offline source of tickets and seeds derives them.
    pub beacon: [u8; 32],
    /// The chain that its sectors are for; `None`: no chain.
    pub chain: Option<ChainIdentity>,
}

/// Which chain: two networks may have one name, but not one genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainIdentity {
    /// The network's name, for example `mainnet`.
    pub network: String,
    /// The CID of its genesis block.
    pub genesis: String,
}

impl std::fmt::Display for ChainIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (genesis {})", self.network, self.genesis)
    }
}

impl std::fmt::Debug for MinerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The beacon is a secret and stays out of logs.
        write!(f, "MinerIdentity({}, {} bytes)", self.actor, self.sector_size.bytes())
    }
}

impl State {
    /// The miner this repo was made for.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn miner(&self) -> Result<MinerIdentity, StateError> {
        self.read(load).await
    }

    /// The miners that this repo serves: the one it was made for, and those added since, by their ids.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn miners(&self) -> Result<Miners, StateError> {
        Ok(miners(self.miner().await?.actor, self.next_sectors().await?))
    }

    /// The number that each miner's next sector gets.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn next_sectors(&self) -> Result<BTreeMap<ActorId, u64>, StateError> {
        self.read(next_sectors).await
    }

    /// The miner that a repo was made for, and all that it serves. The database may be of an earlier version; nothing in it is
    /// changed.
    ///
    /// # Errors
    /// No database, one of a later version, SQLite's, or a damaged row.
    pub fn identity(path: &Path) -> Result<(MinerIdentity, Miners), StateError> {
        schema::as_if_upgraded(path, |db| {
            let miner = load(db)?;
            let miners = miners(miner.actor, next_sectors(db)?);
            Ok((miner, miners))
        })
    }

    /// Miners that were removed, as far as the last events tell; one of them may be served again. Otherwise as [`Self::identity`].
    ///
    /// # Errors
    /// As [`Self::identity`]'s.
    pub fn removed_miners(path: &Path) -> Result<BTreeSet<ActorId>, StateError> {
        schema::as_if_upgraded(path, |db| {
            let sql = "SELECT body FROM event
                       WHERE kind = 'miner_removed' AND seq > (SELECT max(seq) FROM event) - ?1";
            let rows =
                all(db, sql, [EVENTS_MAX], |row| row.get::<_, String>(0).map_err(database("read a row")))?;
            let read = |body: &String| serde_json::from_str(body).map(|Removed { miner }| miner);
            let bad = |error: serde_json::Error| StateError::Corrupt {
                what: "event miner_removed",
                detail: error.to_string(),
            };
            rows.iter().map(read).collect::<Result<_, _>>().map_err(bad)
        })
    }
}

/// A miner that is served no longer, as the event has it.
#[derive(Deserialize)]
struct Removed {
    miner: ActorId,
}

fn miners(first: ActorId, counted: BTreeMap<ActorId, u64>) -> Miners {
    Miners { first, others: counted.into_keys().filter(|miner| *miner != first).collect() }
}

fn next_sectors(db: &Connection) -> Result<BTreeMap<ActorId, u64>, StateError> {
    let sql = "SELECT actor, next_sector FROM added_miner
               UNION SELECT actor, (SELECT value FROM counter WHERE name = 'next_sector') FROM miner";
    let mut statement = db.prepare(sql).map_err(database("read the miners"))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows: Vec<(i64, i64)> = rows.and_then(Iterator::collect).map_err(database("read the miners"))?;
    let read =
        |(actor, next)| Ok((ActorId::new(loaded("miner actor", actor)?), loaded("sector number", next)?));
    rows.into_iter().map(read).collect()
}

/// Enters a miner that is served from now on beside the others. A lost manager from whose copy this one goes on may have
/// served it after that copy was made: its numbers are passed over, too.
pub(super) fn add(connection: &Connection, miner: ActorId) -> Result<(), StateError> {
    connection
        .execute(
            "INSERT INTO added_miner (actor, next_sector)
             VALUES (?1, 1 + ?2 * EXISTS (SELECT 1 FROM takeover))",
            [stored("miner actor", miner.get())?, stored("gap", SECTOR_GAP)?],
        )
        .map_err(database("store the miner"))?;
    Ok(())
}

/// Takes a miner out that was added. Its numbers are not kept: of one with sectors none is taken out.
pub(super) fn remove(connection: &Connection, miner: ActorId) -> Result<(), StateError> {
    connection
        .execute("DELETE FROM added_miner WHERE actor = ?1", [stored("miner actor", miner.get())?])
        .map_err(database("remove the miner"))?;
    Ok(())
}

/// Writes the identity into a new database.
pub(super) fn store(connection: &Connection, miner: &MinerIdentity) -> Result<(), StateError> {
    let actor = stored("miner actor", miner.actor.get())?;
    let size = stored("sector size", miner.sector_size.bytes())?;
    connection
        .execute(
            "INSERT INTO miner (only_row, actor, sector_size, beacon) VALUES (0, ?1, ?2, ?3)",
            (actor, size, miner.beacon.as_slice()),
        )
        .map_err(database("store the miner"))?;
    if let Some(ChainIdentity { network, genesis }) = &miner.chain {
        connection
            .execute("INSERT INTO chain (only_row, network, genesis) VALUES (0, ?1, ?2)", (network, genesis))
            .map_err(database("store the chain"))?;
    }
    Ok(())
}

fn load(connection: &Connection) -> Result<MinerIdentity, StateError> {
    let row: Option<(i64, i64, Vec<u8>)> = connection
        .query_row("SELECT actor, sector_size, beacon FROM miner", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()
        .map_err(database("read the miner"))?;
    let chain = connection
        .query_row("SELECT network, genesis FROM chain", [], |row| {
            Ok(ChainIdentity { network: row.get(0)?, genesis: row.get(1)? })
        })
        .optional()
        .map_err(database("read the chain"))?;
    let bad = |detail: &str| StateError::Corrupt { what: "miner", detail: detail.to_owned() };
    let (actor, size, beacon) = row.ok_or_else(|| bad("the row is missing"))?;
    let size = loaded("sector size", size)?;
    Ok(MinerIdentity {
        actor: ActorId::new(loaded("miner actor", actor)?),
        sector_size: SectorSize::from_bytes(size)
            .ok_or_else(|| bad("its sector size is none of the five"))?,
        beacon: beacon.try_into().map_err(|_| bad("its beacon secret is not 32 bytes long"))?,
        chain,
    })
}
