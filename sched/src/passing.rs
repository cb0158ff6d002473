//! The waiting tasks that let others pass, which `yielding` decides, set aside until the end of the settle step.
//!
//! What decides whether a task lets others pass is the same for all tasks of its group, but for a few, and stays the same
//! until something starts or is reserved or nobody of some other group is left to be tried. So the classes of a group are
//! not set aside one by one: those in front of a place in its order are. While the whole rest of the group lets others
//! pass, too, that place goes on with the place of what is tried in other groups, and nothing is done for it: what is set
//! aside when is as if every class had been tried in its turn.

use std::ops::{Bound, RangeBounds};

use crate::order::{QueueKey, Seat};
use crate::queue::{ClassIdx, Group, GroupIdx, Queue};

/// What the queue knows of those that let others pass. Empty between settle steps.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    /// What was tried last.
    tried: Option<QueueKey>,
    /// Groups of which some are set aside, or were.
    aside: Vec<GroupIdx>,
    /// Groups whose whole rest lets others pass.
    wholly: Vec<GroupIdx>,
    /// Classes that are stuck for it alone.
    one_by_one: Vec<ClassIdx>,
    /// Every class is tried in its turn, to see that it makes no difference.
    #[cfg(test)]
    pub(crate) is_one_by_one: bool,
}

impl Group {
    /// The first of its classes that is worth trying and not set aside.
    pub(crate) fn next_open(&self) -> Option<(QueueKey, ClassIdx)> {
        let next =
            self.stops.last().copied().or_else(|| self.open.first_within((self.rest, Bound::Unbounded)));
        next.map(|(seat, class)| (seat.key(self.task), class))
    }

    /// The last of these, stops or not.
    pub(crate) fn rest_last(&self) -> Option<(Seat, ClassIdx)> {
        self.open.last().filter(|(seat, _)| (self.rest, Bound::Unbounded).contains(seat))
    }
}

impl Queue {
    /// The first class to try: its type and size fits on some worker, it is worth trying and not set aside.
    pub(crate) fn next_open(&mut self) -> Option<ClassIdx> {
        let (key, class) = self.fits.iter().filter_map(|group| self.groups[group].next_open()).min()?;
        self.passing.tried = Some(key);
        Some(class)
    }

    /// The class that is tried found no worker.
    pub(crate) fn found_nothing(&mut self, class: ClassIdx) {
        self.stick(class);
        self.was_tried(self.class(class).group);
    }

    /// The class that is tried lets others pass.
    pub(crate) fn pass(&mut self, class: ClassIdx) {
        let state = self.class(class);
        let (group, head) = (state.group, state.head_seat());
        let rest = head.map_or(Bound::Unbounded, Bound::Excluded);
        self.groups[group].rest = rest;
        self.passing.aside.push(group);
        self.was_tried(group);
        // Others may have been looked at again, and it was not.
        self.groups[group].rest = rest;
    }

    /// All of the group lets others pass but these, which are in order; the last one of all is among them.
    pub(crate) fn pass_all_but(&mut self, group: GroupIdx, mut stops: Vec<(Seat, ClassIdx)>) {
        stops.reverse();
        self.groups[group].stops = stops;
        self.passing.wholly.push(group);
    }

    /// Something has changed: what was not in front of the class that is tried is looked at again.
    pub(crate) fn look_again(&mut self) {
        while let Some(group) = self.passing.wholly.pop() {
            let state = &mut self.groups[group];
            state.stops.clear();
            if let Some(tried) = &self.passing.tried {
                state.rest = tried.and_behind(state.task);
            }
        }
    }

    /// Lets all that are set aside be tried again. Returns whether there were any.
    pub(crate) fn call_those_passed(&mut self) -> bool {
        self.look_again();
        let Passing { aside, one_by_one, .. } = &mut self.passing;
        let (aside, one_by_one) = (std::mem::take(aside), std::mem::take(one_by_one));
        aside.iter().for_each(|group| self.groups[*group].rest = Bound::Unbounded);
        one_by_one.iter().for_each(|class| self.try_again(*class));
        !(aside.is_empty() && one_by_one.is_empty())
    }

    /// Who comes into the group might come in front of those set aside, and is not one of them.
    pub(crate) fn before_insert(&mut self, group: GroupIdx) {
        self.look_again();
        self.stick_aside(group);
    }

    /// Behind whoever leaves, the next one of its class is set aside if it was, wherever it stands.
    pub(crate) fn before_remove(&mut self, group: GroupIdx, seat: &Seat) {
        self.look_again();
        if !(self.groups[group].rest, Bound::Unbounded).contains(seat) {
            self.stick_aside(group);
        }
    }

    /// Some of all that is set aside are going to be tried again.
    pub(crate) fn before_unstick(&mut self) {
        self.look_again();
        while let Some(group) = self.passing.aside.pop() {
            self.stick_aside(group);
        }
    }

    /// All of the group are going to be tried again.
    pub(crate) fn before_unstick_in(&mut self, group: GroupIdx) {
        self.look_again();
        self.groups[group].rest = Bound::Unbounded;
    }

    /// Sets those of the group that are aside, aside one by one.
    fn stick_aside(&mut self, group: GroupIdx) {
        let state = &mut self.groups[group];
        let aside = match std::mem::replace(&mut state.rest, Bound::Unbounded) {
            Bound::Unbounded => return,
            Bound::Excluded(last) => (Bound::Unbounded, Bound::Included(last)),
            Bound::Included(next) => (Bound::Unbounded, Bound::Excluded(next)),
        };
        let classes: Vec<ClassIdx> = state.open.within(aside).map(|(_, class)| class).collect();
        classes.iter().for_each(|class| self.stick(*class));
        self.passing.one_by_one.extend(classes);
    }

    /// A class of this group was tried: when nobody is left to be tried there, others may do what they left to it.
    fn was_tried(&mut self, group: GroupIdx) {
        let state = &mut self.groups[group];
        let is_over = match state.stops.pop() {
            Some(_) => state.stops.is_empty(),
            None => state.next_open().is_none(),
        };
        if is_over {
            self.look_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use sealtasks::{
        AcquireMode, AttemptId, FileType, PathType, RegisteredSealProof, Resources, SectorId, SectorRef,
        SectorSize, StorageStanza, TaskId, TaskType, WorkerId,
    };

    use crate::{
        Action, Allocate, Event, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, NewFile, Options,
        Outcome, PathFacts, Request, ResourceRow, Sched, WorkerKey, WorkerProfile,
    };

    const GIB: u64 = 1 << 30;
    /// The last one is in nobody's way and behind all but the first in the queue.
    const LIGHT: usize = 4;
    const TASKS: [TaskType; LIGHT + 1] = [
        TaskType::AddPiece,
        TaskType::PreCommit1,
        TaskType::PreCommit2,
        TaskType::Commit2,
        TaskType::ProveReplicaUpdate1,
    ];
    /// What workers offer of these.
    const TRADES: [&[usize]; 6] =
        [&[0, 1, 2, 3, LIGHT], &[0, 1], &[2, 3, LIGHT], &[2], &[0, 1, 2], &[0, 1, 3, LIGHT]];
    const SOURCES: usize = 40;

    fn scheduler(trades: &[usize], is_one_by_one: bool) -> Sched {
        let mut sched = Sched::new(Options { staged_per_running: 0, ..Options::default() });
        sched.queue.passing.is_one_by_one = is_one_by_one;
        let stanza = StorageStanza { can_seal: true, can_store: true, weight: 1, ..StorageStanza::default() };
        for path in 0..=SOURCES + trades.len() {
            let facts = PathFacts::new(format!("p{path}").parse().unwrap(), &stanza, 1 << 50);
            sched.handle(Millis::ZERO, Event::PathSeen { path: facts });
        }
        for number in 0..=trades.len() {
            // The first does nothing but serve the files that are fetched. Some can take no files.
            let (tasks, paths) = match number {
                0 => (&[][..], 0..SOURCES),
                _ => (TRADES[trades[number - 1]], SOURCES + number..SOURCES + number + (number % 3).min(1)),
            };
            let profile = WorkerProfile {
                host: format!("w{number}"),
                tasks: tasks.iter().map(|task| TASKS[*task]).collect(),
                mem_physical: [260, 130, 80, 520][number % 4] * GIB,
                cpus: [32, 16, 8, 64][number % 4],
                gpus: vec!["a gpu".to_owned(); 1 + number % 3],
                caps: [(TASKS[LIGHT], 1)].into(),
                paths: paths.map(|path| format!("p{path}").parse().unwrap()).collect(),
                ..WorkerProfile::default()
            };
            sched.handle(Millis::ZERO, Event::WorkerUp { worker: key(number), profile });
            // Those of all trades come late: then there is much to decide about together.
            let enabled = number == 0 || trades[number - 1] > 0;
            sched.handle(Millis::ZERO, Event::WorkerEnabled { worker: key(number), enabled });
        }
        sched
    }

    fn key(number: usize) -> WorkerKey {
        WorkerKey { session: WorkerId(uuid::Uuid::from_u128(number as u128)), generation: 0 }
    }

    /// A task by its number: type, size, source, priority, and how long it has waited.
    fn request(number: u64, trades: usize, now: u64) -> Request {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let of = |most: u64, shift: u32| (mixed >> shift) % most;
        let size = [SectorSize::GiB32, SectorSize::GiB64][of(2, 0) as usize];
        let task = TASKS[of(TASKS.len() as u64, 12) as usize];
        let is_tied = of(if task == TaskType::PreCommit1 { 2 } else { 9 }, 3) == 0;
        let place = if is_tied { SOURCES as u64 + 1 + of(trades as u64, 7) } else { of(SOURCES as u64, 7) };
        let file = HeldFile {
            kind: FileType::Unsealed,
            bytes: size.bytes(),
            held_by: vec![format!("p{place}").parse().unwrap()],
        };
        let rule = if is_tied { ExistingRule::Here } else { ExistingRule::Fetch(PathType::Sealing) };
        let existing = Existing { rule, mode: AcquireMode::Copy, files: vec![file] };
        Request {
            sector: SectorRef {
                id: SectorId::new(1000, number),
                proof: RegisteredSealProof::for_new_sector(size),
            },
            task,
            purpose: None,
            avoid: None,
            priority: [0, 0, 0, 1024][of(4, 16) as usize],
            needs: Needs { existing: Some(existing).filter(|_| is_tied || of(3, 26) > 0), allocate: None },
            locks: Locks::default(),
            since: Millis::new(now - if of(6, 20) == 0 { 50_000_000 } else { 0 }),
            wait_limit: Some(Millis::new(if of(12, 22) == 0 { 0 } else { 90_000_000 })),
            deadline: None,
            attempts: 0,
        }
    }

    /// What is done about an event.
    fn told(sched: &mut Sched, now: u64, event: Event, running: &mut VecDeque<AttemptId>) -> Vec<Action> {
        sched.handle(Millis::new(now), event);
        let mut all = Vec::new();
        while let Some(action) = sched.poll_action() {
            match &action {
                Action::Start(to) | Action::Stage(to) => running.push_back(to.attempt),
                _ => {}
            }
            all.push(action);
        }
        all
    }

    const FIRST: u64 = 100;

    /// Which of these that wait get the one worker that becomes free. It does PreCommit1, PreCommit2 and Commit2; three others do
    /// PreCommit2 alone and three the other two, and all have work. Each worker has memory for one task.
    fn taker(waiting: &[Request], is_one_by_one: bool) -> Vec<u64> {
        let mut sched = scheduler(&[], is_one_by_one);
        let (labels, trees, snark) = (TASKS[1], TASKS[2], TASKS[3]);
        let others = [vec![trees], vec![snark, labels]].map(|tasks| vec![tasks; 3]).concat();
        let mut running = VecDeque::new();
        for (number, tasks) in [vec![labels, trees, snark]].into_iter().chain(others).enumerate() {
            let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
            let memory = 40 * GIB;
            let resources = Resources {
                min_memory: memory,
                max_memory: memory,
                max_parallelism: 1,
                ..Resources::default()
            };
            let first = tasks[0];
            let profile = WorkerProfile {
                resources: tasks.iter().map(|task| ResourceRow { task: *task, proof, resources }).collect(),
                tasks,
                mem_physical: 64 * GIB,
                cpus: 16,
                ..WorkerProfile::default()
            };
            told(&mut sched, 1, Event::WorkerUp { worker: key(1 + number), profile }, &mut running);
            let (task, request) = (TaskId::new(number as u64), plain(first, 0, 0));
            told(&mut sched, 1, Event::Submit { task, request }, &mut running);
            assert_eq!(running.len(), number + 1);
        }
        for (number, request) in (FIRST..).zip(waiting) {
            let (task, request) = (TaskId::new(number), request.clone());
            told(&mut sched, 1, Event::Submit { task, request }, &mut running);
        }
        let attempt = running.pop_front().expect("the first worker runs something");
        running.clear();
        told(&mut sched, 1, Event::Ended { attempt, outcome: Outcome::Finished }, &mut running);
        running.iter().map(|attempt| attempt.task.get() - FIRST).collect()
    }

    /// A task without files; those of different miners are of different classes.
    fn plain(task: TaskType, miner: u64, priority: i64) -> Request {
        let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
        Request {
            sector: SectorRef { id: SectorId::new(miner, task as u64), proof },
            task,
            purpose: None,
            avoid: None,
            priority,
            needs: Needs::default(),
            locks: Locks::default(),
            since: Millis::new(1),
            wait_limit: None,
            deadline: None,
            attempts: 0,
        }
    }

    /// PreCommit2 lets PreCommit1 pass, for which there is no path. Those behind it, of which all but the last were set
    /// aside together with the first, have their turn from where that is found out.
    #[test]
    fn those_set_aside_for_somebody_who_cannot_start_go_on_behind_him() {
        let file = NewFile { kind: FileType::Sealed, bytes: GIB };
        let allocate = Some(Allocate { path_type: PathType::Sealing, files: vec![file] });
        let needs = Needs { existing: None, allocate };
        let labels = Request { needs, ..plain(TASKS[1], 9, 1024) };
        let mut waiting = vec![plain(TASKS[2], 1, 1024), labels];
        waiting.extend((2..5).map(|miner| plain(TASKS[2], miner, 0)));
        assert_eq!([false, true].map(|is_one_by_one| taker(&waiting, is_one_by_one)), [[2], [2]]);
    }

    /// Commit2 lets PreCommit2 pass, which lets PreCommit1 pass: when all of PreCommit2 are set aside, Commit2 goes on.
    #[test]
    fn those_set_aside_for_others_that_are_set_aside_go_on_behind_the_last_of_them() {
        let mut waiting = vec![plain(TASKS[3], 1, 1024)];
        waiting.extend((1..4).map(|miner| plain(TASKS[2], 10 + miner, 1024)));
        waiting.extend((2..5).map(|miner| plain(TASKS[3], miner, 0)));
        waiting.push(plain(TASKS[1], 20, 0));
        assert_eq!([false, true].map(|is_one_by_one| taker(&waiting, is_one_by_one)), [[4], [4]]);
    }

    proptest! {
        /// Whole groups that are set aside at once, beside classes that are tried one by one.
        #[test]
        fn what_is_set_aside_together_is_what_would_be_one_by_one(
            trades in prop::collection::vec(0..TRADES.len(), 2..9),
            tasks in 4..60_u64,
            steps in prop::collection::vec((0..16_u8, 0..50_u64), 1..200),
        ) {
            let mut pair = [scheduler(&trades, false), scheduler(&trades, true)];
            let mut running = [VecDeque::new(), VecDeque::new()];
            let mut submitted = 0;
            let mut now = 120_000_000;
            let mut both = |now: u64, event: &Event, running: &mut [VecDeque<AttemptId>; 2]| {
                let [one, other] = &mut pair;
                let one = told(one, now, event.clone(), &mut running[0]);
                (one, told(other, now, event.clone(), &mut running[1]))
            };
            for (step, number) in steps {
                let mut events = Vec::new();
                match step {
                    _ if submitted < tasks || step < 6 => {
                        let more = if submitted == 0 { tasks } else { number % 4 };
                        events.extend((submitted..submitted + more).map(|task| Event::Submit {
                            task: TaskId::new(task),
                            request: request(task, trades.len(), now),
                        }));
                        submitted += more;
                    }
                    6 => events.push(Event::Cancel { task: TaskId::new(number) }),
                    7 => now += number * 50_000,
                    8..=11 => {
                        let worker = key(1 + number as usize % trades.len());
                        events.push(Event::WorkerEnabled { worker, enabled: step > 8 });
                    }
                    _ => {}
                }
                if events.is_empty() && let Some(attempt) = running[0].pop_front() {
                    running[1].pop_front();
                    events.push(Event::Ended { attempt, outcome: Outcome::Finished });
                }
                for event in events {
                    let (one, other) = both(now, &event, &mut running);
                    prop_assert_eq!(one, other);
                }
            }
        }
    }
}
