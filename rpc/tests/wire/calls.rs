//! What a fake was asked.

use std::fmt::Debug;
use std::sync::Mutex;

/// What was asked, in order; each as `method arguments`.
#[derive(Default)]
pub struct Calls(Mutex<Vec<String>>);

impl Calls {
    /// One more.
    pub fn add(&self, method: &str, arguments: impl Debug) {
        self.0.lock().expect("no test panicked here").push(format!("{method} {arguments:?}"));
    }

    /// Everything since the last time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no test panicked here"))
    }
}
