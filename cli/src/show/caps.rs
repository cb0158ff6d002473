//! `workers caps`: limits beside their use; also a line of `workers list`.

use rpc::operator::{CapView, CapsView};

use super::{line, paint, plain};
use crate::exit::Outcome;

/// Prints the limits of one worker or machine.
pub fn print_caps(view: &CapsView) -> Outcome {
    let (name, what) = (plain(&view.name), if view.machine { "machine" } else { "worker" });
    if view.caps.is_empty() {
        return line(&format!("{what} {name} has no limits; `sealyard workers caps {name} PC1=3` sets one"));
    }
    line(&format!("{what} {name}:"))?;
    view.caps.iter().try_for_each(|cap| line(&format!("        {}", one(cap))))
}

/// Several limits on one line.
pub fn caps_line(caps: &[CapView]) -> String {
    caps.iter().map(one).collect::<Vec<_>>().join("  ")
}

/// `PC2+C2 1/2 (operator)`: running of limit, and who set it; yellow at the limit.
fn one(cap: &CapView) -> String {
    let use_of_it = match cap.most {
        Some(most) if cap.running >= u64::from(most) => paint::yellow(&format!("{}/{most}", cap.running)),
        Some(most) => paint::green(&format!("{}/{most}", cap.running)),
        None => paint::cyan(&format!("{}, no limit", cap.running)),
    };
    format!("{} {use_of_it} ({})", cap.group, plain(&cap.origin))
}
