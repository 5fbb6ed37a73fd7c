//! Numbers as text, without the machinery of `fmt`: a memory hit writes a dozen of them.

/// The digits of one number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    bytes: [u8; 20],
    from: usize,
}

impl Digits {
    /// With no zero before it.
    pub(crate) fn decimal(mut number: u64) -> Digits {
        let mut digits = Digits {
            bytes: [b'0'; 20],
            from: 20,
        };
        loop {
            digits.from -= 1;
            digits.bytes[digits.from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    /// Sixteen, in lower case.
    pub(crate) fn hexadecimal(number: u64) -> Digits {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = [b'0'; 20];
        for (at, digit) in bytes[4..].iter_mut().enumerate() {
            *digit = HEX[(number >> (60 - 4 * at)) as usize & 15];
        }
        Digits { bytes, from: 4 }
    }

    /// ASCII.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn are_those_of_fmt(number: u64) {
            let small = number >> (number % 64);
            for number in [number, small, 0, u64::MAX] {
                let (decimal, hex) = (Digits::decimal(number), Digits::hexadecimal(number));
                prop_assert_eq!(std::str::from_utf8(decimal.as_bytes()).unwrap(), number.to_string());
                prop_assert_eq!(std::str::from_utf8(hex.as_bytes()).unwrap(), format!("{number:016x}"));
            }
        }
    }
}
