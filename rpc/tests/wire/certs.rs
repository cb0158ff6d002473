//! Certificates as an operator makes them, with the openssl program.
#![allow(dead_code, reason = "each test target uses its part of this")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// From, to: long past, around now, far ahead.
pub const PAST: [&str; 2] = ["20200101000000Z", "20210101000000Z"];
pub const NOW: [&str; 2] = ["20200101000000Z", "20990101000000Z"];
pub const AHEAD: [&str; 2] = ["20900101000000Z", "20990101000000Z"];

/// An authority in a directory of its own.
pub struct Authority(PathBuf);

/// A certificate file and its key's.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
            default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n";
        std::fs::write(dir.join("ca.conf"), config).expect("written");
        std::fs::write(dir.join("index.txt"), "").expect("written");
        let authority = Self(dir.to_owned());
        authority.openssl(
            "req -x509 -nodes -keyout ca.key -out ca.pem -days 3650 -subj /CN=Authority -newkey ec \
                           -pkeyopt ec_paramgen_curve:prime256v1 -addext basicConstraints=critical,CA:TRUE",
        );
        authority
    }

    /// Its own certificate, for clients; and its key, with which it can be misused as a server.
    pub fn own(&self) -> Pair {
        Pair { certificate: self.0.join("ca.pem"), key: self.0.join("ca.key") }
    }

    /// A server's certificate for `names`, such as `DNS:localhost,IP:127.0.0.1`.
    pub fn issue(&self, file: &str, names: &str, [from, to]: [&str; 2]) -> Pair {
        let extensions = format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(self.0.join(format!("{file}.ext")), extensions).expect("written");
        self.openssl(&format!(
            "req -new -nodes -keyout {file}.key -out {file}.csr -subj /CN={file} -newkey ec -pkeyopt \
             ec_paramgen_curve:prime256v1"
        ));
        self.openssl(&format!(
            "ca -batch -notext -config ca.conf -keyfile ca.key -cert ca.pem -in {file}.csr -out {file}.pem -extfile \
             {file}.ext -startdate {from} -enddate {to}"
        ));
        Pair { certificate: self.0.join(format!("{file}.pem")), key: self.0.join(format!("{file}.key")) }
    }

    /// Runs it in the authority's directory.
    pub fn openssl(&self, args: &str) {
        let done = Command::new("openssl").args(args.split_whitespace()).current_dir(&self.0).output();
        let done = done.expect("the openssl program; Debian's package is openssl");
        assert!(done.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
