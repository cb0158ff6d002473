//! Lotus's `trySched`: every waiting task against every open window, then an assigner, then off with the filled windows.

use super::Lotus;
use super::files::Verdict;
use super::tasks::Stage;
use super::worker::{Window, WorkerIdx};
use crate::Policy;

/// A window that a task may go into, by preference: fewer task types (task selector only), less use, chance, age.
type Candidate = (usize, u64, u64, u32);

/// Per task, in queue order, its windows in order of preference.
#[derive(Debug, Default)]
struct Candidates {
    windows: Vec<u32>,
    ends: Vec<usize>,
}

/// What an assigner remembers within one cycle, per worker.
struct Loads {
    policy: Policy,
    /// `None`: not looked at yet.
    by_worker: Vec<Option<f64>>,
    /// The same per kind, for the assigners that count by kind.
    by_kind: Vec<Vec<Option<f64>>>,
}

impl Lotus {
    /// One cycle. Returns how many tasks were put into windows.
    pub fn cycle(&mut self) -> usize {
        if self.queue.is_empty() || self.open.is_empty() {
            return 0;
        }
        self.work.cycles += 1;
        self.work.pairs += self.queue.len() as u64 * self.open.len() as u64;
        let candidates = self.candidates();
        let mut windows = vec![Window::default(); self.open.len()];
        let scheduled = self.select(&candidates, &mut windows);
        for place in scheduled.iter().rev() {
            let task = self.remove_at(*place);
            self.tasks.get_mut(task).stage = Stage::Assigned;
        }
        let open = std::mem::take(&mut self.open);
        for (worker, window) in open.into_iter().zip(windows) {
            if window.todo.is_empty() {
                self.open.push(worker);
            } else {
                self.workers[worker].windows.push_back(window);
                self.dirty.insert(worker);
            }
        }
        self.work.assigned += scheduled.len() as u64;
        scheduled.len()
    }

    /// Which windows each task may go into: its worker is enabled, an empty window can hold it, the selector agrees.
    fn candidates(&mut self) -> Candidates {
        let use_of: Vec<u64> = self.workers.iter().map(|worker| bits(worker.utilization())).collect();
        let fresh = Window::default();
        let mut found = Candidates::default();
        let mut list: Vec<Candidate> = Vec::new();
        // Per worker, the round in which its first window was listed, and where.
        let mut first: Vec<(u64, usize)> = vec![(0, 0); self.workers.len()];
        let mut round = 0;
        for queued in &self.queue {
            let task = self.tasks.get(queued.task);
            let by_breadth = task.selector.is_task();
            self.draws = self.draws.wrapping_add(1);
            let seed = self.options.seed ^ mix(self.draws);
            let mut preferred = false;
            list.clear();
            round += 1;
            for (window, slot) in self.open.iter().enumerate() {
                let worker = &self.workers[*slot];
                let Some(spec) = worker.offers(task.kind) else { continue };
                if !worker.is_usable() || !fresh.fits(spec, &worker.machine, task.kind) {
                    continue;
                }
                match self.paths.verdict(&task.selector, &worker.paths) {
                    Verdict::No => continue,
                    Verdict::Ok if preferred => continue,
                    Verdict::Ok => {}
                    Verdict::Preferred if preferred => {}
                    Verdict::Preferred => {
                        list.clear();
                        round += 1;
                        preferred = true;
                    }
                }
                let breadth = if by_breadth { worker.breadth } else { 0 };
                let mut chance = mix(seed ^ window as u64);
                match first[*slot] {
                    (listed, place) if listed == round && chance < list[place].2 => {
                        // The older window of a worker goes first.
                        std::mem::swap(&mut chance, &mut list[place].2);
                    }
                    _ => first[*slot] = (round, list.len()),
                }
                list.push((breadth, use_of[*slot], chance, window as u32));
            }
            // Lotus shuffles, then sorts stably by a comparison that is no order where workers tie. This is one, and
            // leaves the same to chance.
            list.sort_unstable();
            found.windows.extend(list.iter().map(|candidate| candidate.3));
            found.ends.push(found.windows.len());
        }
        found
    }

    /// Walks the queue and fills windows. Returns the places of the tasks that found one, in order.
    fn select(&mut self, candidates: &Candidates, windows: &mut [Window]) -> Vec<usize> {
        let mut loads = Loads::new(self.options.policy, self.workers.len(), self.kinds.len());
        let mut scheduled = Vec::new();
        let mut start = 0;
        for (place, end) in candidates.ends.iter().enumerate() {
            let task = self.queue[place].task;
            let kind = self.tasks.get(task).kind;
            let mine = &candidates.windows[start..*end];
            start = *end;
            let Some(window) = self.choose(mine, windows, kind, &mut loads) else { continue };
            let slot = self.open[window];
            let worker = &self.workers[slot];
            let delta = windows[window].add((task, kind), &worker.spec(kind), &worker.machine);
            *loads.of(self, slot, kind) += if loads.policy == Policy::Utilization { delta } else { 1.0 };
            scheduled.push(place);
        }
        scheduled
    }

    fn choose(&mut self, mine: &[u32], windows: &[Window], kind: usize, loads: &mut Loads) -> Option<usize> {
        let fits = |lotus: &Self, window: usize| {
            let worker = &lotus.workers[lotus.open[window]];
            windows[window].fits(&worker.spec(kind), &worker.machine, kind)
        };
        if loads.policy == Policy::Random {
            let fitting: Vec<usize> =
                mine.iter().map(|window| *window as usize).filter(|window| fits(self, *window)).collect();
            self.draws = self.draws.wrapping_add(1);
            let draw = mix(self.options.seed ^ mix(self.draws));
            return (!fitting.is_empty()).then(|| fitting[(draw % fitting.len() as u64) as usize]);
        }
        let mut best: Option<(f64, usize)> = None;
        for window in mine.iter().map(|window| *window as usize) {
            if !fits(self, window) {
                continue;
            }
            let load = *loads.of(self, self.open[window], kind);
            match best {
                Some((least, _)) if load >= least => {
                    // The list is sorted by use, so Lotus expects nothing better after the first that is worse.
                    if loads.policy == Policy::Utilization {
                        break;
                    }
                }
                Some(_) | None => best = Some((load, window)),
            }
        }
        best.map(|(_, window)| window)
    }
}

impl Loads {
    fn new(policy: Policy, workers: usize, kinds: usize) -> Self {
        let by_kind =
            if policy == Policy::SpreadTasks { vec![vec![None; workers]; kinds] } else { Vec::new() };
        Self { policy, by_worker: vec![None; workers], by_kind }
    }

    /// What counts against a worker, filled in when it is first asked for.
    fn of(&mut self, lotus: &Lotus, slot: WorkerIdx, kind: usize) -> &mut f64 {
        let worker = &lotus.workers[slot];
        match self.policy {
            Policy::Utilization => self.by_worker[slot].get_or_insert_with(|| worker.utilization()),
            Policy::Spread | Policy::Random => self.by_worker[slot].get_or_insert(0.0),
            Policy::SpreadTasks => self.by_kind[kind][slot].get_or_insert(0.0),
            Policy::SpreadQcount => {
                self.by_worker[slot].get_or_insert_with(|| worker.task_count(None) as f64)
            }
        }
    }
}

/// Floats that are not negative, as integers of the same order.
fn bits(value: f64) -> u64 {
    value.max(0.0).to_bits()
}

/// SplitMix64's output function.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
