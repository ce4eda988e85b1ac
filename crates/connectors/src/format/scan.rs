//! Byte scanning many bytes at a time.
//!
//! The hot loops of the text formats: where are the delimiters of the next 64 bytes, where does
//! a JSON string end, which number do these digits spell. x86-64 uses SSE2, which every such
//! machine has; other machines use 64-bit words.

#[cfg(any(test, not(target_arch = "x86_64")))]
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const ASCII_ZEROS: u64 = 0x3030_3030_3030_3030;

/// Three bytes to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needles {
    bytes: [u8; 3],
}

impl Needles {
    pub(crate) fn new(bytes: [u8; 3]) -> Needles {
        Needles { bytes }
    }

    /// Bit `i` is set when byte `i` of the block is a needle.
    #[inline(always)]
    pub(crate) fn mask(self, block: &[u8; 64]) -> u64 {
        #[cfg(target_arch = "x86_64")]
        {
            self.mask_sse2(block)
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self.mask_words(block)
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn mask_sse2(self, block: &[u8; 64]) -> u64 {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is part of x86-64, and the four unaligned loads stay within the 64 bytes.
        unsafe {
            let a = _mm_set1_epi8(self.bytes[0] as i8);
            let b = _mm_set1_epi8(self.bytes[1] as i8);
            let c = _mm_set1_epi8(self.bytes[2] as i8);
            let mut mask = 0u64;
            for part in 0..4 {
                let bytes = _mm_loadu_si128(block.as_ptr().add(16 * part).cast());
                let hit = _mm_or_si128(
                    _mm_or_si128(_mm_cmpeq_epi8(bytes, a), _mm_cmpeq_epi8(bytes, b)),
                    _mm_cmpeq_epi8(bytes, c),
                );
                mask |= u64::from(_mm_movemask_epi8(hit) as u32) << (16 * part);
            }
            mask
        }
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn mask_words(self, block: &[u8; 64]) -> u64 {
        let mut mask = 0u64;
        for (part, bytes) in block.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
            let hit = self
                .bytes
                .iter()
                .fold(0, |hit, needle| hit | zero_bytes(word ^ (LOW_BITS.wrapping_mul(u64::from(*needle)))));
            // Gathers the high bit of each byte into the top byte.
            let bits = (hit >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            mask |= bits << (8 * part);
        }
        mask
    }
}

/// The high bit of each byte that is zero, exactly.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
fn zero_bytes(word: u64) -> u64 {
    !(((word & !HIGH_BITS).wrapping_add(!HIGH_BITS)) | word) & HIGH_BITS
}

/// Position of the first quote, backslash or control character at or after `from`, or the length.
#[inline(always)]
pub(crate) fn string_stop(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    #[cfg(target_arch = "x86_64")]
    while let Some(block) = bytes.get(at..at + 16) {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is part of x86-64, and the unaligned load stays within the 16 bytes.
        let hit = unsafe {
            let block = _mm_loadu_si128(block.as_ptr().cast());
            let quote = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'\\' as i8));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)) as u32
        };
        if hit != 0 {
            return at + hit.trailing_zeros() as usize;
        }
        at += 16;
    }
    while at < bytes.len() && !matches!(bytes[at], b'"' | b'\\' | 0..=0x1f) {
        at += 1;
    }
    at
}

/// How many of the eight bytes (first byte lowest) are leading ASCII digits.
#[inline(always)]
pub(crate) fn leading_digits(word: u64) -> usize {
    let digits = word ^ ASCII_ZEROS;
    // A byte above 9 overflows into its high bit, or had it set; carries only spoil later bytes.
    let other = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & HIGH_BITS;
    (other.trailing_zeros() / 8) as usize
}

/// The number spelled by eight digits given as values 0 to 9, the most significant in the lowest byte.
#[inline(always)]
pub(crate) fn eight_digits(digits: u64) -> u64 {
    const MASK: u64 = 0x0000_00ff_0000_00ff;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & MASK).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & MASK).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// The unsigned number that `bytes[start..end]` spells, when it is 1 to 16 digits and nothing else.
#[inline(always)]
pub(crate) fn short_integer(bytes: &[u8], start: usize, end: usize) -> Option<u64> {
    let length = end.wrapping_sub(start);
    if length.wrapping_sub(1) < 8 {
        return last_digits(bytes, end, length);
    }
    if length.wrapping_sub(9) < 8 {
        let high = last_digits(bytes, end - 8, length - 8)?;
        return Some(high * 100_000_000 + last_digits(bytes, end, 8)?);
    }
    None
}

/// The number spelled by the `length` (1 to 8) bytes before `end`; `None` also too near the start.
#[inline(always)]
fn last_digits(bytes: &[u8], end: usize, length: usize) -> Option<u64> {
    let window = bytes.get(end.checked_sub(8)?..end)?;
    let word = u64::from_le_bytes(window.try_into().expect("eight bytes"));
    let keep = u64::MAX << (64 - 8 * length);
    let digits = (word ^ ASCII_ZEROS) & keep;
    if (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & HIGH_BITS != 0 {
        return None;
    }
    Some(eight_digits(digits))
}

/// The eight bytes at `at`, the first one lowest.
#[inline(always)]
pub(crate) fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    let window = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(window.try_into().expect("eight bytes")))
}

/// The number spelled by the first `count` (1 to 8) bytes of the word, which are digits.
#[inline(always)]
pub(crate) fn first_digits(word: u64, count: usize) -> u64 {
    eight_digits((word ^ ASCII_ZEROS) << (64 - 8 * count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_equal_the_bytewise_answer() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let block: [u8; 64] = std::array::from_fn(|_| rng.u8(..) & 0x8f);
            let bytes = [rng.u8(..) & 0x8f, 0x80, 0x01];
            let expected = (0..64).fold(0u64, |m, i| m | (u64::from(bytes.contains(&block[i])) << i));
            let needles = Needles::new(bytes);
            assert_eq!(needles.mask(&block), expected);
            assert_eq!(needles.mask_words(&block), expected);
        }
    }

    #[test]
    fn a_string_stops_where_a_plain_loop_stops() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..rng.usize(..60))
                .map(|_| if rng.u8(..30) == 0 { rng.u8(..) } else { rng.u8(b'#'..=b'[') })
                .collect();
            let from = rng.usize(..=bytes.len());
            let expected = (from..bytes.len())
                .find(|i| matches!(bytes[*i], b'"' | b'\\' | 0..=0x1f))
                .unwrap_or(bytes.len());
            assert_eq!(string_stop(&bytes, from), expected);
        }
    }

    #[test]
    fn digits_are_read_as_by_the_standard_library() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let length = rng.usize(..=18);
            let number: String = (0..length).map(|_| rng.digit(10)).collect();
            let text = format!("xxxxxxxx{number};yyyyyyyyyyyyyyyyyyyyyy");
            let expected = if length == 0 || length > 16 { None } else { number.parse::<u64>().ok() };
            assert_eq!(short_integer(text.as_bytes(), 8, 8 + length), expected, "{number}");
            let word = word_at(text.as_bytes(), 8).unwrap();
            assert_eq!(leading_digits(word), length.min(8));
            if length > 0 {
                let count = length.min(8);
                assert_eq!(first_digits(word, count), number[..count].parse::<u64>().unwrap());
            }
        }
        for other in 0..=255u8 {
            if !other.is_ascii_digit() {
                let bytes = [b'0', b'0', b'0', b'0', b'0', b'1', other, b'2', b'3'];
                assert_eq!(short_integer(&bytes, 5, 9), None, "byte {other}");
                assert_eq!(leading_digits(word_at(&bytes, 1).unwrap()), 5, "byte {other}");
            }
        }
    }
}
