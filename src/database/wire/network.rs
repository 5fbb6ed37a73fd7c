//! Addresses and bit strings, in Postgres's binary form and as text.

use std::net::IpAddr;

use super::Reader;

/// `AF_INET` on whatever system the server runs; the next number is that of IPv6.
const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// An `inet`, without the prefix where that is the whole address; a `cidr` always with it.
pub(super) fn inet(raw: &mut Reader<'_>) -> Option<String> {
    let (family, prefix, is_cidr, length) = (raw.u8()?, raw.u8()?, raw.u8()?, raw.u8()?);
    let address = match (family, length) {
        (IPV4, 4) => IpAddr::from(raw.array::<4>()?),
        (IPV6, 16) => IpAddr::from(raw.array::<16>()?),
        _ => return None,
    };
    if is_cidr == 0 && prefix == length * 8 {
        Some(address.to_string())
    } else {
        Some(format!("{address}/{prefix}"))
    }
}

/// An `inet` or a `cidr`: without its prefix where that is the whole address, IPv6 with every
/// digit.
pub(super) fn plain(raw: &mut Reader<'_>) -> Option<String> {
    let (family, prefix, _is_cidr, length) = (raw.u8()?, raw.u8()?, raw.u8()?, raw.u8()?);
    let address = match (family, length) {
        (IPV4, 4) => std::net::Ipv4Addr::from(raw.array::<4>()?).to_string(),
        (IPV6, 16) => {
            let groups = raw.array::<16>()?;
            let groups = groups
                .chunks(2)
                .map(|two| format!("{:02x}{:02x}", two[0], two[1]));
            groups.collect::<Vec<_>>().join(":")
        }
        _ => return None,
    };
    Some(match prefix == length * 8 {
        true => address,
        false => format!("{address}/{prefix}"),
    })
}

/// Whether bits behind the prefix may be set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// An `inet`: a host in its network.
    Host,
    /// A `cidr`: the network itself.
    Whole,
}

pub(super) fn inet_from(text: &str, network: Network) -> Option<Vec<u8>> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (family, bytes) = match address {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    let length = u8::try_from(bytes.len()).ok()?;
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|c| c.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => length * 8,
    };
    let host_bits = |at: usize| match usize::from(prefix).saturating_sub(at * 8) {
        0 => 0xFF,
        bits @ 1..=7 => 0xFF >> bits,
        _ => 0,
    };
    let is_network = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| byte & host_bits(at) == 0);
    if prefix > length * 8 || (network == Network::Whole && !is_network) {
        return None;
    }
    let mut raw = vec![family, prefix, u8::from(network == Network::Whole), length];
    raw.extend(bytes);
    Some(raw)
}

/// A `macaddr` of 6 bytes, or a `macaddr8` of 8.
pub(super) fn mac(raw: &mut Reader<'_>, length: usize) -> Option<String> {
    let bytes: Vec<String> = raw
        .take(length)?
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Some(bytes.join(":"))
}

pub(super) fn mac_from(text: &str, length: usize) -> Option<Vec<u8>> {
    let byte = |text: &str| match text.bytes().all(|c| c.is_ascii_hexdigit()) && text.len() == 2 {
        true => u8::from_str_radix(text, 16).ok(),
        false => None,
    };
    let bytes: Vec<u8> = text.split([':', '-']).map(byte).collect::<Option<_>>()?;
    (bytes.len() == length).then_some(bytes)
}

/// A bit string: zeros and ones.
pub(super) fn bits(raw: &mut Reader<'_>) -> Option<String> {
    let length = usize::try_from(raw.i32()?).ok()?;
    let bytes = raw.take(length.div_ceil(8))?;
    let bit = |at: usize| {
        let set = bytes[at / 8] >> (7 - at % 8) & 1 == 1;
        if set { '1' } else { '0' }
    };
    Some((0..length).map(bit).collect())
}

pub(super) fn bits_from(text: &str) -> Option<Vec<u8>> {
    let length = i32::try_from(text.len()).ok()?;
    let mut raw = length.to_be_bytes().to_vec();
    for eight in text.as_bytes().chunks(8) {
        let mut byte = 0;
        for (at, bit) in eight.iter().enumerate() {
            match bit {
                b'0' => {}
                b'1' => byte |= 0x80 >> at,
                _ => return None,
            }
        }
        raw.push(byte);
    }
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back() {
        for text in [
            "10.1.2.3",
            "10.1.2.3/8",
            "::1",
            "2001:db8::/32",
            "fe80::1/64",
        ] {
            let raw = inet_from(text, Network::Host).unwrap();
            assert_eq!(inet(&mut Reader(&raw)).as_deref(), Some(text));
        }
        for (text, wanted) in [("10.0.0.0/9", "10.0.0.0/9"), ("10.1.2.3", "10.1.2.3/32")] {
            let raw = inet_from(text, Network::Whole).unwrap();
            assert_eq!(inet(&mut Reader(&raw)).as_deref(), Some(wanted));
        }
        for wrong in [
            "",
            "10.1",
            "10.1.2.3/33",
            "10.1.2.3/+8",
            "10.1.2.3/",
            "::1/129",
            "é",
        ] {
            assert_eq!(inet_from(wrong, Network::Host), None, "{wrong}");
        }
        assert_eq!(inet_from("10.128.0.0/8", Network::Whole), None);
        let raw = mac_from("08:00:2b:01:02:03", 6).unwrap();
        assert_eq!(
            mac(&mut Reader(&raw), 6).as_deref(),
            Some("08:00:2b:01:02:03")
        );
        for wrong in [
            "",
            "08:00:2b:01:02",
            "08:00:2b:01:02:0g",
            "08:00:2b:01:02:+1",
            "é",
        ] {
            assert_eq!(mac_from(wrong, 6), None, "{wrong}");
        }
        for text in ["", "1", "10110011", "101100111"] {
            let raw = bits_from(text).unwrap();
            assert_eq!(bits(&mut Reader(&raw)).as_deref(), Some(text));
        }
        assert_eq!(bits_from("102"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..24)) {
            let _ = (inet(&mut Reader(&raw)), bits(&mut Reader(&raw)), mac(&mut Reader(&raw), 6));
        }
    }
}
