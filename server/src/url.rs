//! Addresses as flags and clients write them: `http://host:port`.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use thiserror::Error;

/// `http://host:port`: a host name or an address, and a port; no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    host: String,
    port: u16,
}

/// Why a text is not such a URL.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// Not of the form.
    #[error("`{0}` is not of the form http://host:port")]
    Form(String),
    /// TLS is not there yet.
    #[error("`{0}` asks for TLS, which this version does not speak: use http://")]
    Tls(String),
    /// The port is not a number from 0 to 65535.
    #[error("`{0}` has no port between 0 and 65535")]
    Port(String),
}

impl Url {
    /// The URL of an address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }

    /// The host: a name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The addresses that the host stands for, IPv4 first: a client that tries both finds that one everywhere.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<SocketAddr> =
            (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        addresses.sort();
        addresses.dedup();
        Ok(addresses)
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// Whether the host is this machine and no other can mean it. Of names only `localhost` is known to be.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// Whether the host is *every interface*, which nobody can connect to.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.host.parse().is_ok_and(|address: IpAddr| address.is_unspecified())
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.starts_with("https://") {
            return Err(UrlError::Tls(text.into()));
        }
        let form = || UrlError::Form(text.into());
        let rest = text.strip_prefix("http://").ok_or_else(form)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or_else(form)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_not_an_address| form())?.to_string()
            }
            None if host.is_empty() || host.contains([':', '/', '@', '?', '#', ' ', ',']) => {
                return Err(form());
            }
            None => host.to_ascii_lowercase(),
        };
        let port = port.parse().map_err(|_not_a_number| UrlError::Port(text.into()))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_in_one_form() {
        for (text, shown) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://LocalHost:1/", "http://localhost:1"),
            ("http://[::1]:0", "http://[::1]:0"),
            ("http://[0:0::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_only_this_machine_reaches_is_told() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        for (text, is_loopback) in [
            ("http://localhost:1", true),
            ("http://127.0.0.2:1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1:1", false),
            ("http://0.0.0.0:1", false),
            ("http://n1:1", false),
        ] {
            assert_eq!(url(text).is_loopback(), is_loopback, "{text}");
        }
        assert_eq!(url("http://[fe80::1]:1").with_port(2).to_string(), "http://[fe80::1]:2");
    }

    #[test]
    fn what_is_no_url_is_refused_and_named() {
        for text in ["", "http://", "host:1", "http://host", "http://:1", "http://a:b:1"] {
            assert_eq!(text.parse::<Url>(), Err(UrlError::Form(text.into())), "{text}");
        }
        assert!(matches!("http://[x]:1".parse::<Url>(), Err(UrlError::Form(_))));
        assert!(matches!("https://a:1".parse::<Url>(), Err(UrlError::Tls(_))));
        assert!(matches!("http://a:65536".parse::<Url>(), Err(UrlError::Port(_))));
        assert!(matches!("http://a:1/path".parse::<Url>(), Err(UrlError::Port(_))));
    }
}
