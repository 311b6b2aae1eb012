//! Where a result may be fetched from: https and public addresses only.
//!
//! A host's name is resolved once, here, and the connection goes to the very addresses that were checked, so
//! a name that answers differently the second time gains nothing. Where a proxy is configured it resolves
//! the name itself, and only what stands in the URL can be checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

use crate::domain::params::is_loopback;

/// The rules refuse an address.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// `text` as a URL that the rules allow; `loopback` where the API itself is on loopback.
pub(super) fn permitted(text: &str, loopback: bool) -> Result<Url, Refused> {
    if text.len() > super::MAX_URL {
        return Err(Refused("the URL is too long to be one".into()));
    }
    let url = Url::parse(text.trim()).map_err(|e| Refused(format!("it is no URL ({e})")))?;
    let local = is_loopback(&url);
    if local && !loopback {
        return Err(Refused("it lies on this machine".into()));
    }
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        "http" => return Err(Refused("it is http, not https".into())),
        other => {
            return Err(Refused(format!("it is {other}, not https", other = crate::domain::ids::show_text(other))));
        }
    }
    let address: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => Some(ip.into()),
        Some(Host::Ipv6(ip)) => Some(ip.into()),
        Some(Host::Domain(_)) => None,
        None => return Err(Refused("it has no host".into())),
    };
    match address {
        Some(ip) if !local && !is_public(ip) => Err(Refused(format!("{ip} is no public address"))),
        _ => Ok(url),
    }
}

/// Whether an address belongs to the public internet.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => public_v4(ip),
        IpAddr::V6(ip) => public_v6(ip),
    }
}

fn public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    // this network, private, loopback, link-local (with the clouds' metadata)
    let near = matches!((a, b), (0 | 10 | 127, _) | (172, 16..=31) | (192, 168) | (169, 254));
    // carrier-grade NAT, protocol assignments, documentation, 6to4 relays, benchmarks
    let special = matches!(
        (a, b, c),
        (100, 64..=127, _) | (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) | (198, 18 | 19, _)
    );
    // From 224 on: multicast, reserved, broadcast.
    !near && !special && a < 224
}

fn public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match segments {
        // A v4 address in disguise counts as itself: mapped, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            embedded(high, low)
        }
        // Teredo, documentation and other special uses below 2001::/23 and in 2001:db8::/32, 3fff::/20.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Only 2000::/3 is given out; loopback, ULA, link-local, site-local and multicast lie outside.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Resolves names and lets through only addresses that the rules allow.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Addresses of this machine.
    pub(super) loopback: bool,
    /// Public addresses.
    pub(super) public: bool,
    /// Names that are not checked: the proxy's.
    pub(super) exempt: Vec<String>,
}

impl Guard {
    fn allows(&self, ip: IpAddr) -> bool {
        if ip.to_canonical().is_loopback() { self.loopback } else { self.public && is_public(ip) }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if guard.exempt.iter().any(|exempt| exempt.eq_ignore_ascii_case(&name)) {
                return Ok(Box::new(found.into_iter()) as Addrs);
            }
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|at| guard.allows(at.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Refused(format!("{name} has no public address")).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let private = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:0a00:0001::1",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "fd00:ec2::254",
        ];
        for ip in private {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        for ip in public {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn urls_are_refused_by_the_rules() {
        let refused_always = [
            "",
            "picture.png",
            "/x.png",
            "ftp://a.example/x",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "http://a.example/x.png",
            "https://10.0.0.1/x",
            "https://169.254.169.254/latest",
            "https://[fd00::1]/x",
            "https://[::ffff:10.0.0.1]/",
            "https://0xa000001/",
            "https://0/x",
            "http://8.8.8.8/",
            "https://",
            "javascript:alert(1)",
        ];
        for url in refused_always {
            assert!(permitted(url, false).is_err(), "{url}");
            assert!(permitted(url, true).is_err(), "{url}");
        }
        for url in [
            "http://127.0.0.1:8/x",
            "https://localhost/x",
            "http://[::1]/",
            "http://2130706433/",
            "http://a.localhost./",
        ] {
            assert!(permitted(url, false).is_err(), "{url}");
            assert!(permitted(url, true).is_ok(), "{url}");
        }
        for url in ["https://cdn.example/x.png?y", "https://8.8.8.8/x", " https://a.example "] {
            assert!(permitted(url, false).is_ok(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_means_this_machine_is_refused_where_it_is_looked_up() {
        let name = || "localhost".parse::<Name>().unwrap();
        let public = Guard { loopback: false, public: true, exempt: vec![] };
        let error = public.resolve(name()).await.err().unwrap();
        assert!(error.is::<Refused>(), "{error}");
        let local = Guard { loopback: true, public: false, exempt: vec![] };
        assert!(local.resolve(name()).await.unwrap().count() > 0);
        let proxy = Guard { loopback: false, public: true, exempt: vec!["LOCALHOST".into()] };
        assert!(proxy.resolve(name()).await.unwrap().count() > 0);
    }
}
