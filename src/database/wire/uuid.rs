//! UUIDs as Postgres reads them.

use ::uuid::Uuid;

/// Reads a UUID in the spellings that Postgres accepts: 32 hexadecimal digits of either case, with
/// a hyphen after any group of four digits, and braces around the whole. `None` for anything else.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    let bare = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let groups = || bare.split('-');
    if groups().any(|group| group.is_empty() || group.len() % 4 != 0) {
        return None;
    }
    let digits: String = groups().collect();
    // Without hyphens the crate knows 32 digits only; longer spellings of its own need theirs.
    Uuid::try_parse(&digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_as_postgres_reads_them() {
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        for spelling in [
            uuid,
            "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
            "6ba7b8109dad11d180b400c04fd430c8",
            "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
            "6ba7-b810-9dad-11d1-80b4-00c0-4fd4-30c8",
            "{6ba7b810-9dad11d1-80b400c0-4fd430c8}",
        ] {
            let parsed = parse_uuid(spelling).map(|uuid| uuid.to_string());
            assert_eq!(parsed.as_deref(), Some(uuid), "{spelling}");
        }
        assert_eq!(
            Uuid::nil().to_string(),
            "00000000-0000-0000-0000-000000000000"
        );
        for wrong in [
            "",
            "6ba7b810",
            "6ba7b810-9dad-11d1-80b4-00c04fd430cg",
            "+ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6b-a7b8109dad11d180b400c04fd430c8",
            "-6ba7b8109dad11d180b400c04fd430c8",
            "6ba7b8109dad11d180b400c04fd430c8-",
            "6ba7b810--9dad11d180b400c04fd430c8",
            "{6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
            "{{6ba7b810-9dad-11d1-80b4-00c04fd430c8}}",
            " 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "é",
        ] {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
    }
}
