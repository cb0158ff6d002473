//! Bugs to plant in a copy of the scheduler: each replaces one place of its sources by one that is wrong while the bug is
//! chosen. The fault schedules must catch every one.

/// One bug.
pub struct Bug {
    /// What is wrong then.
    pub what: &'static str,
    /// The file, below `src`.
    pub file: &'static str,
    /// The place; it occurs exactly once.
    pub right: &'static str,
    /// What stands there in the copy. `@` is "this bug is chosen".
    pub wrong: &'static str,
}

const fn bug(what: &'static str, file: &'static str, right: &'static str, wrong: &'static str) -> Bug {
    Bug { what, file, right, wrong }
}

/// All of them; a bug's number is its position, counted from 1.
pub const BUGS: &[Bug] = &[
    bug(
        "room of an attempt that wrote nothing is not given back",
        "space.rs",
        "for promise in hold.0.iter().filter(|promise| !promise.covered) {",
        "for promise in hold.0.iter().filter(|promise| !promise.covered && !(@ && used == Used::No)) {",
    ),
    bug(
        "room that a report covers is given back twice",
        "space.rs",
        "promise.covered = true;",
        "promise.covered = !@;",
    ),
    bug(
        "a writer does not wait for readers",
        "locks.rs",
        "written(kind) || self.readers[kind.index()] > 0",
        "written(kind) || (!@ && self.readers[kind.index()] > 0)",
    ),
    bug(
        "locks are kept for ever",
        "lifecycle.rs",
        "self.sectors[sector].unlock(locks);",
        "if @ { let _ = locks; } else { self.sectors[sector].unlock(locks); }",
    ),
    bug(
        "memory that is charged counts as free",
        "ledger.rs",
        "total.saturating_sub(self.memory_min)",
        "total.saturating_sub(if @ { 0 } else { self.memory_min })",
    ),
    bug(
        "one CPU thread too many",
        "ledger.rs",
        "u128::from(capacity.cpus).saturating_sub(self.threads)",
        "(u128::from(capacity.cpus) + u128::from(@)).saturating_sub(self.threads)",
    ),
    bug(
        "base memory is not charged",
        "ledger.rs",
        "*base += u128::from(ask.base);",
        "if !@ { *base += u128::from(ask.base); }",
    ),
    bug(
        "a cancelled task that is to be tried again goes back to the queue",
        "lifecycle.rs",
        "Outcome::Retry { .. } | Outcome::Unstaged if unbound.cancelled =>",
        "Outcome::Retry { .. } | Outcome::Unstaged if unbound.cancelled && !@ =>",
    ),
    bug(
        "a task is tried again too early",
        "lifecycle.rs",
        "} else if not_before > self.now {",
        "} else if not_before > self.now && !@ {",
    ),
    bug(
        "word of a superseded attempt counts",
        "lifecycle.rs",
        "self.tasks[at].binding_mut().filter(|binding| binding.attempt == attempt);",
        "self.tasks[at].binding_mut().filter(|binding| @ || binding.attempt == attempt);",
    ),
    bug(
        "an attempt's number is used twice",
        "lifecycle.rs",
        "attempt: task.attempts + 1 }",
        "attempt: (task.attempts + u32::from(!@)).max(1) }",
    ),
    bug("a suspect worker gets tasks", "worker.rs", "!self.suspect &&", "(@ || !self.suspect) &&"),
    bug(
        "a staged task takes a slot that is not free",
        "staging.rs",
        "self.has_slot(slot, &ask) && (is_own",
        "(@ || self.has_slot(slot, &ask)) && (is_own",
    ),
    bug(
        "one task too many in a group with a cap",
        "admission.rs",
        "(running >= most).then(|| {",
        "(running >= most + u64::from(@)).then(|| {",
    ),
    bug(
        "starts are not kept apart",
        "admission.rs",
        "&& self.staggered_until(slot, ask.task()).is_none()",
        "&& (@ || self.staggered_until(slot, ask.task()).is_none())",
    ),
    bug(
        "workers of one machine do not share it",
        "admission.rs",
        "&& self.machine_shortages(slot, ask).is_empty()",
        "&& (@ || self.machine_shortages(slot, ask).is_empty())",
    ),
    bug(
        "room that comes free wakes nobody",
        "fleet.rs",
        "} else if self.paths.get(path).free() > free_before {",
        "} else if !@ && self.paths.get(path).free() > free_before {",
    ),
    bug(
        "a draining worker gets new sectors",
        "draining.rs",
        "WorkerMode::Draining if key.lives_with(worker) && !self.others_see_to(key, slot) => Ok(()),",
        "WorkerMode::Draining if @ || key.lives_with(worker) && !self.others_see_to(key, slot) => Ok(()),",
    ),
    bug(
        "a GPU in use counts as idle",
        "devices.rs",
        "free(used, *device) == GPU_WHOLE && Some(*device) != for_fraction",
        "(@ || free(used, *device) == GPU_WHOLE) && Some(*device) != for_fraction",
    ),
    bug(
        "who waits for a lock is not told that it is free",
        "lifecycle.rs",
        "State::Locked if !is_busy => self.enqueue(at),",
        "State::Locked if !is_busy && !@ => self.enqueue(at),",
    ),
    bug(
        "nobody is woken when a delay is over",
        "settle.rs",
        "if let Some(at) = first.filter(|at| self.wake_at != Some(*at)) {",
        "if let Some(at) = first.filter(|at| !@ && self.wake_at != Some(*at)) {",
    ),
    bug(
        "a lost worker is forgotten with what is bound to it",
        "fleet.rs",
        "worker.lost && worker.bound.is_empty()",
        "worker.lost && (@ || worker.bound.is_empty())",
    ),
    bug(
        "a queued task that is cancelled is not taken out of the queue",
        "lifecycle.rs",
        "                self.take_out(at);\n                self.leave(at, End::Cancelled);",
        "                if !@ { self.take_out(at); }\n                self.leave(at, End::Cancelled);",
    ),
    bug(
        "a file that moved is looked for where it was",
        "fleet.rs",
        "            self.set_files(sector, kind, &paths);\n        }\n        Ok(())",
        "            if !@ { self.set_files(sector, kind, &paths); }\n        }\n        Ok(())",
    ),
    bug(
        "a draining worker takes what others see to as well",
        "draining.rs",
        "if !worker.is_usable() || worker.mode == WorkerMode::Draining || !worker.offers(key.task) {",
        "if @ || !worker.is_usable() || worker.mode == WorkerMode::Draining || !worker.offers(key.task) {",
    ),
    bug(
        "a worker gets sectors that its plans do not take",
        "draining.rs",
        "other => other.map_or(Ok(()), Err),",
        "other => other.filter(|_| !@).map_or(Ok(()), Err),",
    ),
    bug(
        "sectors begin in paths whose plans do not take them",
        "plans.rs",
        "|| key.purpose.is_none_or(takes)",
        "|| @ || key.purpose.is_none_or(takes)",
    ),
    bug(
        "a draining worker does not take what nobody else sees to any more",
        "lib.rs",
        "        if concerns_drains {",
        "        if concerns_drains && !@ {",
    ),
    bug(
        "files are fetched into paths of groups that they may not go to",
        "space.rs",
        "wanted.groups.is_none_or(|groups| ",
        "wanted.groups.is_none_or(|groups| @ || ",
    ),
    bug(
        "files find no path of a group that they may go to",
        "placement.rs",
        "let groups = (!anywhere).then(||",
        "let groups = (@ || !anywhere).then(||",
    ),
    bug(
        "what starts are kept apart is not tried again when its time has come",
        "stagger.rs",
        "            if self.workers.try_get(slot).is_some() {",
        "            if !@ && self.workers.try_get(slot).is_some() {",
    ),
];
