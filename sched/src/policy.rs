//! How to choose among workers that a task fits on: the least time to move its files there, then the policy's order.
//!
//! Each policy is one comparison, of a [`Rank`]. Measured rates are compared in steps of four, so that two links of one
//! kind count as equally fast whatever their last measurements were, and the policy decides between them; the one that
//! is faster by a hair would otherwise get everything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::queue::GroupIdx;
use crate::{Millis, Policy, Refusal, Sched};

/// A worker's place among those that a group's tasks fit on now; smaller is better.
///
/// Under every policy but `random` an idle worker goes before a busy one, and among idle ones the manager's own last: so
/// no worker has several tasks while an equal one has none, whatever was given to whom in the past. Then the policy's
/// number decides, then a remote one before the manager's own, the less its system uses, the fewer types it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    tier: Tier,
    metric: u64,
    is_local: bool,
    baseline: u64,
    breadth: usize,
    pub(crate) worker: usize,
    pub(crate) speed: Speed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Idle,
    IdleLocal,
    Busy,
}

/// A rate of fetching, as a power of two of bytes per second: always odd, so that steps are factors of four. 2^27 bytes/s
/// is what a link of 1 Gbit/s reaches at most: 2^25 to 2^27 is such a link, 2^27 to 2^29 one of 2.5 Gbit/s, 2^29 to 2^31
/// one of 10 Gbit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Speed(u8);

impl Speed {
    /// The step that this many bytes per second fall into.
    fn of(bandwidth: u64) -> Self {
        let exponent = u8::try_from(bandwidth.max(2).ilog2()).unwrap_or(u8::MAX);
        Self((exponent - 1) | 1)
    }

    /// How long it takes to move this many bytes at a rate in the middle of the step, rounded up.
    pub(crate) fn time(self, bytes: u64) -> Millis {
        // Divided, rounded up, by a power of two.
        let exponent = u32::from(self.0) + 1;
        let millis = (u128::from(bytes) * 1000 + ((1 << exponent) - 1)) >> exponent;
        Millis::new(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// The workers that a group's tasks fit on now.
#[derive(Debug, Default)]
pub(crate) struct Fitting {
    /// By speed, slowest first. Entries stay when they become empty: what comes and goes is the last worker of a lane.
    lanes: BTreeMap<Speed, BTreeSet<Rank>>,
}

impl Fitting {
    pub(crate) fn insert(&mut self, rank: Rank) {
        self.lanes.entry(rank.speed).or_default().insert(rank);
    }

    pub(crate) fn remove(&mut self, rank: &Rank) {
        if let Some(lane) = self.lanes.get_mut(&rank.speed) {
            lane.remove(rank);
        }
    }

    /// The first in the policy's order.
    fn first(&self) -> Option<&Rank> {
        self.lanes.values().filter_map(BTreeSet::first).min()
    }

    /// All, in the policy's order.
    fn iter(&self) -> impl Iterator<Item = &Rank> {
        let mut lanes: Vec<_> = self.lanes.values().map(|lane| lane.iter().peekable()).collect();
        std::iter::from_fn(move || {
            let heads = lanes.iter_mut().enumerate().filter_map(|(at, lane)| Some((*lane.peek()?, at)));
            let (_, first) = heads.min()?;
            lanes[first].next()
        })
    }

    /// All, the fastest first, and in the policy's order among equally fast ones.
    fn fastest(&self) -> impl Iterator<Item = &Rank> {
        self.lanes.values().rev().flatten()
    }
}

/// The listed workers, which are in this order, and the one that is in no list.
fn merged<'a, K: Ord>(
    listed: impl Iterator<Item = &'a Rank>,
    mut apart: Option<Rank>,
    by: impl Fn(&Rank) -> K,
) -> impl Iterator<Item = Rank> {
    let mut listed = listed.peekable();
    std::iter::from_fn(move || match (listed.peek(), &apart) {
        (Some(first), Some(other)) if by(other) < by(first) => apart.take(),
        (Some(_), _) => listed.next().copied(),
        (None, _) => apart.take(),
    })
}

/// The measured rates of all workers.
#[derive(Debug, Default)]
pub(crate) struct Speeds {
    /// In bytes per second, sorted; unknown ones are missing.
    known: Vec<u64>,
}

impl Speeds {
    /// What workers are taken to fetch, in bytes per second, before any of them was measured: a network of 1 Gbit/s.
    const UNKNOWN: u64 = 125_000_000;

    fn change(&mut self, before: u64, after: u64) {
        if before > 0
            && let Ok(at) = self.known.binary_search(&before)
        {
            self.known.remove(at);
        }
        if after > 0 {
            let at = self.known.partition_point(|known| *known < after);
            self.known.insert(at, after);
        }
    }

    /// What a worker of unknown rate is taken for: the median of the known ones.
    fn typical(&self) -> u64 {
        self.known.get(self.known.len() / 2).copied().unwrap_or(Self::UNKNOWN)
    }
}

/// How many tasks were given: what the spreading policies compare, and the ticket that `random` compares.
#[derive(Debug, Default)]
pub(crate) struct Given {
    all: u64,
    /// By the group's position.
    by_group: Vec<u64>,
    /// Whoever's is the smallest is next, and draws another one that lies an exponentially distributed step after it.
    /// What remains of such a step is distributed as a new one, so that everybody is equally likely at every choice.
    ticket: u64,
}

/// Where the last worker that was chosen stood when it was.
#[derive(Debug, Default)]
pub(crate) struct Front {
    given: Given,
    draws: u64,
}

impl Given {
    fn add(&mut self, group: GroupIdx) {
        self.all = self.all.saturating_add(1);
        if self.by_group.len() <= group {
            self.by_group.resize(group + 1, 0);
        }
        self.by_group[group] = self.by_group[group].saturating_add(1);
    }

    fn of(&self, group: GroupIdx) -> u64 {
        self.by_group.get(group).copied().unwrap_or(0)
    }
}

impl Sched {
    /// From now on the workers are ordered by another rule. The spreading policies count from here.
    pub(crate) fn policy_set(&mut self, policy: Policy) -> Result<(), Refusal> {
        self.options.policy = policy;
        self.front = Front::default();
        let slots: Vec<_> = self.workers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.welcome(slot);
            self.dirty.insert(slot);
        }
        Ok(())
    }

    /// Counts one task more as given to this worker.
    pub(crate) fn note_given(&mut self, slot: usize, group: GroupIdx) {
        // The others count from where they are set.
        if matches!(self.options.policy, Policy::Utilization | Policy::SpreadQcount) {
            return;
        }
        // Not the least of all: to know that would cost a look at every worker.
        let (given, front) = (&self.workers.get(slot).given, &mut self.front.given);
        front.all = given.all;
        front.by_group.resize(front.by_group.len().max(group + 1), 0);
        front.by_group[group] = given.of(group);
        front.ticket = front.ticket.max(given.ticket);
        let ticket = self.draw_ticket();
        let given = &mut self.workers.get_mut(slot).given;
        given.add(group);
        given.ticket = ticket;
    }

    fn draw_ticket(&mut self) -> u64 {
        self.front.draws = self.front.draws.wrapping_add(1);
        self.front.given.ticket.saturating_add(exponential(mix(self.options.seed, self.front.draws)))
    }

    /// A newcomer counts as having been given what the last worker had when it was chosen, or it would be given
    /// everything until it had caught up with the others' past.
    pub(crate) fn welcome(&mut self, slot: usize) {
        let ticket = self.draw_ticket();
        let front = &self.front.given;
        let given = Given { all: front.all, by_group: front.by_group.clone(), ticket };
        self.workers.get_mut(slot).given = given;
    }

    /// The worker's measured rate is another one, or it comes (`before` 0) or goes (`after` 0).
    pub(crate) fn bandwidth_changed(&mut self, before: u64, after: u64) {
        if before != after {
            let typical = Speed::of(self.speeds.typical());
            self.speeds.change(before, after);
            if Speed::of(self.speeds.typical()) != typical {
                let unknown = self.workers.iter().filter(|(_, worker)| worker.profile.bandwidth == 0);
                self.dirty.extend(unknown.map(|(slot, _)| slot));
            }
        }
    }

    /// How many bytes per second the worker fetches, as far as is known; never 0.
    pub(crate) fn bandwidth(&self, slot: usize) -> u64 {
        match self.workers.get(slot).profile.bandwidth {
            0 => self.speeds.typical(),
            known => known,
        }
    }

    /// The best worker of those that the group's tasks fit on, in the policy's order.
    pub(crate) fn first_fitting(&self, group: GroupIdx) -> Option<Rank> {
        let listed = self.queue.groups[group].fitting.first().copied();
        listed.into_iter().chain(self.rank_apart(group)).min()
    }

    /// All of them, in the policy's order.
    pub(crate) fn all_fitting(&self, group: GroupIdx) -> impl Iterator<Item = Rank> {
        merged(self.queue.groups[group].fitting.iter(), self.rank_apart(group), |rank| *rank)
    }

    /// All of them, the fastest first, and in the policy's order among equally fast ones.
    pub(crate) fn fastest_fitting(&self, group: GroupIdx) -> impl Iterator<Item = Rank> {
        let by = |rank: &Rank| (Reverse(rank.speed), *rank);
        merged(self.queue.groups[group].fitting.fastest(), self.rank_apart(group), by)
    }

    /// The worker's place for the group's tasks, given that one more of them fits.
    pub(crate) fn rank_of(&self, slot: usize, group: GroupIdx) -> Rank {
        let worker = self.workers.get(slot);
        let baseline = self.utilization(slot);
        let (is_idle, is_local) = (worker.running.tasks() == 0, worker.profile.is_local);
        let metric = match self.options.policy {
            // An idle machine counts as used by nothing, whatever its system uses.
            Policy::Utilization if self.is_quiet(slot) => 0,
            Policy::Utilization => baseline.max(1),
            Policy::Spread => worker.given.all,
            Policy::SpreadTasks => worker.given.of(group),
            Policy::SpreadQcount => worker.bound.len() as u64,
            Policy::Random => worker.given.ticket,
        };
        let tier = match (self.options.policy, is_idle, is_local) {
            (Policy::Random, _, _) | (_, true, false) => Tier::Idle,
            (_, true, true) => Tier::IdleLocal,
            (_, false, _) => Tier::Busy,
        };
        let (breadth, speed) = (worker.profile.tasks.len(), Speed::of(self.bandwidth(slot)));
        Rank { tier, metric, is_local, baseline, breadth, worker: slot, speed }
    }
}

/// One step of the splitmix64 generator from a state that both numbers go into.
fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An exponentially distributed number from a uniformly distributed one, in units of 2^-16 of its scale. The logarithm is
/// straight between powers of two: floating-point ones differ between machines.
fn exponential(uniform: u64) -> u64 {
    let exponent = u64::from(uniform.leading_zeros().min(47));
    let mantissa = (uniform << (exponent + 1)) >> 48;
    (exponent << 16) + ((1 << 16) - mantissa)
}
