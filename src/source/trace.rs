//! The trace that a request is part of (W3C Trace Context, level 2), as larder's calls to upstreams
//! continue it.
//!
//! Promise: a header that is not valid counts as absent. What a call sends is valid: version 00,
//! the trace id as it came, a new parent id, the flags that larder knows, and `tracestate` as it
//! came. larder starts no trace, because it has no collector to send spans to.

use larder_cache::random;

/// The header that names a trace, and the caller's place in it.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what tracing systems add to it.
pub const TRACESTATE: &str = "tracestate";

/// The length of a `traceparent` of version 00 (section 3.2.2).
const LENGTH: usize = 55;
/// The flags of version 00: sampled, and random trace id (sections 3.2.2.5.1 and 3.2.2.5.2).
const FLAGS: u8 = 0b11;
/// The one flag that a later version has for certain (section 4.2).
const SAMPLED: u8 = 0b01;
/// The longest `tracestate` that is passed on: what section 3.3.1.5 asks for at least.
const LONGEST_STATE: usize = 512;
/// The most entries of a `tracestate` (section 3.3.1.1).
const MOST_ENTRIES: usize = 32;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: Box<str>,
    flags: u8,
    state: Option<Box<str>>,
}

impl TraceContext {
    /// Reads the two headers of a request, each with all its lines in order. `None` if there is not
    /// exactly one `traceparent`, or if that is not valid. An invalid `tracestate` is left out.
    pub fn read<'h>(
        parents: impl IntoIterator<Item = &'h [u8]>,
        states: impl IntoIterator<Item = &'h [u8]>,
    ) -> Option<TraceContext> {
        let mut parents = parents.into_iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let (trace_id, flags) = parse_parent(parent)?;
        Some(TraceContext {
            trace_id: trace_id.into(),
            flags,
            state: parse_state(states),
        })
    }

    /// The trace id: 32 hexadecimal digits in lower case.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// The headers of one call, with a parent id of its own.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        // No parent id is zero (section 3.2.2.4).
        let parent_id = random().max(1);
        let parent = format!("00-{}-{parent_id:016x}-{:02x}", self.trace_id, self.flags);
        let state = self.state.as_deref();
        let state = state.map(|state| (TRACESTATE, state.to_owned()));
        [(TRACEPARENT, parent)].into_iter().chain(state).collect()
    }
}

/// The trace id and the flags to pass on.
fn parse_parent(header: &[u8]) -> Option<(&str, u8)> {
    let text = std::str::from_utf8(header).ok()?;
    // A later version may go on after another dash (section 4.2).
    let known = text.get(..LENGTH)?;
    let more = &text[LENGTH..];
    let mut fields = known.split('-');
    let version = digits(fields.next()?, 2)?;
    let trace_id = digits(fields.next()?, 32)?;
    let parent_id = digits(fields.next()?, 16)?;
    let flags = digits(fields.next()?, 2)?;
    let is_complete = match version {
        "ff" => false,
        "00" => more.is_empty(),
        _ => more.is_empty() || more.starts_with('-'),
    };
    let is_zero = |id: &str| id.bytes().all(|digit| digit == b'0');
    if !is_complete || is_zero(trace_id) || is_zero(parent_id) {
        return None;
    }
    let kept = if version == "00" { FLAGS } else { SAMPLED };
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace_id, flags & kept))
}

/// This field, if it is `length` hexadecimal digits in lower case.
fn digits(field: &str, length: usize) -> Option<&str> {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (field.len() == length && field.bytes().all(is_digit)).then_some(field)
}

/// The lines of a `tracestate` as one line. `None` if it is not valid, too long or empty.
fn parse_state<'h>(lines: impl IntoIterator<Item = &'h [u8]>) -> Option<Box<str>> {
    let mut joined = String::new();
    for line in lines {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(std::str::from_utf8(line).ok()?);
        if joined.len() > LONGEST_STATE {
            return None;
        }
    }
    let mut keys = Vec::new();
    for entry in joined
        .split(',')
        .map(|entry| entry.trim_matches([' ', '\t']))
    {
        // Section 3.3.1.1 allows empty entries.
        if entry.is_empty() {
            continue;
        }
        let (key, value) = entry.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    (1..=MOST_ENTRIES)
        .contains(&keys.len())
        .then(|| joined.trim_matches([' ', '\t']).into())
}

/// Section 3.3.1.3.1.
fn is_key(key: &str) -> bool {
    let of_key =
        |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    key.len() <= 256 && key.as_bytes().first().is_some_and(begins) && key.bytes().all(of_key)
}

/// Section 3.3.1.3.2. White space around it is gone already.
fn is_value(value: &str) -> bool {
    let of_value = |byte| matches!(byte, b' '..=b'~' if byte != b',' && byte != b'=');
    (1..=256).contains(&value.len()) && value.bytes().all(of_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn read(parents: &[&str], states: &[&str]) -> Option<TraceContext> {
        let bytes = |lines: &[&str]| -> Vec<Vec<u8>> {
            lines.iter().map(|line| line.as_bytes().to_vec()).collect()
        };
        let (parents, states) = (bytes(parents), bytes(states));
        TraceContext::read(
            parents.iter().map(Vec::as_slice),
            states.iter().map(Vec::as_slice),
        )
    }

    #[test]
    fn a_call_keeps_the_trace_and_has_a_parent_id_of_its_own() {
        let trace = read(&[&format!("00-{ID}-{PARENT}-01")], &[]).unwrap();
        assert_eq!(trace.trace_id(), ID);
        let mut seen = vec![PARENT.to_owned()];
        for _ in 0..3 {
            let headers = trace.headers();
            let [("traceparent", sent)] = &headers[..] else {
                panic!("{headers:?}");
            };
            let again = read(&[sent], &[]).unwrap();
            assert_eq!(again, trace, "{sent}");
            let parent = sent[36..52].to_owned();
            assert!(!seen.contains(&parent), "{sent}");
            seen.push(parent);
        }
    }

    #[test]
    fn a_traceparent_that_is_not_valid_counts_as_absent() {
        let whole = |text: &str| text.replace("ID", ID).replace("PARENT", PARENT);
        for valid in [
            "00-ID-PARENT-00",
            "00-ID-PARENT-ff",
            "cc-ID-PARENT-01",
            "cc-ID-PARENT-01-what",
        ] {
            assert!(read(&[&whole(valid)], &[]).is_some(), "{valid}");
        }
        for invalid in [
            "",
            "00",
            "00-ID-PARENT",
            "00-ID-PARENT-",
            "00-ID-PARENT-0",
            "00-ID-PARENT-0g",
            "00-ID-PARENT-01-",
            "00-ID-PARENT-01-what",
            "00-ID-PARENT-01.what",
            "cc-ID-PARENT-01.what",
            "cc-ID-PARENT-011",
            "ff-ID-PARENT-01",
            "0-ID-PARENT-01",
            "000-ID-PARENT-1",
            "CC-ID-PARENT-01",
            "00_ID_PARENT_01",
            "00-00000000000000000000000000000000-PARENT-01",
            "00-ID-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-PARENT-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-PARENT-011",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-PARENT-0",
            "00-ID-PARENT-01, 00-ID-PARENT-01",
        ] {
            assert_eq!(read(&[&whole(invalid)], &[]), None, "{invalid}");
        }
        let one = whole("00-ID-PARENT-01");
        assert_eq!(read(&[&one, &one], &[]), None, "repeated");
        assert_eq!(read(&[], &["a=1"]), None, "tracestate alone");
        let with = |byte: u8| [one.as_bytes(), &[byte]].concat();
        assert_eq!(TraceContext::read([with(0xff).as_slice()], []), None);
    }

    #[test]
    fn flags_that_are_not_known_are_not_passed_on() {
        for (version, flags, sent) in [
            ("00", "00", "00"),
            ("00", "01", "01"),
            ("00", "03", "03"),
            ("00", "ff", "03"),
            ("01", "03", "01"),
            ("01", "fe", "00"),
        ] {
            let trace = read(&[&format!("{version}-{ID}-{PARENT}-{flags}")], &[]).unwrap();
            let (_, parent) = &trace.headers()[0];
            assert!(parent.starts_with(&format!("00-{ID}-")), "{parent}");
            assert!(
                parent.ends_with(&format!("-{sent}")),
                "{version} {flags}: {parent}"
            );
        }
    }

    #[test]
    fn a_tracestate_goes_on_as_it_came_or_not_at_all() {
        let parent = format!("00-{ID}-{PARENT}-01");
        let sent = |lines: &[&str]| {
            let headers = read(&[&parent], lines).unwrap().headers();
            let state = headers.into_iter().find(|(name, _)| *name == TRACESTATE);
            state.map(|(_, state)| state)
        };
        let long = |length: usize| format!("a={}", "x".repeat(length));
        let many = |count: usize| {
            let all: Vec<String> = (0..count).map(|number| format!("k{number}=v")).collect();
            all.join(",")
        };
        for valid in [
            "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
            "fw529a3039@dt=FfAAAA;x y , 2nd/*_-= z",
            "a=1,,b=2",
            &long(256),
            &many(32),
        ] {
            assert_eq!(sent(&[valid]).as_deref(), Some(valid));
        }
        assert_eq!(sent(&[" a=1\t"]).as_deref(), Some("a=1"));
        assert_eq!(sent(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        for invalid in [
            "",
            " , ",
            "a",
            "=1",
            "a=",
            "A=1",
            "@a=1",
            "a=1=2",
            "a=é",
            "a=\u{7f}",
            "a b=1",
            "a=1,b",
            "a=1,a=2",
            &long(257),
            &many(33),
        ] {
            assert_eq!(sent(&[invalid]), None, "{invalid}");
        }
        let halves = [long(255), format!("b={}", "x".repeat(254))];
        assert_eq!(sent(&[&halves[0], &halves[1]]), None, "514 bytes");
        assert_eq!(sent(&[]), None);
    }
}
