//! The table at the end: what was measured, its limit, and whether that was reached.

use super::Cost;

/// What a figure has to keep to.
#[derive(Clone, Copy)]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
    None,
}

pub struct Row {
    what: &'static str,
    figure: f64,
    unit: &'static str,
    limit: Limit,
}

impl Row {
    pub fn new(what: &'static str, figure: f64, unit: &'static str, limit: Limit) -> Self {
        Self { what, figure, unit, limit }
    }

    pub fn info(what: &'static str, figure: f64, unit: &'static str) -> Self {
        Self::new(what, figure, unit, Limit::None)
    }
}

/// The middle one of what the runs show.
pub fn median(runs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(of).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn print(rows: &[Row], quick: bool) {
    for Row { what, figure, unit, limit } in rows {
        let (bound, kept) = match limit {
            Limit::AtLeast(least) => (format!("at least {least}"), Some(figure >= least)),
            Limit::AtMost(most) => (format!("at most {most}"), Some(figure <= most)),
            Limit::None => (String::new(), None),
        };
        let verdict = match kept {
            Some(_) if quick => "not judged",
            Some(true) => "reached",
            Some(false) => "NOT reached",
            None => "",
        };
        println!("{what:<58} {figure:>10.2} {unit:<8} {bound:<14} {verdict}");
    }
}
