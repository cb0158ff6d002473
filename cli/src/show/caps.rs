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
    view.caps.iter().try_for_each(|cap| line(&format!("        {}", one(cap))))?;
    let overruled: Vec<_> = view.caps.iter().filter(|cap| cap.overruled.is_some()).collect();
    if overruled.is_empty() {
        return Ok(());
    }
    let groups = overruled.iter().map(|cap| cap.group.to_string()).collect::<Vec<_>>().join(", ");
    line(&format!(
        "{name} was started with a lower limit on {groups}, which no other limit raises; start it with another `--max`"
    ))
}

/// Several limits on one line.
pub fn caps_line(caps: &[CapView]) -> String {
    caps.iter().map(one).collect::<Vec<_>>().join("  ")
}

/// `PC2+C2 1/2 (operator)`: running of limit, and who set it; yellow at the limit. `UNS 0/2 (worker; 9 by operator is without
/// effect above it)`: what was set does not hold.
fn one(cap: &CapView) -> String {
    let use_of_it = match cap.most {
        Some(most) if cap.running >= u64::from(most) => paint::yellow(&format!("{}/{most}", cap.running)),
        Some(most) => paint::green(&format!("{}/{most}", cap.running)),
        None => paint::cyan(&format!("{}, no limit", cap.running)),
    };
    let overruled = cap.overruled.as_ref().map_or_else(String::new, |set| {
        let asked = set.most.map_or_else(|| "no limit".to_owned(), |most| most.to_string());
        format!("; {asked} by {} is without effect above it", plain(&set.origin))
    });
    format!("{} {use_of_it} ({}{overruled})", cap.group, plain(&cap.origin))
}
