//! The caller of a request as a number, by which waiting loads take turns.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::auth::{ClientNetwork, KeyTable};
use larder_cache::Caller;

use super::access::bearer;

/// Seeds: a key and an address with the same bytes are two callers.
const KEY: u64 = 1;
const ADDRESS: u64 = 2;

/// The caller of this request: its API key if that is valid, or else its address.
pub(super) fn of(request: &HttpRequest, table: &KeyTable) -> Caller {
    let presented = request.headers().get(AUTHORIZATION).and_then(bearer);
    let by_key = |key| table.lookup(key, |record| xxh3_64_with_seed(record.id().as_bytes(), KEY));
    presented
        .and_then(by_key)
        .unwrap_or_else(|| of_address(request.peer_addr()))
}

fn of_address(peer: Option<SocketAddr>) -> Caller {
    let Some(peer) = peer else {
        return Caller::default();
    };
    match ClientNetwork::of(peer.ip()).address() {
        IpAddr::V4(address) => xxh3_64_with_seed(&address.octets(), ADDRESS),
        IpAddr::V6(address) => xxh3_64_with_seed(&address.octets(), ADDRESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_an_address_or_a_network_of_ipv6() {
        let caller = |text: &str| of_address(Some(SocketAddr::new(text.parse().unwrap(), 1)));
        assert_eq!(caller("192.0.2.1"), caller("::ffff:192.0.2.1"));
        assert_ne!(caller("192.0.2.1"), caller("192.0.2.2"));
        assert_eq!(caller("2001:db8::1"), caller("2001:db8::ffff:0:0:2"));
        assert_ne!(caller("2001:db8::1"), caller("2001:db8:0:1::1"));
    }
}
