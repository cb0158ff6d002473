//! What stands between the simulated workers and the scheduler: a network that may be late, repeat itself and change the
//! order, a clock that may stand still or jump, and a driver that may crash.

use sealtasks::AttemptId;

use super::engine::{Due, Engine};
use super::hosts::LivePhase;
use super::watch::Watch;
use super::{Scheduler, SplitMix, Trouble};
use crate::{Event, Millis, Outcome};

/// The state of the network, the clock and the luck.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) random: SplitMix,
    pub(super) noise: Noise,
    pub(super) luck: Luck,
    /// Of 1000 attempts that are called off, so many are cancelled by somebody in the same moment.
    pub(super) aborts: u64,
    skew: i64,
    frozen: Option<Millis>,
}

/// How badly word from the workers travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// Each word is late by up to this, and so they may change places.
    pub late_max: Millis,
    /// Of 1000 words so many come twice.
    pub twice: u64,
}

/// How often attempts go wrong by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Luck {
    /// Of 1000 attempts so many never begin.
    pub never_begin: u64,
    /// Of 1000 so many fail and are tried again.
    pub retry: u64,
    /// Of 1000 so many fail for good.
    pub fail: u64,
}

/// What happens to the clock that the scheduler is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrouble {
    /// It stands still.
    Stop,
    /// It goes on, and shows what it would have shown.
    GoOn,
    /// It jumps by so many milliseconds, forwards or backwards.
    Jump(i64),
}

/// How long a driver waits before it tries again what a worker never began.
const AGAIN_AFTER: Millis = Millis::new(1000);

impl Driver {
    pub(super) fn new(seed: u64) -> Self {
        let (noise, luck) = (Noise::default(), Luck::default());
        Self { random: SplitMix::new(seed), noise, luck, aborts: 0, skew: 0, frozen: None }
    }

    pub(super) fn is_aborted_too(&mut self) -> bool {
        self.aborts > 0 && self.random.below(1000) < self.aborts
    }

    fn told(&self, at: Millis) -> Millis {
        self.frozen.unwrap_or(Millis::new(at.get().saturating_add_signed(self.skew)))
    }

    /// When the clock will show this; `None`: not as long as it stands still.
    fn shows(&self, now: Millis, told: Millis) -> Option<Millis> {
        let left = told.get().saturating_sub(self.told(now).get());
        self.frozen.is_none().then_some(now.after(Millis::new(left)))
    }
}

impl<S: Scheduler, W: Watch<S>> Engine<S, W> {
    /// What the scheduler's clock shows at this instant.
    pub(super) fn told(&self, at: Millis) -> Millis {
        self.driver.told(at)
    }

    /// Has the scheduler woken when its clock shows this.
    pub(super) fn wake(&mut self, at: Millis) {
        self.wake_at = Some(at);
        if let Some(real) = self.driver.shows(self.now, at) {
            self.put(real, Due::Wake);
        }
    }

    /// Whether the scheduler's clock shows what it wanted to be woken at.
    pub(super) fn is_wake_due(&self) -> bool {
        self.wake_at.is_some_and(|at| at <= self.told(self.now))
    }

    pub(super) fn clock(&mut self, trouble: ClockTrouble) {
        match trouble {
            ClockTrouble::Stop => self.driver.frozen = Some(self.told(self.now)),
            ClockTrouble::GoOn => self.driver.frozen = None,
            ClockTrouble::Jump(by) => self.driver.skew = self.driver.skew.saturating_add(by),
        }
        if let Some(at) = self.wake_at {
            self.wake(at);
        }
    }

    /// Word from a worker, over the network.
    pub(super) fn worker_word(&mut self, event: Event) {
        let Noise { late_max, twice } = self.driver.noise;
        let late = |random: &mut SplitMix| Millis::new(random.within(0, late_max.get()));
        if twice > 0 && self.driver.random.chance(twice, 1000) {
            let at = self.now.after(late(&mut self.driver.random));
            self.put(at, Due::Word(Box::new(event.clone())));
        }
        let at =
            if late_max == Millis::ZERO { self.now } else { self.now.after(late(&mut self.driver.random)) };
        self.put(at, Due::Word(Box::new(event)));
    }

    /// How an attempt whose work is done ends.
    pub(super) fn outcome(&mut self) -> Outcome {
        let Luck { retry, fail, .. } = self.driver.luck;
        if retry + fail == 0 {
            return Outcome::Finished;
        }
        let drawn = self.driver.random.below(1000);
        if drawn < retry {
            let span = self.driver.random.within(0, 60_000);
            Outcome::Retry { not_before: self.told(self.now).after(Millis::new(span)) }
        } else if drawn < retry + fail {
            Outcome::Failed
        } else {
            Outcome::Finished
        }
    }

    /// Whether this attempt's worker never begins it.
    pub(super) fn never_begins(&mut self) -> bool {
        let odds = self.driver.luck.never_begin;
        odds > 0 && self.driver.random.chance(odds, 1000)
    }

    pub(super) fn start_failed(&mut self, attempt: AttemptId) {
        let not_before = self.told(self.now).after(AGAIN_AFTER);
        self.worker_word(Event::StartFailed { attempt, reason: "no answer".to_owned(), not_before });
    }

    /// The driver and with it the scheduler are gone. The new ones know what the durable state and the workers know.
    pub(super) fn crash(&mut self) {
        let Some(make) = &self.make else { return };
        self.scheduler = make();
        self.wake_at = None;
        let told = self.told(self.now);
        self.watch.restarted(told);
        // What workers have sent and nobody has heard is heard after the new driver has found its feet: an attempt must
        // not end before it is adopted.
        self.is_taking_over = true;
        if let Some(policy) = self.policy {
            self.word(Event::PolicySet { policy });
        }
        for (machine, caps) in self.machine_caps.clone() {
            self.word(Event::MachineCaps { machine, caps });
        }
        for path in self.files.paths() {
            self.path_word(&path);
        }
        for host in 0..self.hosts.all.len() {
            if self.hosts.all[host].alive {
                self.worker_up(host);
                self.worker_state(host);
            }
        }
        for task in self.jobs.ids() {
            self.submit_again(task);
        }
        self.is_taking_over = false;
    }

    fn submit_again(&mut self, id: sealtasks::TaskId) {
        let in_hand =
            self.hosts.live.get(&id).map(|live| (live.attempt, live.worker, live.has_slot, live.phase));
        if let Some((attempt, worker, has_slot, phase)) = in_hand {
            let is_over = matches!(phase, LivePhase::Over(_));
            // What was only staged is given up now and then, as a driver may that finds no call for it.
            let give_up = !has_slot && !is_over && self.driver.random.chance(1, 2);
            if self.hosts.all[worker].alive && !give_up {
                self.adopt(id);
                return;
            }
            if !is_over {
                let touched = self.end_silently(attempt, Outcome::Unstaged);
                self.report_paths(touched);
            }
            self.hosts.live.remove(&id);
        }
        let files = &self.files;
        let Some(task) = self.jobs.task_mut(id) else { return };
        let fresh =
            task.shape.request(task.sector, task.request.since, |kind| files.places(task.sector.id, kind));
        task.request.needs = fresh.needs;
        let request = task.request.clone();
        self.word(Event::Submit { task: id, request });
    }

    /// Everything is as it should be again, and everybody is told how it is.
    pub(super) fn heal(&mut self) {
        (self.driver.noise, self.driver.luck) = (Noise::default(), Luck::default());
        self.driver.aborts = 0;
        self.clock(ClockTrouble::GoOn);
        for machine in std::mem::take(&mut self.machine_caps).into_keys() {
            self.word(Event::MachineCaps { machine, caps: Vec::new() });
        }
        for worker in 0..self.hosts.all.len() {
            self.strike(Trouble::Pace { worker, thousandths: super::Speed::NOMINAL });
            self.strike(Trouble::Enable { worker, enabled: true });
            self.strike(Trouble::Mode { worker, mode: crate::WorkerMode::Open });
            self.strike(Trouble::Suspect { worker, suspect: false });
            let profile = Box::new(self.cluster.workers[worker].profile.clone());
            self.strike(Trouble::Profile { worker, profile });
            self.strike(Trouble::Back { worker });
        }
        self.files.heal();
        for path in self.files.paths() {
            self.path_word(&path);
        }
        for (sector, kind) in self.files.known() {
            let paths = self.files.places(sector, kind);
            self.word(Event::SectorFiles { sector, kind, paths });
        }
    }
}
