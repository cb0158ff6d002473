//! Sets of byte offsets, as sorted ranges that neither touch nor overlap.
//!
//! Pure values. Never bounds how many ranges there are: the trailer of a partial file does that.

use std::ops::Range;

/// A set of byte offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Not empty, in order, with a gap between any two.
    runs: Vec<Range<u64>>,
}

impl Ranges {
    /// The offsets of one range; none if it is empty.
    pub fn of(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        ranges.insert(range);
        ranges
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> + '_ {
        self.runs.iter().cloned()
    }

    /// Whether there is no offset in the set.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// One past the last offset; 0 for the empty set.
    pub fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// How many offsets are in the set.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether all of `range` is in the set; an empty range always is.
    pub fn contains(&self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let at = self.runs.partition_point(|run| run.end <= range.start);
        self.runs.get(at).is_some_and(|run| run.start <= range.start && range.end <= run.end)
    }

    /// The part of the set that lies in `range`.
    pub fn within(&self, range: Range<u64>) -> Self {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let runs = self.runs[first..]
            .iter()
            .map(|run| run.start.max(range.start)..run.end.min(range.end))
            .take_while(|run| !run.is_empty())
            .collect();
        Self { runs }
    }

    /// The offsets below `end` that are not in the set.
    pub fn gaps(&self, end: u64) -> Self {
        let mut gaps = Self::of(0..end);
        for run in &self.runs {
            gaps.remove(run.clone());
        }
        gaps
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.runs.partition_point(|run| run.end < range.start);
        let last = self.runs.partition_point(|run| run.start <= range.end);
        let merged = self.runs[first..last]
            .iter()
            .fold(range, |all, run| all.start.min(run.start)..all.end.max(run.end));
        self.runs.splice(first..last, [merged]);
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let last = self.runs.partition_point(|run| run.start < range.end);
        if first >= last {
            return;
        }
        let before = self.runs[first].start..range.start;
        let after = range.end..self.runs[last - 1].end;
        self.runs.splice(first..last, [before, after].into_iter().filter(|run| !run.is_empty()));
    }
}
