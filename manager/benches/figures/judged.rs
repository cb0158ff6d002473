//! How large figures are made, and whether they keep to their limits.

/// How large the figures are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As the goals are stated.
    Whole,
    /// A corner, so that the program stays alive.
    Quick,
}

impl Size {
    /// `--quick` makes them small, and so does what is no benchmark: a test run.
    pub(crate) fn asked(arguments: &[String]) -> Self {
        let has = |word: &str| arguments.iter().any(|argument| argument == word);
        if has("--quick") || !has("--bench") { Self::Quick } else { Self::Whole }
    }
}

pub(crate) const fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "NOT reached" }
}
