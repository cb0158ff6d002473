//! The time axis of a chart: where an instant lies, which ticks are drawn, how instants are written.

use std::fmt::Write as _;

use super::gantt::Window;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// Distances of ticks, in milliseconds; the smallest that leaves room for the labels is taken.
const STEPS: [u64; 13] = [
    HOUR / 4,
    HOUR / 2,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
    91 * DAY,
];

/// The least pixels between two labels.
const TICK_MIN: f64 = 76.0;

/// An axis over a window. Lengths are pixels.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// What it spans.
    pub window: Window,
    /// Where it begins.
    pub left: f64,
    /// How long it is.
    pub width: f64,
    /// Where its lines begin.
    pub top: f64,
    /// Where its lines end.
    pub bottom: f64,
    /// The first day; `None`: days are counted from 1.
    pub starts: Option<time::Date>,
}

impl Axis {
    /// Where the part of a span that is in the window lies, and how wide it is; `None`: none of it is.
    pub fn place(&self, from: u64, to: u64) -> Option<(f64, f64)> {
        let (from, to) = (from.max(self.window.from), to.min(self.window.to));
        (from < to || (from == to && from > self.window.from && from < self.window.to))
            .then(|| (self.at(from), self.at(to) - self.at(from)))
    }

    fn at(&self, instant: u64) -> f64 {
        let whole = (self.window.to - self.window.from).max(1) as f64;
        self.left + (instant - self.window.from) as f64 / whole * self.width
    }

    /// An instant in words: the day and the time to the second.
    pub fn instant(&self, at: u64) -> String {
        let (day, rest) = (at / DAY, at % DAY / 1000);
        format!("{} {:02}:{:02}:{:02}", self.day(day), rest / 3600, rest / 60 % 60, rest % 60)
    }

    fn day(&self, day: u64) -> String {
        let date =
            self.starts.and_then(|date| date.checked_add(time::Duration::days(i64::try_from(day).ok()?)));
        match date {
            Some(date) => date.to_string(),
            None => format!("day {}", day + 1),
        }
    }

    /// Lines and labels, above and below.
    pub fn draw(&self, out: &mut String) {
        let length = self.window.to - self.window.from;
        let room = (self.width / TICK_MIN).max(1.0) as u64;
        let step = STEPS.into_iter().find(|step| length / step <= room).unwrap_or(STEPS[STEPS.len() - 1]);
        let mut tick = self.window.from.div_ceil(step) * step;
        while tick <= self.window.to {
            let x = self.at(tick);
            let is_day = tick.is_multiple_of(DAY);
            let (class, label) = if is_day {
                ("day", self.day(tick / DAY))
            } else {
                ("grid", format!("{:02}:{:02}", tick % DAY / HOUR, tick % HOUR / 60_000))
            };
            // A label at the very end would be cut off by the chart's edge.
            let anchor = if self.left + self.width - x < TICK_MIN / 2.0 { "end" } else { "middle" };
            let _ = write!(
                out,
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"small{soft}\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>\
                 <text class=\"small soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>",
                self.top,
                self.bottom,
                self.top - 5.0,
                self.bottom + 16.0,
                soft = if is_day { "" } else { " soft" },
            );
            tick += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(from: u64, to: u64, starts: Option<time::Date>) -> Axis {
        Axis { window: Window { from, to }, left: 100.0, width: 1000.0, top: 0.0, bottom: 10.0, starts }
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let axis = axis(DAY, 2 * DAY, None);
        assert_eq!(axis.place(0, DAY), None);
        assert_eq!(axis.place(0, DAY + DAY / 2), Some((100.0, 500.0)));
        assert_eq!(axis.place(DAY + DAY / 2, 9 * DAY), Some((600.0, 500.0)));
        assert_eq!(axis.place(2 * DAY, 3 * DAY), None);
    }

    #[test]
    fn instants_have_dates_where_the_file_gives_one() {
        let at = 2 * DAY + 3 * HOUR + 4_000;
        assert_eq!(axis(0, DAY, None).instant(at), "day 3 03:00:04");
        let first = time::Date::from_calendar_date(2026, time::Month::February, 27).ok();
        assert_eq!(axis(0, DAY, first).instant(at), "2026-03-01 03:00:04");
    }

    #[test]
    fn ticks_are_as_close_as_labels_allow() {
        let mut drawn = String::new();
        axis(0, DAY, None).draw(&mut drawn);
        assert!(drawn.contains(">02:00<") && !drawn.contains(">01:00<"), "{drawn}");
        assert!(drawn.contains(">day 1<") && drawn.contains(">day 2<"), "{drawn}");
        let mut drawn = String::new();
        axis(0, 700 * DAY, None).draw(&mut drawn);
        assert!(drawn.matches("<line").count() < 14, "{drawn}");
    }
}
