//! Numbers and booleans.

use super::Fault;
use crate::format::scan;

/// The integer spelled by `bytes[start..end]`.
///
/// Takes the place instead of the slice, because reading a whole word that also covers earlier
/// bytes is what makes it fast.
#[inline(always)]
pub(crate) fn integer_at(bytes: &[u8], start: usize, end: usize) -> Result<i64, Fault> {
    match scan::short_integer(bytes, start, end) {
        Some(number) => Ok(number as i64),
        None => integer(&bytes[start..end]),
    }
}

/// An integer: digits with a sign, or a number without a fraction such as `3.0` and `1e3`.
#[inline(never)]
pub(crate) fn integer(text: &[u8]) -> Result<i64, Fault> {
    match decimal(text, 38, 0) {
        Ok(number) => i64::try_from(number).map_err(|_| Fault::OutOfRange),
        Err(Fault::FractionTooLong) => Err(Fault::NotWhole),
        Err(fault) => Err(fault),
    }
}

/// A decimal number in units of `10^-scale`, exactly.
///
/// # Errors
/// [`Fault::FractionTooLong`] when a digit other than zero stands behind the scale,
/// [`Fault::OutOfRange`] when there are more than `precision` digits.
pub(crate) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Fault> {
    if let Some(number) = plain_decimal(text, precision, scale) {
        return Ok(number);
    }
    let text = text.trim_ascii();
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    // The number is `mantissa * 10^exponent`; zeros wait in `zeros_pending` until a digit follows
    // them, so that trailing zeros never count as digits.
    let (mut mantissa, mut exponent, mut zeros_pending) = (0i128, 0i64, 0u32);
    let (mut digits_seen, mut point_seen, mut overflow) = (false, false, false);
    while let [byte, tail @ ..] = rest {
        match byte {
            b'0'..=b'9' => {
                digits_seen = true;
                exponent -= i64::from(point_seen);
                if *byte == b'0' {
                    zeros_pending += u32::from(mantissa != 0 || overflow);
                } else {
                    let grown = 10i128
                        .checked_pow(zeros_pending + 1)
                        .and_then(|factor| mantissa.checked_mul(factor))
                        .and_then(|shifted| shifted.checked_add(i128::from(byte - b'0')));
                    match grown {
                        Some(grown) => mantissa = grown,
                        None => overflow = true,
                    }
                    zeros_pending = 0;
                }
            }
            b'.' if !point_seen => point_seen = true,
            b'e' | b'E' if digits_seen => break,
            _ => return Err(Fault::WrongType),
        }
        rest = tail;
    }
    if !digits_seen {
        return Err(Fault::WrongType);
    }
    if let [_, tail @ ..] = rest {
        exponent = exponent.saturating_add(exponent_part(tail)?);
    }
    if overflow {
        // More than 38 digits up to the last one that is not zero: either too large or too fine.
        return Err(if exponent < 0 { Fault::FractionTooLong } else { Fault::OutOfRange });
    }
    if mantissa == 0 {
        return Ok(0);
    }
    let shift = exponent.saturating_add(i64::from(zeros_pending)).saturating_add(i64::from(scale));
    if shift < 0 {
        return Err(Fault::FractionTooLong);
    }
    let number = u32::try_from(shift)
        .ok()
        .and_then(|shift| 10i128.checked_pow(shift))
        .and_then(|factor| mantissa.checked_mul(factor))
        .ok_or(Fault::OutOfRange)?;
    within_precision(number, precision)?;
    Ok(if negative { -number } else { number })
}

fn within_precision(number: i128, precision: u8) -> Result<(), Fault> {
    match 10i128.checked_pow(u32::from(precision)) {
        Some(limit) if number >= limit => Err(Fault::OutOfRange),
        _ => Ok(()),
    }
}

/// The common case, digits with a point and at most 18 of them; `None` when it is another one.
#[inline]
fn plain_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || digits.len() > 18 || scale < 0 {
        return None;
    }
    let mut number = 0i64;
    let mut fraction_digits = None;
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + i64::from(byte - b'0'),
            b'.' if fraction_digits.is_none() => fraction_digits = Some(digits.len() - 1 - at),
            _ => return None,
        }
    }
    let missing = (scale as usize).checked_sub(fraction_digits.unwrap_or(0))?;
    if digits == b"." || missing > 18 {
        return None;
    }
    let number = i128::from(number) * i128::from(10i64.pow(missing as u32));
    within_precision(number, precision).ok()?;
    Some(if negative { -number } else { number })
}

/// The exponent behind the `e`, kept small enough that sums of it can't overflow.
fn exponent_part(text: &[u8]) -> Result<i64, Fault> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::WrongType);
    }
    let size =
        digits.iter().fold(0i64, |size, digit| (size * 10 + i64::from(digit - b'0')).min(1_000_000_000_000));
    Ok(if negative { -size } else { size })
}

/// A finite double. NaN and infinities are refused: one of them would spoil every sum it enters.
pub(crate) fn float64(text: &[u8]) -> Result<f64, Fault> {
    if let Some(number) = plain_float(text) {
        return Ok(number);
    }
    let text = float_text(text)?;
    let number: f64 = text.parse().map_err(|_| Fault::WrongType)?;
    if !number.is_finite() || (number == 0.0 && spells_nonzero(text)) {
        return Err(Fault::OutOfRange);
    }
    Ok(number)
}

/// As [`float64`], for single precision.
pub(crate) fn float32(text: &[u8]) -> Result<f32, Fault> {
    let text = float_text(text)?;
    let number: f32 = text.parse().map_err(|_| Fault::WrongType)?;
    if !number.is_finite() || (number == 0.0 && spells_nonzero(text)) {
        return Err(Fault::OutOfRange);
    }
    Ok(number)
}

/// The trimmed text, unless it is one of the words that the standard library takes for numbers.
fn float_text(text: &[u8]) -> Result<&str, Fault> {
    let text = text.trim_ascii();
    if text.iter().any(|b| b.is_ascii_alphabetic() && !matches!(b, b'e' | b'E')) {
        return Err(Fault::WrongType);
    }
    std::str::from_utf8(text).map_err(|_| Fault::WrongType)
}

fn spells_nonzero(text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or("");
    mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'))
}

/// Up to 15 digits without exponent: mantissa and power of ten are exact doubles then, so that
/// one division rounds correctly (Clinger, 1990).
#[inline]
fn plain_float(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if digits.len() > 15 {
        return None;
    }
    let mut number = 0u64;
    let mut fraction_digits = None;
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
            b'.' if fraction_digits.is_none() => fraction_digits = Some(digits.len() - 1 - at),
            _ => return None,
        }
    }
    if digits.is_empty() || digits == b"." {
        return None;
    }
    let number = number as f64 / POWERS[fraction_digits.unwrap_or(0)];
    Some(if negative { -number } else { number })
}

/// PostgreSQL's words for booleans, in any case.
pub(crate) fn boolean(text: &[u8]) -> Result<bool, Fault> {
    match text {
        b"true" | b"t" | b"1" => return Ok(true),
        b"false" | b"f" | b"0" => return Ok(false),
        _ => {}
    }
    let text = text.trim_ascii();
    if text.len() > 5 {
        return Err(Fault::WrongType);
    }
    match text.to_ascii_lowercase().as_slice() {
        b"true" | b"t" | b"yes" | b"y" | b"on" | b"1" => Ok(true),
        b"false" | b"f" | b"no" | b"n" | b"off" | b"0" => Ok(false),
        _ => Err(Fault::WrongType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        let cases: &[(&str, Result<i64, Fault>)] = &[
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("+7", Ok(7)),
            (" 42 ", Ok(42)),
            ("007", Ok(7)),
            ("3.0", Ok(3)),
            ("1e3", Ok(1000)),
            ("1200e-2", Ok(12)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(Fault::OutOfRange)),
            ("1e19", Err(Fault::OutOfRange)),
            ("1e999999999999999999", Err(Fault::OutOfRange)),
            ("1e-999999999999999999", Err(Fault::NotWhole)),
            ("0e999999999999999999", Ok(0)),
            ("3.5", Err(Fault::NotWhole)),
            ("", Err(Fault::WrongType)),
            ("-", Err(Fault::WrongType)),
            ("1 2", Err(Fault::WrongType)),
            ("0x10", Err(Fault::WrongType)),
            ("1_000", Err(Fault::WrongType)),
            ("NaN", Err(Fault::WrongType)),
            ("12a", Err(Fault::WrongType)),
            ("1e", Err(Fault::WrongType)),
            ("1.2.3", Err(Fault::WrongType)),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text.as_bytes()), *expected, "{text}");
            let padded = format!("{text}|");
            assert_eq!(integer_at(padded.as_bytes(), 0, text.len()), *expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let cases: &[(&str, Result<i128, Fault>)] = &[
            ("2.55", Ok(255)),
            ("-2.5", Ok(-250)),
            ("2.550000000000000000000000000000000000000000000000000", Ok(255)),
            ("2.555", Err(Fault::FractionTooLong)),
            ("0.001", Err(Fault::FractionTooLong)),
            ("1e2", Ok(10_000)),
            ("255e-2", Ok(255)),
            ("255e-3", Err(Fault::FractionTooLong)),
            ("99999.99", Ok(9_999_999)),
            ("100000", Err(Fault::OutOfRange)),
            ("-100000", Err(Fault::OutOfRange)),
            ("1e400", Err(Fault::OutOfRange)),
            ("1234567890123456789012345678901234567890", Err(Fault::OutOfRange)),
            (".5", Ok(50)),
            ("5.", Ok(500)),
            ("000000000000000000000000000000000000000000000000005", Ok(500)),
            (".", Err(Fault::WrongType)),
            ("Infinity", Err(Fault::WrongType)),
        ];
        for (text, expected) in cases {
            assert_eq!(decimal(text.as_bytes(), 7, 2), *expected, "{text}");
        }
        let nines = "9".repeat(38);
        assert_eq!(decimal(nines.as_bytes(), 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(decimal(b"1e38", 38, 0), Err(Fault::OutOfRange));
    }

    #[test]
    fn floats_equal_the_standard_library() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let text = match rng.u8(..4) {
                0 => format!("{}", f64::from_bits(rng.u64(..))),
                1 => format!("{}.{}", rng.i32(..), rng.u32(..100_000)),
                2 => format!("{}e{}", rng.i64(..), rng.i32(-250..250)),
                _ => format!("{}", rng.i16(..)),
            };
            let expected = text.parse::<f64>().ok().filter(|f| f.is_finite());
            assert_eq!(float64(text.as_bytes()).ok(), expected, "{text}");
        }
        for (text, fault) in [
            ("1e400", Fault::OutOfRange),
            ("-1e400", Fault::OutOfRange),
            ("1e-400", Fault::OutOfRange),
            ("NaN", Fault::WrongType),
            ("inf", Fault::WrongType),
            ("-Infinity", Fault::WrongType),
            ("", Fault::WrongType),
            (".", Fault::WrongType),
            ("1,5", Fault::WrongType),
        ] {
            assert_eq!(float64(text.as_bytes()), Err(fault), "{text}");
            assert_eq!(float32(text.as_bytes()), Err(fault), "{text}");
        }
        assert_eq!(float32(b"1e39"), Err(Fault::OutOfRange));
        assert_eq!(float32(b"0.1"), Ok(0.1f32));
        assert_eq!(float64(b"0e-999"), Ok(0.0));
    }

    #[test]
    fn booleans() {
        for text in ["true", "TRUE", "t", "1", "yes", " on "] {
            assert_eq!(boolean(text.as_bytes()), Ok(true), "{text}");
        }
        for text in ["false", "F", "0", "no", "off"] {
            assert_eq!(boolean(text.as_bytes()), Ok(false), "{text}");
        }
        for text in ["", "2", "truth", "nul", "truefalse"] {
            assert_eq!(boolean(text.as_bytes()), Err(Fault::WrongType), "{text}");
        }
    }
}
