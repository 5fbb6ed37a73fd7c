//! Addresses and bit strings: Postgres's binary format and text.

use std::net::IpAddr;

use super::reader::Reader;

/// The families on the wire: `PGSQL_AF_INET` and `PGSQL_AF_INET6` of Postgres's `inet.h`.
const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// An address, the length of its prefix, and whether it is a `cidr`.
fn read(raw: &mut Reader<'_>) -> Option<(IpAddr, u8, bool)> {
    let (family, prefix, is_cidr, length) = (raw.u8()?, raw.u8()?, raw.u8()?, raw.u8()?);
    let address = match (family, length) {
        (IPV4, 4) => IpAddr::from(raw.array::<4>()?),
        (IPV6, 16) => IpAddr::from(raw.array::<16>()?),
        _ => return None,
    };
    Some((address, prefix, is_cidr != 0))
}

/// The prefix that is a whole address.
fn whole_prefix(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// An `inet` without its prefix if that is the whole address. A `cidr` always has its prefix.
pub(super) fn decode_inet(raw: &mut Reader<'_>) -> Option<String> {
    let (address, prefix, is_cidr) = read(raw)?;
    Some(match !is_cidr && prefix == whole_prefix(&address) {
        true => address.to_string(),
        false => format!("{address}/{prefix}"),
    })
}

/// One text for an `inet` and a `cidr` that are equal: without the prefix if that is the whole
/// address, and IPv6 with every digit.
pub(super) fn canonical_inet(raw: &mut Reader<'_>) -> Option<String> {
    let (address, prefix, _) = read(raw)?;
    let text = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:04x}"));
            groups.join(":")
        }
    };
    Some(match prefix == whole_prefix(&address) {
        true => text,
        false => format!("{text}/{prefix}"),
    })
}

/// Whether bits after the prefix may be set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HostBits {
    /// In an `inet`, which is a host in its network.
    Allowed,
    /// In a `cidr`, which is a network.
    Refused,
}

pub(super) fn encode_inet(text: &str, host_bits: HostBits) -> Option<Vec<u8>> {
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
    let mask = |at: usize| match usize::from(prefix).saturating_sub(at * 8) {
        0 => 0xFF,
        bits @ 1..=7 => 0xFF >> bits,
        _ => 0,
    };
    let is_network = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| byte & mask(at) == 0);
    let is_cidr = host_bits == HostBits::Refused;
    if prefix > length * 8 || (is_cidr && !is_network) {
        return None;
    }
    let mut raw = vec![family, prefix, u8::from(is_cidr), length];
    raw.extend(bytes);
    Some(raw)
}

/// A `macaddr` of 6 bytes, or a `macaddr8` of 8.
pub(super) fn decode_mac(raw: &mut Reader<'_>, length: usize) -> Option<String> {
    let bytes: Vec<String> = raw
        .take(length)?
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Some(bytes.join(":"))
}

pub(super) fn encode_mac(text: &str, length: usize) -> Option<Vec<u8>> {
    let byte = |text: &str| match text.bytes().all(|c| c.is_ascii_hexdigit()) && text.len() == 2 {
        true => u8::from_str_radix(text, 16).ok(),
        false => None,
    };
    let bytes: Vec<u8> = text.split([':', '-']).map(byte).collect::<Option<_>>()?;
    (bytes.len() == length).then_some(bytes)
}

/// A bit string: zeros and ones.
pub(super) fn decode_bits(raw: &mut Reader<'_>) -> Option<String> {
    let length = usize::try_from(raw.i32()?).ok()?;
    let bytes = raw.take(length.div_ceil(8))?;
    let bit = |at: usize| {
        let set = bytes[at / 8] >> (7 - at % 8) & 1 == 1;
        if set { '1' } else { '0' }
    };
    Some((0..length).map(bit).collect())
}

pub(super) fn encode_bits(text: &str) -> Option<Vec<u8>> {
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
            let raw = encode_inet(text, HostBits::Allowed).unwrap();
            assert_eq!(decode_inet(&mut Reader(&raw)).as_deref(), Some(text));
        }
        for (text, expected) in [("10.0.0.0/9", "10.0.0.0/9"), ("10.1.2.3", "10.1.2.3/32")] {
            let raw = encode_inet(text, HostBits::Refused).unwrap();
            assert_eq!(decode_inet(&mut Reader(&raw)).as_deref(), Some(expected));
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
            assert_eq!(encode_inet(wrong, HostBits::Allowed), None, "{wrong}");
        }
        assert_eq!(encode_inet("10.128.0.0/8", HostBits::Refused), None);
        let raw = encode_mac("08:00:2b:01:02:03", 6).unwrap();
        assert_eq!(
            decode_mac(&mut Reader(&raw), 6).as_deref(),
            Some("08:00:2b:01:02:03")
        );
        for wrong in [
            "",
            "08:00:2b:01:02",
            "08:00:2b:01:02:0g",
            "08:00:2b:01:02:+1",
            "é",
        ] {
            assert_eq!(encode_mac(wrong, 6), None, "{wrong}");
        }
        for text in ["", "1", "10110011", "101100111"] {
            let raw = encode_bits(text).unwrap();
            assert_eq!(decode_bits(&mut Reader(&raw)).as_deref(), Some(text));
        }
        assert_eq!(encode_bits("102"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..24)) {
            let _ = (decode_inet(&mut Reader(&raw)), decode_bits(&mut Reader(&raw)));
            let _ = (decode_mac(&mut Reader(&raw), 6), canonical_inet(&mut Reader(&raw)));
        }
    }
}
