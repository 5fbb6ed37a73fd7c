//! UUIDs as text: 32 digits, with hyphens or without.

pub(super) fn from(text: &str) -> Option<[u8; 16]> {
    let digits = text.replace('-', "");
    // By itself `from_str_radix` would take a sign.
    if digits.len() != 32 || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}

pub(super) fn text(bytes: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_go_both_ways() {
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        assert_eq!(text(from(uuid).unwrap()), uuid);
        assert_eq!(text([0; 16]), "00000000-0000-0000-0000-000000000000");
        for wrong in [
            "",
            "6ba7b810",
            "6ba7b810-9dad-11d1-80b4-00c04fd430cg",
            "+ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "é",
        ] {
            assert_eq!(from(wrong), None, "{wrong}");
        }
    }
}
