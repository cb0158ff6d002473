//! Which machine a worker runs on, so that several workers of one machine are known to share it. Never: what the machine
//! has; see `resources`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rpc::extension::MachineIdentity;

use crate::resources::{limiting_group, read};

/// Equal in every container on one running kernel and on no other. A machine id is not: images are copied with it.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// Separates this digest from others of the same id.
const CONTEXT: &str = "sealyard worker machine identity v1";

/// Digits of the digest that are told: enough that no two machines of a fleet have the same.
const DIGITS: usize = 16;

/// The machine this process runs on, called `name` by people. `None` where the kernel does not tell. A control group with
/// a limit on memory, such as a container's, counts as a machine of its own: what it may use is set apart from the rest.
pub fn identity(name: &str) -> Option<MachineIdentity> {
    identity_at(Path::new("/"), name)
}

/// The machine that the operator says it is: workers that are told the same name share one, wherever they run.
pub fn named(name: &str) -> MachineIdentity {
    MachineIdentity { id: format!("named:{name}"), name: name.to_owned() }
}

fn identity_at(root: &Path, name: &str) -> Option<MachineIdentity> {
    let boot = read(&root.join(BOOT_ID))?;
    let boot = boot.trim();
    if boot.is_empty() {
        return None;
    }
    // The boot id itself is nobody else's business: programs derive secrets from such ids.
    // A group's inode number is its own as long as the kernel runs, and the same from inside and outside of a container.
    let group = limiting_group(root).and_then(|group| std::fs::metadata(group).ok()).map(|group| group.ino());
    let place = group.map_or_else(|| boot.to_owned(), |group| format!("{boot} {group}"));
    let digest = blake3::derive_key(CONTEXT, place.as_bytes());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).take(DIGITS / 2).collect();
    Some(MachineIdentity { id: digits, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_its_boot_and_does_not_tell_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(identity_at(root.path(), "a"), None, "no kernel that tells");
        let file = root.path().join(BOOT_ID);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "53c1dd9a-0d36-4b8e-9f1c-000000000001\n").unwrap();
        let first = identity_at(root.path(), "a").unwrap();
        assert_eq!(identity_at(root.path(), "b").unwrap().id, first.id, "whatever it is called");
        assert!(first.id.len() == DIGITS && !first.id.contains("53c1dd9a"), "{}", first.id);
        std::fs::write(&file, "53c1dd9a-0d36-4b8e-9f1c-000000000002\n").unwrap();
        assert_ne!(identity_at(root.path(), "a").unwrap().id, first.id);
        std::fs::write(&file, "53c1dd9a-0d36-4b8e-9f1c-000000000001\n").unwrap();
        let group = |path: &str, limit: &str| {
            let dir = root.path().join("sys/fs/cgroup").join(path);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("memory.max"), limit).unwrap();
            std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
            std::fs::write(root.path().join("proc/self/cgroup"), format!("0::/{path}\n")).unwrap();
            identity_at(root.path(), "a").unwrap().id
        };
        let (one, other) = (group("one", "4096\n"), group("other", "4096\n"));
        assert!(one != other && one != first.id, "each of two limited groups is a machine of its own");
        assert_eq!(group("other/inner", "max\n"), other, "what is within one shares it");
        assert_eq!(group("free", "max\n"), first.id, "a group without a limit shares the host");
        assert_ne!(named("a").id, first.id);
    }
}
