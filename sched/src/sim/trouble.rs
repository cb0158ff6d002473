//! What goes wrong in a simulation, and what is done about it.

use sealtasks::{StorageId, TaskId};

use super::driver::{ClockTrouble, Luck, Noise};
use super::engine::{Due, Engine};
use super::hosts::LivePhase;
use super::report::SpanPhase;
use super::watch::Watch;
use super::{Scheduler, Speed};
use crate::{Event, Millis, Outcome, WorkerMode, WorkerProfile};

/// One thing that goes wrong, or is set right again. Workers are named by their position in the cluster; a trouble that
/// makes no sense when it comes (losing a lost worker) does nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// The worker is gone with all that it had in hand; its attempts end in a retry once the driver gives them up.
    Lose {
        /// Which worker.
        worker: usize,
        /// How long after the loss the driver gives up the attempts.
        grace: Millis,
    },
    /// The worker cannot be reached any more, and goes on with what it has in hand. Its attempts stay bound until it is
    /// back and they are adopted, or until `Lose` comes.
    CutOff {
        /// Which worker.
        worker: usize,
    },
    /// The worker is back in its next life. What it still has in hand is adopted.
    Back {
        /// Which worker.
        worker: usize,
    },
    /// The worker works at this many thousandths of its speed; what runs already keeps its time.
    Pace {
        /// Which worker.
        worker: usize,
        /// [`Speed::NOMINAL`] heals it.
        thousandths: u32,
    },
    /// The worker takes new tasks, or says that it does not.
    Enable {
        /// Which worker.
        worker: usize,
        /// Whether it takes them.
        enabled: bool,
    },
    /// An operator changes the worker's mode.
    Mode {
        /// Which worker.
        worker: usize,
        /// The new mode.
        mode: WorkerMode,
    },
    /// The worker falls under suspicion, or is heard again.
    Suspect {
        /// Which worker.
        worker: usize,
        /// Whether it is under suspicion.
        suspect: bool,
    },
    /// The worker offers something else.
    Profile {
        /// Which worker.
        worker: usize,
        /// All of its profile.
        profile: Box<WorkerProfile>,
    },
    /// A path is detached.
    PathGone {
        /// The path.
        path: StorageId,
    },
    /// A path is there again, with this many bytes of others on it.
    PathBack {
        /// The path.
        path: StorageId,
        /// 0 where it is as empty as our own files leave it.
        clutter: u64,
    },
    /// A path may, or may not, take new files.
    PathHealth {
        /// The path.
        path: StorageId,
        /// Whether it may.
        healthy: bool,
    },
    /// A task is cancelled: the one at this position among those that are there, counted round.
    Cancel {
        /// The position.
        nth: usize,
    },
    /// A task's priority changes.
    Priority {
        /// The position, as for `Cancel`.
        nth: usize,
        /// The new priority.
        priority: i64,
    },
    /// A task's deadline changes.
    Deadline {
        /// The position, as for `Cancel`.
        nth: usize,
        /// The new deadline.
        deadline: Option<Millis>,
    },
    /// Something runs and ends badly: the attempt at this position among those in hand, counted round.
    Fail {
        /// The position.
        nth: usize,
        /// Whether it is tried again, and how much later.
        retry: Option<Millis>,
    },
    /// The scheduler is told this, whatever the world looks like.
    Say(Box<Event>),
    /// From now on word from the workers travels so.
    Noise(Noise),
    /// From now on attempts have this luck.
    Luck(Luck),
    /// From now on, of 1000 attempts that are called off so many are cancelled in the same moment.
    Aborts(u64),
    /// The scheduler's clock misbehaves.
    Clock(ClockTrouble),
    /// The driver crashes; a new one takes over, if the engine was told how to make one.
    Crash,
    /// Everything that was ever wrong is set right, every path has more room than all files need, and everybody is told.
    Heal,
}

impl<S: Scheduler, W: Watch<S>> Engine<S, W> {
    /// Lets this go wrong then.
    pub fn trouble(&mut self, at: Millis, trouble: Trouble) {
        self.put(at, Due::Trouble(Box::new(trouble)));
    }

    pub(super) fn strike(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Lose { worker, grace } => self.lose(worker, grace),
            Trouble::CutOff { worker } => {
                self.cut_off(worker);
            }
            Trouble::Back { worker } => self.back(worker),
            Trouble::Pace { worker, thousandths } => {
                if let Some(host) = self.hosts.all.get_mut(worker) {
                    host.pace = thousandths.min(Speed::NOMINAL.saturating_mul(1000));
                }
            }
            Trouble::Enable { worker, enabled } => {
                self.change(
                    worker,
                    |host| host.enabled = enabled,
                    |key| Event::WorkerEnabled { worker: key, enabled },
                );
            }
            Trouble::Mode { worker, mode } => {
                self.change(worker, |host| host.mode = mode, |key| Event::WorkerMode { worker: key, mode });
            }
            Trouble::Suspect { worker, suspect } => {
                self.change(
                    worker,
                    |host| host.suspect = suspect,
                    |key| Event::WorkerSuspect { worker: key, suspect },
                );
            }
            Trouble::Profile { worker, profile } => {
                let told = (*profile).clone();
                self.change(
                    worker,
                    |host| host.profile = *profile,
                    |key| Event::WorkerChanged { worker: key, profile: told },
                );
            }
            Trouble::PathGone { path } => self.path_gone(path),
            Trouble::PathBack { path, clutter } => {
                self.disk(&path, |disk| (disk.is_there, disk.clutter) = (true, clutter));
            }
            Trouble::PathHealth { path, healthy } => self.disk(&path, |disk| disk.facts.healthy = healthy),
            Trouble::Cancel { nth } => self.cancel_nth(nth),
            Trouble::Priority { nth, priority } => self.priority_nth(nth, priority),
            Trouble::Deadline { nth, deadline } => self.deadline_nth(nth, deadline),
            Trouble::Fail { nth, retry } => self.fail_nth(nth, retry),
            Trouble::Say(event) => self.say(*event),
            Trouble::Noise(noise) => self.driver.noise = noise,
            Trouble::Luck(luck) => self.driver.luck = luck,
            Trouble::Aborts(odds) => self.driver.aborts = odds,
            Trouble::Clock(trouble) => self.clock(trouble),
            Trouble::Crash => self.crash(),
            Trouble::Heal => self.heal(),
        }
    }

    fn say(&mut self, event: Event) {
        if let Event::PolicySet { policy } = &event {
            self.policy = Some(*policy);
        } else if let Event::MachineCaps { machine, caps } = &event {
            self.machine_caps.insert(machine.clone(), caps.clone());
        }
        self.word(event);
    }

    fn path_gone(&mut self, path: StorageId) {
        if let Some(disk) = self.files.disk_mut(&path) {
            disk.is_there = false;
            self.word(Event::PathGone { path });
        }
    }

    fn disk(&mut self, path: &StorageId, change: impl FnOnce(&mut super::files::Disk)) {
        if let Some(disk) = self.files.disk_mut(path) {
            change(disk);
            self.path_word(path);
        }
    }

    fn cancel_nth(&mut self, nth: usize) {
        if let Some(task) = self.jobs.nth(nth) {
            self.word(Event::Cancel { task });
        }
    }

    fn priority_nth(&mut self, nth: usize, priority: i64) {
        let Some(task) = self.jobs.nth(nth) else { return };
        if let Some(state) = self.jobs.task_mut(task) {
            state.request.priority = priority;
        }
        self.word(Event::SetPriority { task, priority });
    }

    fn deadline_nth(&mut self, nth: usize, deadline: Option<Millis>) {
        let Some(task) = self.jobs.nth(nth) else { return };
        if let Some(state) = self.jobs.task_mut(task) {
            state.request.deadline = deadline;
        }
        self.word(Event::SetDeadline { task, deadline });
    }

    fn fail_nth(&mut self, nth: usize, retry: Option<Millis>) {
        let in_hand: Vec<_> =
            self.hosts.live.values().filter(|live| !live.is_over()).map(|live| live.attempt).collect();
        if let Some(attempt) = in_hand.get(nth % in_hand.len().max(1)) {
            let outcome = match retry {
                Some(span) => Outcome::Retry { not_before: self.told(self.now).after(span) },
                None => Outcome::Failed,
            };
            self.give_up(*attempt, outcome);
        }
    }

    fn change(
        &mut self,
        worker: usize,
        change: impl FnOnce(&mut super::hosts::Host),
        event: impl FnOnce(crate::WorkerKey) -> Event,
    ) {
        let Some(host) = self.hosts.all.get_mut(worker) else { return };
        change(host);
        if host.alive {
            let event = event(host.key);
            self.word(event);
        }
    }

    fn cut_off(&mut self, worker: usize) -> bool {
        let Some(host) = self.hosts.all.get_mut(worker).filter(|host| host.alive) else { return false };
        host.alive = false;
        let key = host.key;
        self.word(Event::WorkerLost { worker: key });
        true
    }

    fn lose(&mut self, worker: usize, grace: Millis) {
        self.cut_off(worker);
        let not_before = self.told(self.now);
        for attempt in self.hosts.on(worker) {
            // The machine has lost it now; the driver finds out later.
            self.end_silently(attempt, Outcome::Retry { not_before });
            let outcome = Outcome::Retry { not_before };
            self.put(self.now.after(grace), Due::Word(Box::new(Event::Ended { attempt, outcome })));
        }
    }

    fn back(&mut self, worker: usize) {
        let Some(host) = self.hosts.all.get_mut(worker).filter(|host| !host.alive) else { return };
        host.alive = true;
        host.key.generation += 1;
        self.worker_up(worker);
        self.worker_state(worker);
        for attempt in self.hosts.on(worker) {
            self.adopt(attempt.task);
        }
    }

    /// What the scheduler does not remember of a worker that is new to it.
    pub(super) fn worker_state(&mut self, worker: usize) {
        let host = &self.hosts.all[worker];
        let (key, enabled, mode, suspect) = (host.key, host.enabled, host.mode, host.suspect);
        if !enabled {
            self.word(Event::WorkerEnabled { worker: key, enabled });
        }
        if mode != WorkerMode::Open {
            self.word(Event::WorkerMode { worker: key, mode });
        }
        if suspect {
            self.word(Event::WorkerSuspect { worker: key, suspect });
        }
    }

    /// Tells the scheduler of an attempt that is in hand. It counts as running from here on: what it still fetches is
    /// part of that.
    pub(super) fn adopt(&mut self, id: TaskId) {
        let Some(live) = self.hosts.live.get(&id) else { return };
        let Some(task) = self.jobs.task(id) else { return };
        let (attempt, worker, phase) = (live.attempt, live.worker, live.phase);
        let event = Event::Adopt {
            attempt,
            worker: self.hosts.all[worker].key,
            request: task.request.clone(),
            holds: self.files.holds(attempt),
        };
        let paths: Vec<StorageId> = super::files::parts(&live.plan).map(|(path, _)| path.clone()).collect();
        if !live.has_slot && !live.is_over() {
            self.take_slot(attempt);
            if phase == LivePhase::Fetched {
                self.note_span(attempt, SpanPhase::Wait, true);
                self.work(attempt);
            }
        }
        self.word(event);
        self.report_paths(paths);
    }
}
