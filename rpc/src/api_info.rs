//! API info: the one string, `TOKEN:ADDRESS`, by which a worker or an operator's command finds a manager
//! (`MINER_API_INFO`). Reads no environment and no file; see [`crate::repo_files`].

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::multiaddr::{Multiaddr, MultiaddrError};

/// How to speak JSON-RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One POST per call, as Lotus's workers and miners do.
    Http,
    /// One websocket for all calls, as Sealyards do among themselves.
    Ws,
}

/// A manager's or worker's address and the token to use there. `Debug` does not show the token; `Display` does, since
/// that is the form to paste.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiInfo {
    /// The token; without one only `read` methods work.
    pub token: Option<String>,
    /// Where.
    pub address: ApiAddress,
}

/// An address in either of the forms that Lotus accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// For example `/ip4/127.0.0.1/tcp/2345/http`.
    Multiaddr(Multiaddr),
    /// For example `http://miner:2345`.
    Url(Url),
}

impl ApiInfo {
    /// The JSON-RPC endpoint, `/rpc/v0` included, with the scheme that `transport` needs.
    ///
    /// # Errors
    /// The address does not make a URL, which only a damaged one does not.
    pub fn rpc_url(&self, transport: Transport) -> Result<Url, ApiInfoError> {
        with_scheme(&self.url_with("/rpc/v0", &["/rpc/v0"])?, transport)
    }

    /// A full node's JSON-RPC endpoint, `/rpc/v1` included, and how to speak there: websocket to a multiaddr and to
    /// ws and wss, as Lotus does; POST to http and https.
    ///
    /// # Errors
    /// As for [`Self::rpc_url`].
    pub fn full_node(&self) -> Result<(Url, Transport), ApiInfoError> {
        let url = self.url_with("/rpc/v1", &["/rpc/v1", "/rpc/v0"])?;
        let post =
            matches!(&self.address, ApiAddress::Url(given) if matches!(given.scheme(), "http" | "https"));
        let transport = if post { Transport::Http } else { Transport::Ws };
        Ok((with_scheme(&url, transport)?, transport))
    }

    /// The address with this path. Operators paste it with one of the `known` paths, too; Lotus would append a second.
    fn url_with(&self, path: &str, known: &[&str]) -> Result<Url, ApiInfoError> {
        match &self.address {
            ApiAddress::Multiaddr(address) => {
                let scheme = if address.tls() { "https" } else { "http" };
                let text = format!("{scheme}://{}{path}", address.authority());
                Url::parse(&text).map_err(|_| ApiInfoError::Url { text, detail: "it does not parse" })
            }
            ApiAddress::Url(base) => {
                let given = base.path().trim_end_matches('/');
                let before = known.iter().find_map(|known| given.strip_suffix(known)).unwrap_or(given);
                let mut url = base.clone();
                url.set_path(&format!("{before}{path}"));
                Ok(url)
            }
        }
    }

    /// `host:port` to open a TCP connection to, for example to learn the local address of the route to a manager.
    pub fn dial_address(&self) -> String {
        match &self.address {
            ApiAddress::Multiaddr(address) => address.authority(),
            ApiAddress::Url(url) => {
                let port = url.port_or_known_default().unwrap_or(80);
                format!("{}:{port}", url.host_str().unwrap_or_default())
            }
        }
    }
}

/// The same URL with the scheme that `transport` needs; TLS stays TLS.
///
/// # Errors
/// The scheme is none of http, https, ws and wss.
pub fn with_scheme(url: &Url, transport: Transport) -> Result<Url, ApiInfoError> {
    let bad = |detail| ApiInfoError::Url { text: url.as_str().chars().take(200).collect(), detail };
    let scheme = match (url.scheme(), transport) {
        ("http" | "ws", Transport::Http) => "http",
        ("http" | "ws", Transport::Ws) => "ws",
        ("https" | "wss", Transport::Http) => "https",
        ("https" | "wss", Transport::Ws) => "wss",
        _ => return Err(bad("the scheme must be http, https, ws or wss")),
    };
    let mut changed = url.clone();
    changed.set_scheme(scheme).map_err(|()| bad("its scheme cannot be changed"))?;
    Ok(changed)
}

impl FromStr for ApiInfo {
    type Err = ApiInfoError;

    /// `TOKEN:ADDRESS`, or `ADDRESS` alone. Of several separated by commas the first is taken, as Lotus does.
    fn from_str(text: &str) -> Result<Self, ApiInfoError> {
        let first = text.split(',').next().unwrap_or_default().trim();
        if first.is_empty() {
            return Err(ApiInfoError::Empty);
        }
        if first.starts_with('/') {
            return Ok(Self { token: None, address: first.parse()? });
        }
        match first.split_once(':') {
            Some((_, rest)) if rest.starts_with("//") => Ok(Self { token: None, address: first.parse()? }),
            Some((token, address)) => {
                let token = if token.is_empty() { None } else { Some(token.to_owned()) };
                Ok(Self { token, address: address.parse()? })
            }
            None => Err(ApiInfoError::NoAddress),
        }
    }
}

impl FromStr for ApiAddress {
    type Err = ApiInfoError;

    fn from_str(text: &str) -> Result<Self, ApiInfoError> {
        if text.starts_with('/') {
            return Ok(Self::Multiaddr(text.parse()?));
        }
        let bad = |detail| ApiInfoError::Url { text: text.chars().take(200).collect(), detail };
        let mut url = Url::parse(text)
            .map_err(|_| bad("expected a multiaddr or a URL such as http://10.0.0.1:2345"))?;
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            return Err(bad("the scheme must be http, https, ws or wss"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self::Url(url))
    }
}

impl fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multiaddr(address) => address.fmt(f),
            Self::Url(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

impl fmt::Display for ApiInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(token) = &self.token {
            write!(f, "{token}:")?;
        }
        self.address.fmt(f)
    }
}

impl fmt::Debug for ApiInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "with a token" } else { "without a token" };
        write!(f, "ApiInfo({}, {token})", self.address)
    }
}

/// A text that is no API info. Never repeats the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiInfoError {
    /// Nothing there.
    #[error("the API info is empty; expected <token>:<address>, as `sealyard auth api-info` prints it")]
    Empty,
    /// A token alone, or something else without a colon.
    #[error("the API info has no address; expected <token>:<address>, as `sealyard auth api-info` prints it")]
    NoAddress,
    /// The multiaddr is no good.
    #[error(transparent)]
    Multiaddr(#[from] MultiaddrError),
    /// The URL is no good.
    #[error("{text:?} is no usable address: {detail}")]
    Url {
        /// The text as given, cut to 200 characters.
        text: String,
        /// What is wrong.
        detail: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FULLNODE_API_INFO` in every form that Lotus's operators have it in.
    #[test]
    fn full_nodes_are_found_at_their_first_version() {
        let cases = [
            ("eyJ.a.b:/ip4/10.0.0.1/tcp/1234/http", "ws://10.0.0.1:1234/rpc/v1", Transport::Ws, true),
            ("/dns/node/tcp/443/wss", "wss://node/rpc/v1", Transport::Ws, false),
            ("eyJ.a.b:http://node:1234", "http://node:1234/rpc/v1", Transport::Http, true),
            ("eyJ.a.b:https://node/lotus/rpc/v1/", "https://node/lotus/rpc/v1", Transport::Http, true),
            ("eyJ.a.b:wss://api.node.io/rpc/v0", "wss://api.node.io/rpc/v1", Transport::Ws, true),
            ("a:http://first:1/,b:http://second:2", "http://first:1/rpc/v1", Transport::Http, true),
        ];
        for (text, url, transport, token) in cases {
            let info: ApiInfo = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let (found, how) = info.full_node().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((found.as_str(), how, info.token.is_some()), (url, transport, token), "{text}");
        }
        for bad in ["", "token", "eyJ.a.b:/ip4/10.0.0.1/udp/1234", "eyJ.a.b:ftp://node", "eyJ.a.b:http://"] {
            assert!(bad.parse::<ApiInfo>().is_err(), "{bad}");
        }
    }
}
