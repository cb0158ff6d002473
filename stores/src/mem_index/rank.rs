//! Paths in the order in which they are offered for new files, kept sorted: a report moves one row, a question reads
//! from the front and sorts nothing.

use std::cmp::Ordering;

/// One path that is offered for new files while it is fresh and has room.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Available × weight: larger is offered first.
    pub(super) score: u128,
    /// Bytes.
    pub(super) available: u64,
    /// The last unix millisecond at which its heartbeat still counts; 0 = it reported an error.
    pub(super) fresh_until: u64,
    pub(super) slot: u16,
    pub(super) can_seal: bool,
    pub(super) can_store: bool,
    /// Whether its own filters must be asked about miners.
    pub(super) picky: bool,
}

impl Row {
    pub(super) fn takes(&self, now: u64, need: u64) -> bool {
        now <= self.fresh_until && self.available >= need
    }
}

#[derive(Default)]
pub(super) struct Ranking {
    rows: Vec<Row>,
}

impl Ranking {
    /// Best first.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn remove(&mut self, slot: u16) {
        if let Some(at) = self.rows.iter().position(|row| row.slot == slot) {
            self.rows.remove(at);
        }
    }

    /// Puts a path where its score belongs; `by_id` orders two slots of equal score.
    pub(super) fn put(&mut self, row: Row, by_id: impl Fn(u16, u16) -> Ordering) {
        self.remove(row.slot);
        let before = |known: &Row| {
            let order = row.score.cmp(&known.score).then_with(|| by_id(known.slot, row.slot));
            order == Ordering::Less
        };
        let at = self.rows.partition_point(before);
        self.rows.insert(at, row);
    }
}
