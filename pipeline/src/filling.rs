//! How data comes to lie in a sector: each piece at a multiple of its own size, with zeros in between, as Lotus places it.

use sealtasks::{
    AddPieceInput, PaddedPieceSize, PieceInfo, PieceSource, SectorSize, UnpaddedOffset, UnpaddedPieceSize,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::SectorRecord;

/// Most pieces of data in a sector below 64 GiB, and in one of 64 GiB: what Lotus takes (`getDealPerSectorLimit`).
pub const DATA_PIECES_MAX: (usize, usize) = (256, 512);

/// Data that was given for a sector; it waits with the manager until it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPiece {
    /// Its padded size and its commitment (CommP), computed when it was given.
    pub piece: PieceInfo,
    /// Raw bytes that were given; the piece goes on with zeros.
    pub bytes: u64,
    /// Names the copy that waits.
    pub staged: Uuid,
    /// Its first raw byte in the sector, once it is written there.
    pub offset: Option<UnpaddedOffset>,
}

/// Data that a sector does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillingError {
    /// Too large, with what is there or will be.
    #[error(
        "a piece of {padded} padded bytes does not fit behind {taken} of the sector's {whole}; start this sector and give the \
         piece to another"
    )]
    NoRoom {
        /// Padded bytes that are taken, the gap before the piece included.
        taken: u64,
        /// Of the piece.
        padded: u64,
        /// Of the sector.
        whole: u64,
    },
    /// As many pieces as a sector may hold.
    #[error("the sector has {have} pieces of data, and no more than {most} may be; start it")]
    TooMany {
        /// Pieces that it has.
        have: usize,
        /// Pieces that it may have.
        most: usize,
    },
}

/// The zeros before a piece that is to come behind `offset` padded bytes, smallest first (Lotus's
/// `GetRequiredPadding`).
pub fn required_padding(offset: u64, piece: PaddedPieceSize) -> Vec<PaddedPieceSize> {
    powers(offset.wrapping_neg() % piece.get())
}

/// The zeros that fill the rest of a sector behind `offset` padded bytes, smallest first (Lotus's `fillersFromRem`).
pub fn fillers(offset: u64, sector: SectorSize) -> Vec<PaddedPieceSize> {
    powers(sector.bytes().saturating_sub(offset))
}

/// The data among a sector's pieces: zeros that are written anyway, before a piece or behind all, are left out. Those without
/// which another piece would lie elsewhere stay.
pub fn without_fillers(pieces: &[PieceInfo], is_zeros: impl Fn(&PieceInfo) -> bool) -> Vec<PieceInfo> {
    let mut kept = pieces.to_vec();
    let mut at = 0;
    while let Some(piece) = kept.get(at) {
        if is_zeros(piece) {
            let (mut rest, mut places) = (kept.clone(), starts(&kept));
            rest.remove(at);
            places.remove(at);
            if starts(&rest) == places {
                kept = rest;
                continue;
            }
        }
        at += 1;
    }
    kept
}

/// Where each of these pieces begins, in padded bytes.
fn starts(pieces: &[PieceInfo]) -> Vec<u64> {
    let mut end = 0_u64;
    let place = |piece: &PieceInfo| {
        let size = piece.size.get();
        let start = end.div_ceil(size).saturating_mul(size);
        end = start.saturating_add(size);
        start
    };
    pieces.iter().map(place).collect()
}

/// One piece for each bit. Pieces are multiples of 128 bytes, so all bits make pieces.
fn powers(mut bytes: u64) -> Vec<PaddedPieceSize> {
    let mut sizes = Vec::new();
    while bytes > 0 {
        let lowest = 1 << bytes.trailing_zeros();
        sizes.extend(PaddedPieceSize::try_from(lowest));
        bytes ^= lowest;
    }
    sizes
}

impl SectorRecord {
    /// The data that was given for this sector, in the order it was given.
    pub fn data(&self) -> &[DataPiece] {
        &self.fields.data
    }

    /// Whether somebody may want to read it: then its unsealed file stays.
    pub fn has_data(&self) -> bool {
        !self.fields.data.is_empty()
    }

    /// The data that the AddPiece which it waits for writes; `None`: it waits for none, or for one of zeros.
    pub fn data_to_write(&self) -> Option<&DataPiece> {
        let (state, next) = (self.fields.state, self.pending()?);
        let aligned = self.written().is_multiple_of(next.piece.size.get());
        (state == crate::SectorState::AddPiece && aligned).then_some(next)
    }

    /// Whether this data could be added behind all that is there or waits.
    ///
    /// # Errors
    /// No room, or too many pieces.
    pub fn check_room(&self, piece: PaddedPieceSize) -> Result<(), FillingError> {
        let size = self.fields.sector.proof.sector_size();
        let most = if size == SectorSize::GiB64 { DATA_PIECES_MAX.1 } else { DATA_PIECES_MAX.0 };
        let have = self.fields.data.len();
        if have >= most {
            return Err(FillingError::TooMany { have, most });
        }
        let (whole, padded) = (size.bytes(), piece.get());
        let behind = |taken: u64, next: PaddedPieceSize| {
            let start = taken.checked_next_multiple_of(next.get())?;
            start.checked_add(next.get()).map(|end| (start, end))
        };
        let waiting = self.fields.data.iter().filter(|data| data.offset.is_none());
        let taken = waiting
            .map(|data| data.piece.size)
            .try_fold(self.written(), |taken, next| behind(taken, next).map(|(_, end)| end))
            .unwrap_or(whole);
        match behind(taken, piece) {
            Some((_, end)) if end <= whole => Ok(()),
            Some((taken, _)) => Err(FillingError::NoRoom { taken, padded, whole }),
            None => Err(FillingError::NoRoom { taken, padded, whole }),
        }
    }

    /// Padded bytes that are written.
    pub(crate) fn written(&self) -> u64 {
        self.fields.progress.pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.size.get()))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.written() == self.fields.sector.proof.sector_size().bytes()
    }

    /// The first data that is not written.
    pub(crate) fn pending(&self) -> Option<&DataPiece> {
        self.fields.data.iter().find(|data| data.offset.is_none())
    }

    /// What is written next: data, or zeros before it or behind all of it. `None`: nothing.
    pub(crate) fn next_piece(&self) -> Option<AddPieceInput> {
        let existing: Vec<UnpaddedPieceSize> =
            self.fields.progress.pieces.iter().map(|piece| piece.size.unpadded()).collect();
        let written = self.written();
        let pending = self.pending().filter(|_| self.fields.state == crate::SectorState::AddPiece);
        let (size, source) = match pending {
            Some(data) => match required_padding(written, data.piece.size).first() {
                Some(padding) => (*padding, PieceSource::Zeros),
                None => (data.piece.size, PieceSource::Stream),
            },
            None => (*fillers(written, self.fields.sector.proof.sector_size()).first()?, PieceSource::Zeros),
        };
        Some(AddPieceInput { existing, size: size.unpadded(), source })
    }

    /// A piece that was asked for is written. An error says that it is not the one.
    pub(crate) fn take_piece(&mut self, piece: PieceInfo) -> Result<(), String> {
        let wanted = self.next_piece().map(|input| input.size.padded());
        if wanted != Some(piece.size) {
            let wanted = wanted.map_or(0, PaddedPieceSize::get);
            return Err(format!("the piece has {} padded bytes; expected {wanted}", piece.size));
        }
        let start = self.written();
        if let Some(data) = self.data_to_write().copied() {
            if data.piece.cid != piece.cid {
                let (given, made) = (data.piece.cid, piece.cid);
                return Err(format!(
                    "AddPiece wrote a piece with CommP {made}; the data that was given has {given}"
                ));
            }
            // Pieces are multiples of 128 padded bytes, so this is one of 127.
            let offset = UnpaddedOffset::try_from(start / 128 * 127).map_err(|error| error.to_string())?;
            if let Some(first) = self.fields.data.iter_mut().find(|data| data.offset.is_none()) {
                first.offset = Some(offset);
            }
        }
        self.fields.progress.pieces.push(piece);
        Ok(())
    }
}
