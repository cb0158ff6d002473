//! The peer in `tests/go`, built once: Lotus's own published code. Where Go or its modules are not to be had it is left
//! out, and says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use super::{run_within, text};

/// Modules that are not here yet come over the network, from the module proxy.
const MODULES_MAX: Duration = Duration::from_secs(300);
/// A first build compiles a thousand packages: two minutes of one core.
const BUILD_MAX: Duration = Duration::from_secs(900);

/// The program; `None` where it is left out.
pub fn peer() -> Option<&'static Path> {
    static PEER: OnceLock<Option<PathBuf>> = OnceLock::new();
    PEER.get_or_init(build).as_deref()
}

#[expect(clippy::print_stderr, reason = "whoever reads the test's output must see what was left out")]
fn build() -> Option<PathBuf> {
    let left_out = |why: &str| {
        eprintln!("LEFT OUT: the peer of Lotus's own code: {why}");
        None
    };
    if Command::new("go").arg("version").output().is_err() {
        return left_out("Go is not installed");
    }
    // Of all that Go does here only this needs the network, when the modules are not in its cache.
    let modules = go(&["list", "-deps", "-f", "{{.ImportPath}}", "."], MODULES_MAX);
    if !modules.status.success() {
        let said = text(&modules.stderr);
        let ours =
            ["updates to go.mod needed", "missing go.sum entry"].iter().any(|fault| said.contains(fault));
        assert!(!ours, "tests/go names its modules wrongly:\n{said}");
        return left_out(said.lines().last().unwrap_or("its modules are not to be had"));
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lotus-peer");
    let built = go(&["build", "-o", program.to_str().expect("a path in UTF-8"), "."], BUILD_MAX);
    assert!(built.status.success(), "tests/go does not build:\n{}", text(&built.stderr));
    Some(program)
}

/// With the versions of `go.mod` and `go.sum` and the Go that is installed, whatever the environment says.
fn go(args: &[&str], bound: Duration) -> Output {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/go");
    let mut command = Command::new("timeout");
    // Past its bound it is as if it had failed, rather than the end of the test.
    command.arg(bound.as_secs().to_string()).arg("go").args(args).current_dir(source);
    command
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "1");
    run_within(&mut command, bound + Duration::from_secs(30))
}
