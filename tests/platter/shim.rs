//! A library that is put under a process (`LD_PRELOAD`): whatever it syncs below a directory is kept as of that moment, so
//! that a test can take away everything else. Built by the test with `rustc`.
//!
//! Only fsync and fdatasync are looked at: what was written, renamed or deleted shows in the files themselves. A way to
//! sync that is not one of the two keeps nothing, which a test takes for a loss.

#[allow(dead_code)]
#[path = "record.rs"]
mod record;

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The next library's symbol of that name (`RTLD_NEXT`).
const NEXT: *mut c_void = -1_isize as *mut c_void;

/// # Safety
/// As fsync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if keep(fd) { 0 } else { unsafe { real(c"fsync".as_ptr(), fd) } }
}

/// # Safety
/// As fdatasync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    if keep(fd) { 0 } else { unsafe { real(c"fdatasync".as_ptr(), fd) } }
}

unsafe fn real(name: *const c_char, fd: c_int) -> c_int {
    let found = unsafe { dlsym(NEXT, name) };
    assert!(!found.is_null(), "the C library has neither");
    let call: extern "C" fn(c_int) -> c_int = unsafe { std::mem::transmute(found) };
    call(fd)
}

/// Whether it is ours to keep, and is kept. The disk itself need not do anything then.
fn keep(fd: c_int) -> bool {
    let (Some(root), Some(kept)) = (std::env::var_os(record::ROOT), std::env::var_os(record::KEPT)) else {
        return false;
    };
    let open = PathBuf::from(format!("/proc/self/fd/{fd}"));
    if !std::fs::read_link(&open).is_ok_and(|path| path.starts_with(&root)) {
        return false;
    }
    let kept = Path::new(&kept);
    let done = record::turn(kept).and_then(|_turn| record::keep(&open, kept));
    if let Err(error) = done {
        // A record that lacks something would be taken for a fault of who is tested.
        eprintln!("the platter cannot keep {open:?}: {error}");
        std::process::abort();
    }
    true
}
