//! The few multiaddrs that Lotus puts into API info and `api` files: `/ip4/127.0.0.1/tcp/2345/http` and its kin.
//! Knows only ip4, ip6, dns, dns4, dns6, tcp, http, https, ws, wss and tls; anything else is an error that says so.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A host, a TCP port, and whether TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiaddr {
    host: Host,
    port: u16,
    /// The components after the port, as written: `http`, `ws`, `wss`, `https`, `tls`.
    tail: Vec<Tail>,
}

impl Multiaddr {
    /// The address of a plain HTTP server, with the `/http` that a manager writes.
    pub fn http(address: SocketAddr) -> Self {
        Self { tail: vec![Tail::Http], ..Self::tcp(address) }
    }

    /// The bare address, as a worker writes it.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port(), tail: Vec::new() }
    }

    /// The IP address, if the host is one and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Dns(..) => None,
        }
    }

    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is spoken there.
    pub fn tls(&self) -> bool {
        self.tail.iter().any(|tail| matches!(tail, Tail::Wss | Tail::Https | Tail::Tls))
    }

    /// `host:port`, with brackets around an IPv6 address: what a URL and a dialler take.
    pub fn authority(&self) -> String {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).to_string(),
            Host::Dns(_, name) => format!("{name}:{}", self.port),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    /// The component's name (`dns`, `dns4`, `dns6`) and the host's.
    Dns(&'static str, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Http,
    Https,
    Ws,
    Wss,
    Tls,
}

impl Tail {
    const ALL: [Self; 5] = [Self::Http, Self::Https, Self::Ws, Self::Wss, Self::Tls];

    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for Multiaddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => write!(f, "/ip4/{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "/ip6/{ip}")?,
            Host::Dns(kind, name) => write!(f, "/{kind}/{name}")?,
        }
        write!(f, "/tcp/{}", self.port)?;
        self.tail.iter().try_for_each(|tail| write!(f, "/{}", tail.name()))
    }
}

impl FromStr for Multiaddr {
    type Err = MultiaddrError;

    fn from_str(text: &str) -> Result<Self, MultiaddrError> {
        let bad = |detail: &str| MultiaddrError {
            text: text.chars().take(TEXT_MAX).collect(),
            detail: detail.chars().take(TEXT_MAX).collect(),
        };
        let mut parts = text.strip_prefix('/').ok_or_else(|| bad("it does not begin with '/'"))?.split('/');
        let kind = parts.next().unwrap_or_default();
        let mut value = |of: &str| {
            parts
                .next()
                .filter(|value| !value.is_empty())
                .ok_or_else(|| bad(&format!("nothing follows {of}")))
        };
        let host = match kind {
            "ip4" => {
                let ip: Ipv4Addr = value("ip4")?.parse().map_err(|_| bad("ip4 is no IPv4 address"))?;
                Host::Ip(ip.into())
            }
            "ip6" => {
                let ip: Ipv6Addr = value("ip6")?.parse().map_err(|_| bad("ip6 is no IPv6 address"))?;
                Host::Ip(ip.into())
            }
            "dns" => Host::Dns("dns", host_name(value("dns")?).map_err(|detail| bad(&detail))?),
            "dns4" => Host::Dns("dns4", host_name(value("dns4")?).map_err(|detail| bad(&detail))?),
            "dns6" => Host::Dns("dns6", host_name(value("dns6")?).map_err(|detail| bad(&detail))?),
            other => return Err(bad(&format!("{other:?} is no known way to name a host"))),
        };
        if value("the host")? != "tcp" {
            return Err(bad("the host must be followed by tcp"));
        }
        let port = value("tcp")?.parse().map_err(|_| bad("the tcp port is no number from 0 to 65535"))?;
        let tail_of = |part: &str| {
            let known = Tail::ALL.into_iter().find(|tail| tail.name() == part);
            known.ok_or_else(|| bad(&format!("{part:?} is no known protocol over tcp")))
        };
        Ok(Self { host, port, tail: parts.map(tail_of).collect::<Result<_, _>>()? })
    }
}

/// A refused text is repeated in the error up to this many characters.
const TEXT_MAX: usize = 200;

/// Letters, digits, dots, hyphens and underscores: nothing that could change the meaning of a URL.
fn host_name(name: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.len() <= 253 && name.bytes().all(allowed) {
        Ok(name.to_owned())
    } else {
        Err(format!("{name:?} is no host name"))
    }
}

/// A text that is no multiaddr of the known kinds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no usable address: {detail}; expected for example /ip4/10.0.0.1/tcp/2345/http, with ip4, ip6 or dns, and http, https, ws, wss or tls after the port"
)]
pub struct MultiaddrError {
    /// The text as given, cut to 200 characters.
    pub text: String,
    /// What is wrong.
    pub detail: String,
}
