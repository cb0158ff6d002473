//! Puts the spans of one machine into lanes so that no two meet, tasks of one sort beside each other.

use sealtasks::TaskType;

use super::timeline::Span;

/// The spans of one machine, each with its lane, and how many lanes there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    /// Each span and its lane from 0.
    pub spans: Vec<(Span, usize)>,
    /// How many lanes there are.
    pub count: usize,
}

/// Lanes for these spans, which come by their beginning. What takes a machine for hours goes on top; the tasks that share
/// GPUs share lanes, so that one sees them take turns; the short ones come last.
pub fn lanes<'a>(spans: impl Iterator<Item = &'a Span>) -> Lanes {
    let mut pools: [Pool; 4] = Default::default();
    for span in spans {
        pools[pool(span.task)].add(*span);
    }
    let mut lanes = Lanes::default();
    for pool in pools {
        let first = lanes.count;
        lanes.spans.extend(pool.spans.into_iter().map(|(span, lane)| (span, first + lane)));
        lanes.count += pool.ends.len();
    }
    lanes
}

#[derive(Debug, Default)]
struct Pool {
    spans: Vec<(Span, usize)>,
    /// When each lane is free again.
    ends: Vec<u64>,
}

impl Pool {
    /// Parts of one task stay in one lane where they follow each other; anything else takes the first free lane.
    fn add(&mut self, span: Span) {
        let same = |(other, _): &&(Span, usize)| {
            other.to == span.from && other.task == span.task && other.sector == span.sector
        };
        let before = self.spans.iter().rev().take(64).find(same).map(|(_, lane)| *lane);
        let free = || self.ends.iter().position(|end| *end <= span.from);
        let lane = before.filter(|lane| self.ends[*lane] <= span.from).or_else(free);
        let lane = lane.unwrap_or_else(|| {
            self.ends.push(0);
            self.ends.len() - 1
        });
        self.ends[lane] = span.to;
        self.spans.push((span, lane));
    }
}

fn pool(task: TaskType) -> usize {
    match task {
        TaskType::PreCommit1 => 0,
        TaskType::PreCommit2 | TaskType::Commit2 => 1,
        TaskType::AddPiece => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::timeline::Phase;

    fn span(task: TaskType, sector: u64, phase: Phase, from: u64, to: u64) -> Span {
        Span { machine: 0, task, sector, phase, from, to }
    }

    #[test]
    fn no_two_spans_meet_in_a_lane_and_sorts_stay_together() {
        let spans = [
            span(TaskType::PreCommit1, 1, Phase::Run, 0, 10),
            span(TaskType::Commit2, 7, Phase::Run, 0, 4),
            span(TaskType::PreCommit1, 2, Phase::Fetch, 5, 8),
            span(TaskType::PreCommit2, 8, Phase::Run, 4, 9),
            span(TaskType::PreCommit1, 2, Phase::Run, 8, 15),
            span(TaskType::PreCommit1, 3, Phase::Run, 10, 12),
            span(TaskType::Finalize, 9, Phase::Run, 11, 12),
        ];
        let mut sorted = spans;
        sorted.sort_by_key(|span| span.from);
        let drawn = lanes(sorted.iter());
        let lane = |sector: u64, phase: Phase| {
            let found = drawn.spans.iter().find(|(span, _)| span.sector == sector && span.phase == phase);
            found.expect("every span has a lane").1
        };
        assert_eq!(drawn.count, 4, "two for PC1, one shared by PC2 and C2, one for the short ones");
        assert_eq!(lane(2, Phase::Fetch), lane(2, Phase::Run), "one task stays in its lane");
        assert_eq!(lane(7, Phase::Run), lane(8, Phase::Run), "PC2 and C2 take turns in one");
        for (a, at) in &drawn.spans {
            for (b, other) in drawn.spans.iter().filter(|(b, _)| b != a) {
                assert!(at != other || a.to <= b.from || b.to <= a.from, "{a:?} meets {b:?}");
            }
        }
    }
}
