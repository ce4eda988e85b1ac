//! PostgreSQL's numeric, in text and in its binary format.
//!
//! Binary: four 16-bit numbers (count of digits, weight of the first one, sign, digits shown after
//! the point), then digits in base 10,000, without leading or trailing zeros. The value 123456.78
//! is `[12, 3456, 7800]` with weight 1: 12 * 10000^1 + 3456 * 10000^0 + 7800 * 10000^-1.
//!
//! Everything goes through decimal digits ([`Decimal`]), because Arrow's widest decimals have
//! more of them than any machine integer.

use arrow::datatypes::i256;
use bytes::{Buf, BufMut, BytesMut};

const SIGN_NEGATIVE: u16 = 0x4000;
const SIGN_NAN: u16 = 0xC000;
const SIGN_INFINITY: u16 = 0xD000;
const SIGN_MINUS_INFINITY: u16 = 0xF000;

/// Most digits that a value from a client may have on either side of the point; more than Arrow's 76
/// cannot be stored anyway, and exponents must not make us write a million zeros.
const DIGITS_MAX: usize = 400;

/// A decimal number: the value of `digits` times 10^-scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// ASCII digits without leading zeros; empty for zero.
    digits: Vec<u8>,
    /// Digits after the point; not negative.
    scale: usize,
}

/// Why a text or a message is not a number that we can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumericError {
    Malformed,
    /// NaN and infinities, which decimals here do not have, and numbers beyond the column's precision.
    OutOfRange,
}

impl Decimal {
    pub fn from_i128(value: i128, scale: i8) -> Decimal {
        let mut buffer = [0u8; 39];
        let mut start = buffer.len();
        let mut rest = value.unsigned_abs();
        // Division of 128-bit numbers is slow; money fits into 64 bits.
        while rest > u128::from(u64::MAX) {
            start -= 1;
            buffer[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut rest = rest as u64;
        while rest != 0 {
            start -= 1;
            buffer[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Decimal::from_digits(value < 0, buffer[start..].to_vec(), scale)
    }

    pub fn from_i256(value: i256, scale: i8) -> Decimal {
        let text = value.to_string();
        let digits = text.trim_start_matches('-').trim_start_matches('0').as_bytes().to_vec();
        Decimal::from_digits(text.starts_with('-'), digits, scale)
    }

    fn from_digits(negative: bool, mut digits: Vec<u8>, scale: i8) -> Decimal {
        if scale < 0 && !digits.is_empty() {
            digits.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
        }
        Decimal { negative, digits, scale: usize::try_from(scale).unwrap_or(0) }
    }

    /// Digits after the point.
    pub fn scale(&self) -> usize {
        self.scale
    }

    /// Reads `-12.50`, `1.5e3`, `.5`.
    pub fn parse(text: &str) -> Result<Decimal, NumericError> {
        let text = text.trim();
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        if ["nan", "inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            return Err(NumericError::OutOfRange);
        }
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let exponent = exponent.parse::<i32>().map_err(|_| NumericError::Malformed)?;
                (mantissa, exponent)
            }
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(NumericError::Malformed);
        }
        let scale = fraction.len() as i64 - i64::from(exponent);
        if scale.unsigned_abs() > DIGITS_MAX as u64 || digits.len() > 2 * DIGITS_MAX {
            return Err(NumericError::OutOfRange);
        }
        if scale < 0 {
            digits.extend(std::iter::repeat_n(b'0', scale.unsigned_abs() as usize));
        }
        let zeros = digits.iter().take_while(|d| **d == b'0').count();
        digits.drain(..zeros);
        Ok(Decimal { negative: text.starts_with('-'), digits, scale: scale.max(0) as usize })
    }

    pub fn write_text(&self, out: &mut BytesMut) {
        if self.negative && !self.digits.is_empty() {
            out.put_u8(b'-');
        }
        let whole = self.digits.len().saturating_sub(self.scale);
        if whole == 0 {
            out.put_u8(b'0');
        }
        out.put_slice(&self.digits[..whole]);
        if self.scale > 0 {
            out.put_u8(b'.');
            out.put_bytes(b'0', self.scale.saturating_sub(self.digits.len()));
            out.put_slice(&self.digits[whole..]);
        }
    }

    pub fn write_binary(&self, out: &mut BytesMut) {
        // Aligned to groups of four around the point.
        let whole = self.digits.len().saturating_sub(self.scale);
        let fraction_zeros = self.scale.saturating_sub(self.digits.len());
        let mut aligned = vec![b'0'; (4 - whole % 4) % 4];
        aligned.extend_from_slice(&self.digits[..whole]);
        let whole_groups = aligned.len() / 4;
        aligned.extend(std::iter::repeat_n(b'0', fraction_zeros));
        aligned.extend_from_slice(&self.digits[whole..]);
        aligned.extend(std::iter::repeat_n(b'0', (4 - aligned.len() % 4) % 4));

        let group = |g: &[u8]| g.iter().fold(0u16, |value, d| value * 10 + u16::from(d - b'0'));
        let groups: Vec<u16> = aligned.chunks(4).map(group).collect();
        let leading = groups.iter().take_while(|g| **g == 0).count();
        let trailing = groups.iter().rev().take_while(|g| **g == 0).count();
        let significant: &[u16] =
            if leading == groups.len() { &[] } else { &groups[leading..groups.len() - trailing] };
        let weight = if significant.is_empty() { 0 } else { whole_groups as i16 - 1 - leading as i16 };
        let negative = self.negative && !significant.is_empty();

        out.put_u16(significant.len() as u16);
        out.put_i16(weight);
        out.put_u16(if negative { SIGN_NEGATIVE } else { 0 });
        out.put_u16(self.scale as u16);
        significant.iter().for_each(|g| out.put_u16(*g));
    }

    pub fn read_binary(mut bytes: &[u8]) -> Result<Decimal, NumericError> {
        if bytes.len() < 8 {
            return Err(NumericError::Malformed);
        }
        let count = usize::from(bytes.get_u16());
        let weight = i64::from(bytes.get_i16());
        let sign = bytes.get_u16();
        let scale = usize::from(bytes.get_u16());
        match sign {
            0 | SIGN_NEGATIVE => {}
            SIGN_NAN | SIGN_INFINITY | SIGN_MINUS_INFINITY => return Err(NumericError::OutOfRange),
            _ => return Err(NumericError::Malformed),
        }
        if bytes.len() != 2 * count {
            return Err(NumericError::Malformed);
        }
        if scale > DIGITS_MAX || weight.unsigned_abs() > DIGITS_MAX as u64 / 4 || count > DIGITS_MAX / 2 {
            return Err(NumericError::OutOfRange);
        }
        let groups: Vec<u16> = std::iter::from_fn(|| (!bytes.is_empty()).then(|| bytes.get_u16())).collect();
        if groups.iter().any(|group| *group > 9_999) {
            return Err(NumericError::Malformed);
        }
        // Position p stands for 10000^(weight - p); positions from min(0, weight) to the last digit shown.
        let mut digits = Vec::new();
        let fraction_groups = scale.div_ceil(4) as i64;
        for power in (-fraction_groups..=weight.max(0)).rev() {
            let group =
                usize::try_from(weight - power).ok().and_then(|i| groups.get(i)).copied().unwrap_or(0);
            for divisor in [1_000, 100, 10, 1] {
                digits.push(b'0' + (group / divisor % 10) as u8);
            }
        }
        digits.truncate(digits.len() - (fraction_groups as usize * 4 - scale));
        let zeros = digits.iter().take_while(|d| **d == b'0').count();
        digits.drain(..zeros);
        Ok(Decimal { negative: sign == SIGN_NEGATIVE, digits, scale })
    }

    /// The integer that stands for this number in `Decimal128(precision, scale)`, rounded half away from zero.
    pub fn to_i128(&self, precision: u8, scale: i8) -> Result<i128, NumericError> {
        let text = self.unscaled(precision, scale)?;
        text.parse().map_err(|_| NumericError::OutOfRange)
    }

    pub fn to_i256(&self, precision: u8, scale: i8) -> Result<i256, NumericError> {
        let text = self.unscaled(precision, scale)?;
        i256::from_string(&text).ok_or(NumericError::OutOfRange)
    }

    fn unscaled(&self, precision: u8, scale: i8) -> Result<String, NumericError> {
        let mut digits = self.digits.clone();
        let surplus = self.scale as i64 - i64::from(scale);
        if surplus <= 0 {
            digits.extend(std::iter::repeat_n(b'0', surplus.unsigned_abs() as usize));
        } else {
            let kept = digits.len() as i64 - surplus;
            let round_up = usize::try_from(kept).ok().and_then(|i| digits.get(i)).is_some_and(|d| *d >= b'5');
            digits.truncate(kept.max(0) as usize);
            if round_up {
                increment(&mut digits);
            }
        }
        let zeros = digits.iter().take_while(|d| **d == b'0').count();
        digits.drain(..zeros);
        if digits.len() > usize::from(precision) {
            return Err(NumericError::OutOfRange);
        }
        let sign = if self.negative && !digits.is_empty() { "-" } else { "" };
        let digits = if digits.is_empty() { vec![b'0'] } else { digits };
        Ok(format!("{sign}{}", String::from_utf8_lossy(&digits)))
    }
}

fn increment(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit != b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by PostgreSQL 15: `SELECT v, encode(numeric_send(v), 'hex')`.
    const POSTGRES: [(&str, &str); 12] = [
        ("0", "0000000000000000"),
        ("0.00", "0000000000000002"),
        ("-1", "00010000400000000001"),
        ("0.0001", "0001ffff000000040001"),
        ("12345678901234567890.12", "000600040000000204d2162e23340d801ed204b0"),
        ("10000", "00010001000000000001"),
        ("1.10", "0002000000000002000103e8"),
        ("-0.5", "0001ffff400000011388"),
        ("99999999", "0002000100000000270f270f"),
        ("123456.7800", "0003000100000004000c0d801e78"),
        ("0.00001", "0001fffe0000000503e8"),
        ("100000000", "00010002000000000001"),
    ];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn both_formats_are_those_of_postgresql_both_ways() {
        for (text, binary) in POSTGRES {
            let number = Decimal::parse(text).unwrap();
            let mut out = BytesMut::new();
            number.write_binary(&mut out);
            assert_eq!(hex(&out), binary, "{text}");
            let read = Decimal::read_binary(&out).unwrap();
            let mut out = BytesMut::new();
            read.write_text(&mut out);
            assert_eq!(&out[..], text.as_bytes());
        }
    }

    #[test]
    fn arrow_values_print_with_their_scale() {
        let text = |number: Decimal| {
            let mut out = BytesMut::new();
            number.write_text(&mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(text(Decimal::from_i128(-5, 3)), "-0.005");
        assert_eq!(text(Decimal::from_i128(0, 2)), "0.00");
        assert_eq!(text(Decimal::from_i128(12, -2)), "1200");
        assert_eq!(text(Decimal::from_i128(i128::MIN, 0)), i128::MIN.to_string());
        assert_eq!(text(Decimal::from_i256(i256::MAX, 1)), {
            let digits = i256::MAX.to_string();
            format!("{}.{}", &digits[..digits.len() - 1], &digits[digits.len() - 1..])
        });
    }

    #[test]
    fn values_round_half_away_from_zero_and_overflow_is_named() {
        let to = |text: &str, precision, scale| Decimal::parse(text).unwrap().to_i128(precision, scale);
        assert_eq!(to("1.005", 10, 2), Ok(101));
        assert_eq!(to("-1.005", 10, 2), Ok(-101));
        assert_eq!(to("9.995", 10, 2), Ok(1000));
        assert_eq!(to("0.004", 10, 2), Ok(0));
        assert_eq!(to("1.5e3", 10, 2), Ok(150_000));
        assert_eq!(to("0012.50", 4, 2), Ok(1250));
        assert_eq!(to("99.995", 4, 2), Err(NumericError::OutOfRange));
        assert_eq!(Decimal::parse("NaN"), Err(NumericError::OutOfRange));
        assert_eq!(Decimal::parse("1e1000000"), Err(NumericError::OutOfRange));
        for text in ["", "-", "1.2.3", "abc", "1e", "--1", "0x10"] {
            assert_eq!(Decimal::parse(text), Err(NumericError::Malformed), "{text}");
        }
    }

    #[test]
    fn broken_binary_values_are_refused() {
        for bytes in [&[][..], &[0; 7], &[0, 1, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]] {
            assert_eq!(Decimal::read_binary(bytes), Err(NumericError::Malformed), "{bytes:?}");
        }
        assert_eq!(Decimal::read_binary(&[0, 0, 0, 0, 0xC0, 0, 0, 0]), Err(NumericError::OutOfRange));
    }
}
