//! What fault schedules went through: events, actions, faults, and the ways of tasks from place to place. A run that
//! never saw one of these has shown nothing about it.

use std::collections::BTreeMap;

use sealtasks::TaskId;

use super::model::{Held, Model};
use super::schedule::FaultKind;
use crate::{Action, End, Event, Outcome, Snapshot, Stage};

/// Counts over one schedule or many.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// Schedules.
    pub schedules: u64,
    /// Faults that were struck, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    events: BTreeMap<&'static str, u64>,
    actions: BTreeMap<&'static str, u64>,
    ways: [[u64; Place::ALL.len()]; Place::ALL.len()],
    /// Events that made no sense and were refused.
    pub refused: u64,
    /// Drivers that crashed.
    pub restarts: u64,
    /// The fewest events of any schedule.
    pub events_min: u64,
    places: BTreeMap<TaskId, Place>,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Not yet here.
    New,
    /// In the queue.
    Ready,
    /// Behind another task of its sector.
    Locked,
    /// Not to be tried yet.
    Delayed,
    /// A worker is kept for it.
    Reserved,
    /// On a worker, its inputs on their way.
    Fetching,
    /// On a worker, its inputs there.
    Fetched,
    /// Called off.
    Unstaging,
    /// In its slot.
    Running,
    /// Gone, done.
    Finished,
    /// Gone, failed for good.
    Failed,
    /// Gone, cancelled.
    Cancelled,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::New,
        Self::Ready,
        Self::Locked,
        Self::Delayed,
        Self::Reserved,
        Self::Fetching,
        Self::Fetched,
        Self::Unstaging,
        Self::Running,
        Self::Finished,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The ways that a run must have seen.
    pub const WAYS: &'static [(Self, Self)] = &[
        (Self::New, Self::Ready),
        (Self::New, Self::Locked),
        (Self::New, Self::Running),
        (Self::New, Self::Fetching),
        (Self::New, Self::Reserved),
        (Self::Ready, Self::Locked),
        (Self::Ready, Self::Reserved),
        (Self::Ready, Self::Fetching),
        (Self::Ready, Self::Running),
        (Self::Ready, Self::Cancelled),
        (Self::Locked, Self::Ready),
        (Self::Locked, Self::Reserved),
        (Self::Locked, Self::Fetching),
        (Self::Locked, Self::Running),
        (Self::Locked, Self::Cancelled),
        (Self::Delayed, Self::Ready),
        (Self::Delayed, Self::Locked),
        (Self::Delayed, Self::Reserved),
        (Self::Delayed, Self::Fetching),
        (Self::Delayed, Self::Running),
        (Self::Delayed, Self::Cancelled),
        (Self::Reserved, Self::Ready),
        (Self::Reserved, Self::Locked),
        (Self::Reserved, Self::Running),
        (Self::Reserved, Self::Cancelled),
        (Self::Fetching, Self::Fetched),
        (Self::Fetching, Self::Unstaging),
        (Self::Fetching, Self::Delayed),
        (Self::Fetching, Self::Running),
        (Self::Fetching, Self::Failed),
        (Self::Fetching, Self::Cancelled),
        (Self::Fetched, Self::Running),
        (Self::Fetched, Self::Unstaging),
        (Self::Fetched, Self::Delayed),
        (Self::Fetched, Self::Failed),
        (Self::Fetched, Self::Cancelled),
        (Self::Unstaging, Self::Ready),
        (Self::Unstaging, Self::Cancelled),
        (Self::Running, Self::Ready),
        (Self::Running, Self::Delayed),
        (Self::Running, Self::Finished),
        (Self::Running, Self::Failed),
        (Self::Running, Self::Cancelled),
    ];
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            schedules: 0,
            faults: FaultKind::ALL.iter().map(|kind| (*kind, 0)).collect(),
            events: EVENTS.iter().map(|name| (*name, 0)).collect(),
            actions: ACTIONS.iter().map(|name| (*name, 0)).collect(),
            ways: [[0; Place::ALL.len()]; Place::ALL.len()],
            refused: 0,
            restarts: 0,
            events_min: u64::MAX,
            places: BTreeMap::new(),
        }
    }
}

const EVENTS: [&str; 25] = [
    "submit",
    "cancel",
    "set priority",
    "set deadline",
    "worker up",
    "worker changed",
    "worker lost",
    "worker enabled",
    "worker mode",
    "worker suspect",
    "machine caps",
    "policy set",
    "path seen",
    "path gone",
    "sector files",
    "started",
    "stage done",
    "ended: finished",
    "ended: failed",
    "ended: retry",
    "ended: unstaged",
    "start failed",
    "adopt",
    "tick",
    "any",
];

const ACTIONS: [&str; 10] = [
    "start",
    "stage",
    "run",
    "unstage",
    "abort",
    "left: finished",
    "left: failed",
    "left: cancelled",
    "refused",
    "wake at",
];

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Submit { .. } => "submit",
        Event::Cancel { .. } => "cancel",
        Event::SetPriority { .. } => "set priority",
        Event::SetDeadline { .. } => "set deadline",
        Event::WorkerUp { .. } => "worker up",
        Event::WorkerChanged { .. } => "worker changed",
        Event::WorkerLost { .. } => "worker lost",
        Event::WorkerEnabled { .. } => "worker enabled",
        Event::WorkerMode { .. } => "worker mode",
        Event::WorkerSuspect { .. } => "worker suspect",
        Event::MachineCaps { .. } => "machine caps",
        Event::PolicySet { .. } => "policy set",
        Event::PathSeen { .. } => "path seen",
        Event::PathGone { .. } => "path gone",
        Event::SectorFiles { .. } => "sector files",
        Event::Started { .. } => "started",
        Event::StageDone { .. } => "stage done",
        Event::Ended { outcome: Outcome::Finished, .. } => "ended: finished",
        Event::Ended { outcome: Outcome::Failed, .. } => "ended: failed",
        Event::Ended { outcome: Outcome::Retry { .. }, .. } => "ended: retry",
        Event::Ended { outcome: Outcome::Unstaged, .. } => "ended: unstaged",
        Event::StartFailed { .. } => "start failed",
        Event::Adopt { .. } => "adopt",
        Event::Tick => "tick",
    }
}

fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Start(_) => "start",
        Action::Stage(_) => "stage",
        Action::Run { .. } => "run",
        Action::Unstage { .. } => "unstage",
        Action::Abort { .. } => "abort",
        Action::Left { end: End::Finished, .. } => "left: finished",
        Action::Left { end: End::Failed, .. } => "left: failed",
        Action::Left { end: End::Cancelled, .. } => "left: cancelled",
        Action::Refused { .. } => "refused",
        Action::WakeAt { .. } => "wake at",
    }
}

impl Coverage {
    pub(super) fn event(&mut self, event: &Event) {
        *self.events.entry(event_name(event)).or_default() += 1;
        *self.events.entry("any").or_default() += 1;
    }

    pub(super) fn action(&mut self, action: &Action) {
        *self.actions.entry(action_name(action)).or_default() += 1;
    }

    pub(super) fn moved(&mut self, task: TaskId, to: Place) {
        let from = self.places.insert(task, to).unwrap_or(Place::New);
        if from != to {
            self.ways[from as usize][to as usize] += 1;
        }
    }

    pub(super) fn left(&mut self, task: TaskId, end: End) {
        let to = match end {
            End::Finished => Place::Finished,
            End::Failed => Place::Failed,
            End::Cancelled => Place::Cancelled,
        };
        self.moved(task, to);
        self.places.remove(&task);
    }

    pub(super) fn forget_places(&mut self) {
        self.places.clear();
    }

    /// Notes where every task is now.
    pub(super) fn sample(&mut self, snapshot: &Snapshot, model: &Model) {
        for queued in &snapshot.queue {
            self.moved(queued.task, Place::Ready);
        }
        for queued in &snapshot.waiting {
            let is_delayed = model.tasks.get(&queued.task).is_some_and(
                |task| matches!(task.place, Held::Waiting { not_before } if not_before > model.now),
            );
            let place = match (queued.reserved, is_delayed) {
                (Some(_), _) => Place::Reserved,
                (None, true) => Place::Delayed,
                (None, false) => Place::Locked,
            };
            self.moved(queued.task, place);
        }
        for bound in &snapshot.bound {
            let place = match bound.stage {
                Stage::Fetching => Place::Fetching,
                Stage::Fetched => Place::Fetched,
                Stage::Unstaging => Place::Unstaging,
                Stage::Running => Place::Running,
            };
            self.moved(bound.attempt.task, place);
        }
    }

    /// Adds what another run saw.
    pub fn add(&mut self, other: &Self) {
        fn sum<K: Ord + Copy>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            from.iter().for_each(|(key, count)| *into.entry(*key).or_default() += count);
        }
        self.schedules += other.schedules;
        sum(&mut self.faults, &other.faults);
        sum(&mut self.events, &other.events);
        sum(&mut self.actions, &other.actions);
        for (into, from) in self.ways.iter_mut().flatten().zip(other.ways.iter().flatten()) {
            *into += from;
        }
        self.refused += other.refused;
        self.restarts += other.restarts;
        self.events_min = self.events_min.min(other.events_min);
    }

    /// Events in all.
    pub fn events(&self) -> u64 {
        self.events.get("any").copied().unwrap_or(0)
    }

    /// Every count with its name, in groups: faults, events, actions, ways of tasks that must be seen.
    pub fn rows(&self) -> Vec<(&'static str, String, u64)> {
        let faults = self.faults.iter().map(|(kind, count)| ("fault", kind.name().to_owned(), *count));
        let events = self.events.iter().filter(|(name, _)| **name != "any");
        let events = events.map(|(name, count)| ("event", (*name).to_owned(), *count));
        let actions = self.actions.iter().map(|(name, count)| ("action", (*name).to_owned(), *count));
        let ways = Place::WAYS.iter().map(|(from, to)| {
            ("way", format!("{from:?} to {to:?}"), self.ways[*from as usize][*to as usize])
        });
        faults.chain(events).chain(actions).chain(ways).collect()
    }

    /// Ways that were seen and need not be, for whoever completes the table.
    pub fn other_ways(&self) -> Vec<(Place, Place, u64)> {
        let pairs = Place::ALL.iter().flat_map(|from| Place::ALL.iter().map(move |to| (*from, *to)));
        let counted = pairs.map(|(from, to)| (from, to, self.ways[from as usize][to as usize]));
        counted.filter(|(from, to, count)| *count > 0 && !Place::WAYS.contains(&(*from, *to))).collect()
    }
}
