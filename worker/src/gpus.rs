//! Which GPUs there are, and how an executor is told which of them are its own.
//!
//! The order is that of the PCI bus, as CUDA counts with `CUDA_DEVICE_ORDER=PCI_BUS_ID`. Where `CUDA_VISIBLE_DEVICES` is
//! set for the worker, only the devices that it names count, in its order. No driver library is loaded.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use rpc::extension::GpuShare;

use crate::environment::Environment;
use crate::resources::read;

/// Which devices a process sees; read by CUDA and by NVIDIA's OpenCL.
pub(crate) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// How devices are counted.
const ORDER: &str = "CUDA_DEVICE_ORDER";
/// Most GPUs looked for.
const GPUS_MAX: usize = 64;

/// The models of the NVIDIA GPUs whose driver is loaded and that `visible` (the variable's value) names.
pub(crate) fn names(root: &Path, visible: Option<&str>) -> Vec<String> {
    let cards = cards(root);
    let Some(visible) = visible else { return cards.into_iter().map(|card| card.model).collect() };
    let named = |token: &str| match token.parse::<usize>() {
        Ok(position) => cards.get(position),
        Err(_) => cards.iter().find(|card| !token.is_empty() && card.uuid.starts_with(token)),
    };
    // As CUDA has it: the first that means nothing ends the list.
    visible.split(',').map_while(|token| named(token.trim())).map(|card| card.model.clone()).collect()
}

/// The variables by which an executor sees exactly the devices it was given; none where it was given none.
pub(crate) fn variables(shares: &[GpuShare], environment: &Environment) -> Vec<(OsString, OsString)> {
    if shares.is_empty() {
        return Vec::new();
    }
    let visible = environment.get(OsStr::new(VISIBLE)).and_then(|list| list.to_str());
    let tokens: Option<Vec<&str>> = visible.map(|list| list.split(',').map(str::trim).collect());
    let token = |share: &GpuShare| match &tokens {
        Some(tokens) => tokens.get(share.device).map(|token| (*token).to_owned()),
        None => Some(share.device.to_string()),
    };
    let list: Vec<String> = shares.iter().filter_map(token).collect();
    let mut variables = vec![(VISIBLE.into(), list.join(",").into())];
    if !environment.contains_key(OsStr::new(ORDER)) {
        variables.push((ORDER.into(), "PCI_BUS_ID".into()));
    }
    variables
}

struct Card {
    model: String,
    uuid: String,
}

fn cards(root: &Path) -> Vec<Card> {
    let Ok(entries) = fs::read_dir(root.join("proc/driver/nvidia/gpus")) else { return Vec::new() };
    let mut cards: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    cards.sort();
    let card = |card: &PathBuf| {
        let text = read(&card.join("information"))?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim().to_owned())
        };
        Some(Card { model: value("Model:")?, uuid: value("GPU UUID:").unwrap_or_default() })
    };
    cards.iter().take(GPUS_MAX).filter_map(card).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let cards = [
            ("0000:41:00.0", "Model: \t\t NVIDIA B\nIRQ: 1\nGPU UUID: \t GPU-bbbb-1\n"),
            ("0000:01:00.0", "Model: \t\t NVIDIA A\nGPU UUID: \t GPU-aaaa-1\n"),
            ("0000:81:00.0", "Model: \t\t NVIDIA C\n"),
        ];
        for (bus, text) in cards {
            let card = root.path().join("proc/driver/nvidia/gpus").join(bus);
            fs::create_dir_all(&card).unwrap();
            fs::write(card.join("information"), text).unwrap();
        }
        root
    }

    #[test]
    fn gpus_are_named_in_bus_order_as_far_as_they_are_visible() {
        let root = machine();
        let named = |visible: Option<&str>| names(root.path(), visible).join(" ");
        assert_eq!(named(None), "NVIDIA A NVIDIA B NVIDIA C");
        assert_eq!(named(Some("2, 0")), "NVIDIA C NVIDIA A");
        assert_eq!(named(Some("GPU-bbbb")), "NVIDIA B");
        assert_eq!(named(Some("1,7,0")), "NVIDIA B", "what means nothing ends the list");
        assert_eq!(named(Some("")), "");
        assert!(names(Path::new("/nonexistent"), None).is_empty());
    }

    #[test]
    fn an_executor_sees_the_devices_it_was_given_and_no_others() {
        let told = |shares: &[usize], environment: &[(&str, &str)]| {
            let shares: Vec<_> =
                shares.iter().map(|device| GpuShare { device: *device, thousandths: 500 }).collect();
            let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
            let pair = |(name, value): (OsString, OsString)| {
                format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
            };
            variables(&shares, &environment).into_iter().map(pair).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[], &[]), "");
        assert_eq!(told(&[0, 2], &[]), "CUDA_VISIBLE_DEVICES=0,2 CUDA_DEVICE_ORDER=PCI_BUS_ID");
        let restricted = [("CUDA_VISIBLE_DEVICES", "3, GPU-aaaa"), ("CUDA_DEVICE_ORDER", "FASTEST_FIRST")];
        assert_eq!(told(&[1], &restricted), "CUDA_VISIBLE_DEVICES=GPU-aaaa");
    }
}
