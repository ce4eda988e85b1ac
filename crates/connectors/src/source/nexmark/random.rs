//! Random numbers that depend on an event's number only, not on the events before it.

/// The SplitMix64 generator (Steele, Lea, Flood 2014), seeded anew for each field of each event, so that a column that
/// nobody wants need not be drawn.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(event: u64, field: u64) -> Random {
        let mut random =
            Random(event.wrapping_mul(0xD134_2543_DE82_EF95) ^ field.wrapping_mul(0x9E6C_63D0_876A_3F35));
        // One round: neighbouring seeds would give neighbouring first states.
        random.0 = random.next();
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1, for a bound above 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// 0 up to, not including, 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn choose<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// Appends `length` lower-case letters.
    pub(super) fn letters(&mut self, length: usize, text: &mut Vec<u8>) {
        let end = text.len() + length;
        text.reserve(length + 8);
        while text.len() < end {
            // Eight letters of eight bytes: each stands for nine or ten of the 256 values of its byte.
            let mut eight = self.next().to_le_bytes();
            for byte in &mut eight {
                *byte = b'a' + ((u16::from(*byte) * 26) >> 8) as u8;
            }
            text.extend_from_slice(&eight);
        }
        text.truncate(end);
    }

    /// In cents; each order of magnitude from 1 to a million is as likely as the others.
    pub(super) fn price(&mut self) -> i64 {
        (10f64.powf(self.unit() * 6.0) * 100.0).round() as i64
    }
}
