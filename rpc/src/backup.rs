//! Where a manager hands out its backups to whoever has the permission `admin`: over HTTP, for the host that is to take over.

/// `GET <route>?seen=<event>`: makes a generation and answers with its manifest, or with 204 when nothing was committed since
/// that event. `GET <route>?generation=<name>`: the manifest of that one, or 410 when it is there no longer.
pub const BACKUP_ROUTE: &str = "/sealyard/backup";

/// `GET <route>?generation=<name>&name=<file>&from=<offset>`: the bytes of one of its files, or 410.
pub const BACKUP_FILE_ROUTE: &str = "/sealyard/backup/file";

/// The longest manifest, in bytes: some 5000 files.
pub const MANIFEST_MAX: usize = 1 << 20;
