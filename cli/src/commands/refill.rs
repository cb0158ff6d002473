//! `--piece CID=FILE|URL`: the data of lost sectors, handed to the manager, which believes each piece by its commitment alone.
//! Never: names one missing piece after the other; all that a sector lacks is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use futures_util::TryStreamExt as _;
use rpc::pipelining::{Lost, PieceParts, WantedPiece};
use rpc::{ApiError, SectorName, piece_url};
use sealtasks::{PieceInfo, UnsealedCid};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::connect::{Connection, expand, rpc_failure};
use crate::exit::{Code, Failure};
use crate::show::talk;
use crate::tls;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// Where each piece's data is.
#[derive(Default)]
pub struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Reads `CID=FILE|URL`.
    pub fn parse(given: &[String]) -> Result<Self, Failure> {
        let mut sources = BTreeMap::new();
        for text in given {
            let usage = |why: String| Failure::new(Code::Usage, format!("--piece {text}: {why}"));
            let (cid, place) =
                text.split_once('=').ok_or_else(|| usage("expected CID=FILE or CID=URL".to_owned()))?;
            let cid: UnsealedCid = cid.parse().map_err(|error| usage(format!("{error}")))?;
            if place.is_empty() {
                return Err(usage("expected a file or a URL behind the CID".to_owned()));
            }
            if sources.insert(cid.to_string(), place.to_owned()).is_some() {
                return Err(usage("this piece is given twice".to_owned()));
            }
        }
        Ok(Self(sources))
    }

    fn place_of(&self, wanted: &WantedPiece) -> Option<&str> {
        self.0.get(&wanted.piece.cid.to_string()).map(String::as_str)
    }

    fn has(&self, wanted: &WantedPiece) -> bool {
        wanted.given || self.place_of(wanted).is_some()
    }
}

/// What stands against sealing the sector from what is given: pieces that nobody has given and that it is not sealed without,
/// or given ones that would not be used.
pub async fn objection(
    connection: &Connection,
    number: SectorName,
    lost: Option<&Lost>,
    sources: &Sources,
) -> Result<Option<String>, Failure> {
    let wanted = wanted(connection, number, lost).await?;
    let named = |is_one: &dyn Fn(&&WantedPiece) -> bool| {
        let found: BTreeSet<String> =
            wanted.iter().filter(is_one).map(|wanted| wanted.piece.cid.to_string()).collect();
        (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(", "))
    };
    if let Some(missing) = named(&|piece| piece.needed && !sources.has(piece)) {
        return Ok(Some(format!(
            "its data is missing: {missing}; give each with --piece CID=FILE or --piece CID=URL"
        )));
    }
    let unused = named(&|piece| !piece.needed && sources.place_of(piece).is_some());
    Ok(unused.map(|unused| {
        format!(
            "its unsealed file is there and it is sealed from that, so what is given would not be used: {unused}; leave \
             that away, or, where the unsealed file is damaged, put it aside, let `sealyard storage redeclare \
             --drop-missing` forget it, and give all of its pieces; a rebuild that has begun from it is given up by \
             `sealyard sectors update-state --really-do-it {number} Proving`"
        )
    }))
}

/// Hands over what is there for the sector. `Some`: it is not what it is given as, or cannot be read, and why.
pub async fn hand_over(
    connection: &Connection,
    number: SectorName,
    lost: Option<&Lost>,
    sources: &Sources,
) -> Result<Option<String>, Failure> {
    let wanted = wanted(connection, number, lost).await?;
    // Where the unsealed file is left, nothing is taken from elsewhere.
    if wanted.iter().any(|piece| !piece.needed || !sources.has(piece)) {
        return Ok(None);
    }
    let mut handed: Vec<PieceInfo> = Vec::new();
    for WantedPiece { piece, given, .. } in wanted {
        let Some(place) = sources.0.get(&piece.cid.to_string()).filter(|_| !given) else { continue };
        if handed.contains(&piece) {
            continue;
        }
        let refused = |why: String| Ok(Some(format!("piece {}: {place}: {why}", piece.cid)));
        let data = match open(place, piece).await {
            Ok(data) => data,
            Err(why) => return refused(why),
        };
        // Where the data breaks off, so does the request to the manager, which is not to blame.
        let broken = Arc::new(OnceLock::new());
        let noted = broken.clone();
        let data = data.inspect_err(move |error| drop(noted.set(rpc::error::chain(error))));
        let given = connection.pipeline.give_piece(number, piece, Box::pin(data)).await;
        if let (Err(_), Some(why)) = (&given, broken.get()) {
            return refused(format!("the data broke off: {why}"));
        }
        match given {
            Ok(()) => talk!("sector {number}: piece {} is there, from {place}", piece.cid),
            Err(ApiError::Remote { message, .. }) => return refused(message),
            Err(error @ ApiError::Refused { .. }) => return refused(error.to_string()),
            // It may have hung up on more data than it takes.
            Err(error) if connection.manager.version().await.is_ok() => {
                return refused(rpc::error::chain(&error));
            }
            Err(error) => return Err(rpc_failure(error)),
        }
        handed.push(piece);
    }
    Ok(None)
}

async fn wanted(
    connection: &Connection,
    number: SectorName,
    lost: Option<&Lost>,
) -> Result<Vec<WantedPiece>, Failure> {
    connection.pipeline.rebuild_pieces(number, lost.cloned()).await.map_err(rpc_failure)
}

async fn open(place: &str, piece: PieceInfo) -> Result<PieceParts, String> {
    if place.starts_with("http://") || place.starts_with("https://") {
        let trust = tls::trust(|| None).map_err(|failure| failure.to_string())?;
        let opened = piece_url::open(place, piece.size.unpadded().get(), &trust).await;
        let opened = opened.map_err(|error| format!("{}: {}", error.code(), rpc::error::chain(&error)))?;
        return Ok(Box::pin(ReaderStream::with_capacity(opened.stream, CHUNK)));
    }
    let path = expand(place).map_err(|failure| failure.to_string())?;
    let file = File::open(&path).await.map_err(|error| error.to_string())?;
    if file.metadata().await.map_err(|error| error.to_string())?.is_dir() {
        return Err("it is a directory".to_owned());
    }
    Ok(Box::pin(ReaderStream::with_capacity(file, CHUNK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_given_by_its_cid_once() {
        let cid = "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy";
        let parse = |given: &[String]| Sources::parse(given).map(|sources| sources.0.len());
        assert_eq!(parse(&[format!("{cid}=a=b.car")]).ok(), Some(1));
        for wrong in ["x", "x=y", &format!("{cid}=")] {
            assert!(parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert!(parse(&[format!("{cid}=a"), format!("{cid}=b")]).is_err(), "twice");
    }
}
