//! Which GPUs a task gets. A fraction of a GPU is a fraction of one named device, never of two: whole devices come from
//! the idle ones, and the fraction goes to the fullest device that it fits on, so that idle ones stay whole.

use crate::GpuShare;
use crate::few::Few;

/// One whole GPU, in the ledger's unit.
pub(crate) const GPU_WHOLE: u64 = 1000;

/// What is left of a device; devices never used may be missing at the end of `used`.
pub(crate) fn free(used: &[u64], device: usize) -> u64 {
    GPU_WHOLE.saturating_sub(used.get(device).copied().unwrap_or(0))
}

/// Whether [`fitting`] finds any, without making a list of them.
pub(crate) fn fits(used: &[u64], gpu: u64, devices: usize) -> bool {
    let (whole, fraction) = (gpu / GPU_WHOLE, gpu % GPU_WHOLE);
    let left = |device: usize| free(used, device);
    let emptiest_last = (0..devices).map(left).filter(|left| *left >= fraction).min();
    let idle = (0..devices).filter(|device| left(*device) == GPU_WHOLE).count() as u64;
    match fraction {
        0 => whole <= idle,
        // The fraction takes an idle device only where no other has room for it.
        _ => emptiest_last.is_some_and(|left| whole + u64::from(left == GPU_WHOLE) <= idle),
    }
}

/// The shares of `gpu` thousandths on `devices` devices of which `used` is taken; `None`: it does not fit.
pub(crate) fn fitting(used: &[u64], gpu: u64, devices: usize) -> Option<Few<GpuShare>> {
    let (whole, fraction) = (gpu / GPU_WHOLE, gpu % GPU_WHOLE);
    if whole > devices as u64 {
        return None;
    }
    let for_fraction = match fraction {
        0 => None,
        _ => {
            let fitting = (0..devices).filter(|device| free(used, *device) >= fraction);
            Some(fitting.min_by_key(|device| free(used, *device))?)
        }
    };
    let idle =
        (0..devices).filter(|device| free(used, *device) == GPU_WHOLE && Some(*device) != for_fraction);
    let mut shares: Few<_> =
        idle.take(whole as usize).map(|device| GpuShare { device, thousandths: GPU_WHOLE }).collect();
    if (shares.len() as u64) < whole {
        return None;
    }
    shares.extend(for_fraction.map(|device| GpuShare { device, thousandths: fraction }));
    Some(shares)
}

/// As [`fitting`], but when nothing fits the emptiest devices take what is asked, as far as there are devices: an adopted
/// task is there all the same.
pub(crate) fn forced(used: &[u64], gpu: u64, devices: usize) -> Few<GpuShare> {
    fitting(used, gpu, devices).unwrap_or_else(|| {
        let mut emptiest: Vec<usize> = (0..devices).collect();
        emptiest.sort_by_key(|device| used.get(*device).copied().unwrap_or(0));
        let mut left = gpu;
        let mut take = |device| {
            let thousandths = left.min(GPU_WHOLE);
            left -= thousandths;
            GpuShare { device, thousandths }
        };
        emptiest.into_iter().map(&mut take).filter(|share| share.thousandths > 0).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_what_can_be_picked() {
        let levels = [0, 250, 500, 1000];
        for (a, b, c) in
            levels.iter().flat_map(|a| levels.map(|b| (*a, b))).flat_map(|(a, b)| levels.map(|c| (a, b, c)))
        {
            for gpu in [0, 100, 500, 750, 1000, 1250, 1500, 2000, 2750, 3000, 3001] {
                let used = [a, b, c];
                assert_eq!(fits(&used, gpu, 3), fitting(&used, gpu, 3).is_some(), "{gpu} beside {used:?}");
            }
        }
    }
}
