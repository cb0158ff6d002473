//! One holder of a sector's files in eight bytes.

use sealtasks::FileTypes;

/// The files of one sector in one path, in 64 bits: slot 16, types 6, primary 6, unconfirmed 6, place 30.
#[derive(Clone, Copy, Default)]
pub(super) struct Held(u64);

impl Held {
    pub(super) fn new(slot: u16, place: usize) -> Self {
        // The caller keeps places below PATH_SECTORS_MAX.
        Self(u64::from(slot) | (place as u64) << 34)
    }

    pub(super) const fn slot(self) -> u16 {
        self.0 as u16
    }

    fn bits(self, at: u32) -> FileTypes {
        SETS[(self.0 >> at) as usize & 63]
    }

    fn set(&mut self, at: u32, types: FileTypes) {
        self.0 = (self.0 & !(63 << at)) | u64::from(types.bits()) << at;
    }

    /// What was declared to lie there.
    pub(super) fn types(self) -> FileTypes {
        self.bits(16)
    }

    /// Which of both declared and unconfirmed files are primary copies.
    pub(super) fn marked(self) -> FileTypes {
        self.bits(22)
    }

    /// The declared primary copies.
    pub(super) fn primary(self) -> FileTypes {
        self.marked().intersection(self.types())
    }

    /// What a snapshot said to lie there and nobody has declared since.
    pub(super) fn unconfirmed(self) -> FileTypes {
        self.bits(28)
    }

    /// Declared or not.
    pub(super) fn any(self) -> FileTypes {
        self.types() | self.unconfirmed()
    }

    pub(super) fn place(self) -> usize {
        (self.0 >> 34) as usize
    }

    pub(super) fn set_place(&mut self, place: usize) {
        self.0 = (self.0 & ((1 << 34) - 1)) | (place as u64) << 34;
    }

    pub(super) fn is_vacant(self) -> bool {
        self.any().is_empty()
    }

    /// A declaration: raises to primary, never lowers; what a snapshot said of these files no longer counts.
    fn declare(&mut self, types: FileTypes, primary: bool) {
        let kept = self.marked().difference(self.unconfirmed().intersection(types));
        self.set(22, if primary { kept | types } else { kept });
        self.set(28, self.unconfirmed().difference(types));
        self.set(16, self.types() | types);
    }

    /// What a snapshot says; what was declared already knows better.
    fn restore(&mut self, types: FileTypes, primary: FileTypes) {
        let new = types.difference(self.types());
        self.set(28, self.unconfirmed() | new);
        self.set(22, self.marked() | primary.intersection(new));
    }

    pub(super) fn apply(&mut self, types: FileTypes, kind: Kind) {
        match kind {
            Kind::Declared { primary } | Kind::Found { primary } => self.declare(types, primary),
            Kind::Restored { primary } => self.restore(types, primary),
        }
    }

    pub(super) fn take(&mut self, types: FileTypes) {
        for at in [16, 22, 28] {
            self.set(at, self.bits(at).difference(types));
        }
    }
}

/// Who says that files lie there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Declared by the path's owner, who has brought or made them.
    Declared { primary: bool },
    /// Declared by the path's owner, who has found them there.
    Found { primary: bool },
    /// Read from a snapshot; these types are primary.
    Restored { primary: FileTypes },
}

impl Kind {
    pub(super) const fn is_primary(self) -> bool {
        matches!(self, Self::Declared { primary: true } | Self::Found { primary: true })
    }
}

/// Every set of types, by its bits.
const SETS: [FileTypes; 64] = sets();

const fn sets() -> [FileTypes; 64] {
    let mut single = [
        FileTypes::UNSEALED,
        FileTypes::SEALED,
        FileTypes::CACHE,
        FileTypes::UPDATE,
        FileTypes::UPDATE_CACHE,
        FileTypes::ALL,
    ];
    let mut kind = 0;
    while kind < 5 {
        single[5] = single[5].difference(single[kind]);
        kind += 1;
    }
    let mut sets = [FileTypes::NONE; 64];
    let mut bits = 1_usize;
    while bits < sets.len() {
        let highest = bits.ilog2() as usize;
        sets[bits] = sets[bits & !(1 << highest)].union(single[highest]);
        bits += 1;
    }
    sets
}
