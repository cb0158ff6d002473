//! A manager and two workers on one disk that loses what was not synced.
#![allow(dead_code, reason = "each test target uses its part of this")]

use std::path::{Path, PathBuf};

use super::{Cut, Platter};
use crate::system::trio::{NAMES, TASKS, Trio};

/// The three, whose power is cut all at once.
pub struct Yard {
    pub trio: Trio,
    /// Beside the disk.
    pub aside: PathBuf,
    pub platter: Platter,
    /// Sectors.
    pub pledged: usize,
    /// Files and directories that were safe after the last cut.
    safe: usize,
}

impl Yard {
    pub fn new(top: &Path) -> Self {
        let (home, aside) = (top.join("home"), top.join("aside"));
        [&home, &aside].iter().for_each(|dir| std::fs::create_dir(dir).expect("a directory"));
        let platter = Platter::new(&home, &aside);
        let variables = platter.variables().map(|(name, value)| (name, value.to_owned()));
        let trio = Trio::new(&home, variables.into());
        let mut yard = Self { trio, aside, platter, pledged: 0, safe: 0 };
        yard.trio.init();
        // What `init` answered is there, and so is what the operator wrote after it.
        yard.platter.keep(&home.join(".sealyard/config.toml"));
        yard.platter.cut(Cut::Nothing);
        assert!(home.join(".sealyard/config.toml").is_file(), "init has synced the directory");
        NAMES.into_iter().for_each(|name| yard.start(name, None));
        for name in ["A", "B"] {
            // Its first life made its repo; the next one has what is written there.
            yard.trio.kill(name);
            yard.start(name, None);
        }
        yard
    }

    /// Starts a process, to die at a point, or to have its executor die there.
    pub fn start(&mut self, name: &'static str, dies: Option<&str>) {
        let of_executor = dies.filter(|point| point.starts_with("executor."));
        if name != "manager" && self.trio.home.join(name).is_dir() {
            self.executors(name, of_executor);
        }
        self.trio.start(name, dies.filter(|_| of_executor.is_none()));
    }

    /// Starts a process that stands still at a point.
    pub fn start_to_stand(&mut self, name: &'static str, wish: &str) {
        self.executors(name, None);
        self.trio.start_to_stand(name, wish);
    }

    /// A file that an operator writes, and syncs.
    pub fn write(&self, what: &str, path: &str, text: &str) {
        let path = self.trio.home.join(path);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{what}: {error}"));
        // Its name is there, so that nothing else becomes safe by this.
        self.platter.keep(&path);
    }

    /// Puts the disk under a worker's executors, which do not inherit its environment, and has one of them die.
    fn executors(&self, worker: &str, dies: Option<&str>) {
        let doomed = if worker == "A" { "pc1" } else { "pc2" };
        let section = |(_, task): (&str, &str)| {
            let variables = self.platter.variables().map(|(name, value)| format!("{name} = {value:?}\n"));
            let death = dies.filter(|_| task == doomed);
            let death = death.map(|point| format!("SEALYARD_CRASH_AT = {point:?}\n")).unwrap_or_default();
            format!("[executor.{task}.env]\n{}{death}", variables.concat())
        };
        self.write("config.toml of a worker", &format!("{worker}/config.toml"), &TASKS.map(section).concat());
    }

    /// Everything ends at once, and what was not synced is gone.
    pub fn cut(&mut self, cut: Cut) {
        self.trio.kill_all();
        assert!(self.platter.count() > self.safe, "something was synced");
        self.platter.cut(cut);
        self.safe = self.platter.count();
    }
}
