//! Sums of floats without rounding, so that order and retraction do not show in the result.
//!
//! Every finite double is a whole multiple of 2^-1074. The sum is kept as such a whole number, cut into
//! limbs of base 2^32; only limbs that were ever touched exist. A value touches one limb: its 53-bit
//! mantissa, moved by less than 32 bits, is added to an `i128`, which leaves room for 2^42 additions before
//! the limb's upper part has to move on to the next one.
//!
//! ```text
//!   limb i counts 2^(32 i - 1074):      ... [ i128 ][ i128 ][ i128 ] ...
//!                                                  +mantissa << shift
//! ```
//!
//! The total is rounded once, to nearest even, when it is asked for. NaN and the infinities are counted
//! apart: any NaN, or infinities of both signs, give NaN; a sum of zeros is +0.0 whatever their signs;
//! a finite total beyond the range of doubles is infinite, as IEEE 754 rounds it.
//!
//! After Neal, "Fast exact summation using small and large superaccumulators" (2015).

use dataflow::{Result, StateReader, StateWriter};

use super::columns::damaged;

const LIMB_BITS: u32 = 32;
/// Limbs that finite values, and the carries of any number of them, can touch.
const LIMBS_MAX: usize = 72;

/// An exact sum of doubles with signed multiplicities.
#[derive(Clone, Debug, Default)]
pub struct ExactFloatSum {
    // Most groups only ever see values of one magnitude: this limb is theirs.
    limb: i128,
    limb_number: u32,
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default)]
struct More {
    // Limb numbers are distinct, and differ from `limb_number`.
    limbs: Vec<(u32, i128)>,
    nan: i64,
    plus_infinity: i64,
    minus_infinity: i64,
}

/// In the byte that a saved sum starts with, beside the limb's number.
const HAS_MORE: u8 = 1 << 7;

impl More {
    #[cold]
    fn load(saved: &mut StateReader<'_>) -> Result<More> {
        let count = saved.count()?;
        if count > LIMBS_MAX {
            return Err(damaged("a sum of floats has too many limbs"));
        }
        let limb = |_| Ok((u32::from(saved.u8()?), saved.i128()?));
        let limbs = (0..count).map(limb).collect::<Result<_>>()?;
        Ok(More { limbs, nan: saved.i64()?, plus_infinity: saved.i64()?, minus_infinity: saved.i64()? })
    }
}

impl ExactFloatSum {
    /// Adds `value`, `weight` times.
    #[inline]
    pub fn add(&mut self, value: f64, weight: i64) {
        let bits = value.to_bits();
        let exponent = (bits >> 52) as u32 & 0x7ff;
        if exponent == 0x7ff {
            self.add_special(value, weight);
            return;
        }
        let fraction = (bits & ((1 << 52) - 1)) as i64;
        // Subnormals stand on the same unit as the first normal binade.
        let (mantissa, position) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        if mantissa == 0 {
            return;
        }
        let signed = if (bits as i64) < 0 { -mantissa } else { mantissa };
        let (number, shift) = (position / LIMB_BITS, position % LIMB_BITS);
        if weight == 1 || weight == -1 {
            self.add_limb(number, i128::from(signed * weight) << shift);
        } else {
            // The product has up to 116 bits; cut in two so that each part leaves room in its limb.
            let product = i128::from(signed) * i128::from(weight);
            self.add_limb(number, (product & 0xffff_ffff) << shift);
            self.add_limb(number + 1, (product >> LIMB_BITS) << shift);
        }
    }

    /// Adds the product `a * b`, `weight` times, without rounding it (unless it is smaller than doubles reach).
    pub fn add_product(&mut self, a: f64, b: f64, weight: i64) {
        let high = a * b;
        self.add(high, weight);
        if high.is_finite() {
            self.add(a.mul_add(b, -high), weight);
        }
    }

    /// Doubles that add up to the exact total, the largest first; one that is not finite stands for all.
    pub fn parts(&self) -> Vec<f64> {
        let (mut rest, mut parts) = (self.clone(), Vec::new());
        loop {
            let part = rest.value();
            if part == 0.0 {
                return parts;
            }
            parts.push(part);
            if !part.is_finite() {
                return parts;
            }
            rest.add(-part, 1);
        }
    }

    /// Adds all that `other` holds, or takes it away for `sign` -1.
    pub fn merge(&mut self, other: &ExactFloatSum, sign: i64) {
        self.add_limb(other.limb_number, other.limb * i128::from(sign));
        if let Some(more) = &other.more {
            for (number, limb) in &more.limbs {
                self.add_limb(*number, *limb * i128::from(sign));
            }
            if more.nan != 0 || more.plus_infinity != 0 || more.minus_infinity != 0 {
                let own = self.more.get_or_insert_default();
                own.nan += sign * more.nan;
                own.plus_infinity += sign * more.plus_infinity;
                own.minus_infinity += sign * more.minus_infinity;
            }
        }
    }

    #[inline]
    fn add_limb(&mut self, number: u32, value: i128) {
        if number == self.limb_number
            && let Some(sum) = self.limb.checked_add(value)
        {
            self.limb = sum;
            return;
        }
        self.add_other_limb(number, value);
    }

    #[cold]
    fn add_other_limb(&mut self, number: u32, value: i128) {
        if number == self.limb_number {
            // The limb is full: its upper part moves on.
            let carry = self.limb >> LIMB_BITS;
            self.limb &= 0xffff_ffff;
            self.add_limb(number, value);
            self.add_limb(number + 1, carry);
            return;
        }
        if self.limb == 0 {
            let unused = self.more.as_ref().is_none_or(|more| more.limbs.iter().all(|(n, _)| *n != number));
            if unused {
                (self.limb_number, self.limb) = (number, value);
                return;
            }
        }
        if value == 0 {
            return;
        }
        let more = self.more.get_or_insert_default();
        let Some(at) = more.limbs.iter().position(|(n, _)| *n == number) else {
            more.limbs.push((number, value));
            return;
        };
        let limb = &mut more.limbs[at].1;
        match limb.checked_add(value) {
            Some(sum) => *limb = sum,
            None => {
                let carry = *limb >> LIMB_BITS;
                *limb = (*limb & 0xffff_ffff) + value;
                self.add_limb(number + 1, carry);
            }
        }
    }

    #[cold]
    fn add_special(&mut self, value: f64, weight: i64) {
        let more = self.more.get_or_insert_default();
        if value.is_nan() {
            more.nan += weight;
        } else if value > 0.0 {
            more.plus_infinity += weight;
        } else {
            more.minus_infinity += weight;
        }
    }

    /// True when everything that was added was taken away again.
    pub fn is_zero(&self) -> bool {
        match &self.more {
            None => self.limb == 0,
            Some(more) => {
                more.nan == 0
                    && more.plus_infinity == 0
                    && more.minus_infinity == 0
                    && matches!(self.digits(), (_, None))
            }
        }
    }

    /// The sum, rounded to nearest, ties to even.
    pub fn value(&self) -> f64 {
        let Some(more) = &self.more else {
            return round(self.limb < 0, self.limb.unsigned_abs(), false, self.limb_number * LIMB_BITS);
        };
        if more.nan != 0 || (more.plus_infinity != 0 && more.minus_infinity != 0) {
            return f64::NAN;
        }
        if more.plus_infinity != 0 {
            return f64::INFINITY;
        }
        if more.minus_infinity != 0 {
            return f64::NEG_INFINITY;
        }
        let ((negative, digits), Some(top)) = self.digits() else {
            return 0.0;
        };
        let low = top.saturating_sub(3);
        let head = (low..=top).rev().fold(0u128, |head, i| head << LIMB_BITS | u128::from(digits[i]));
        let sticky = digits[..low].iter().any(|digit| *digit != 0);
        round(negative, head, sticky, low as u32 * LIMB_BITS)
    }

    /// Writes the sum.
    #[inline]
    pub fn save(&self, out: &mut StateWriter) {
        let more = if self.more.is_some() { HAS_MORE } else { 0 };
        out.u8(self.limb_number as u8 | more);
        out.i128(self.limb);
        if let Some(more) = &self.more {
            out.all(more.limbs.iter(), |out, (number, limb)| {
                out.u8(*number as u8);
                out.i128(*limb);
            });
            [more.nan, more.plus_infinity, more.minus_infinity].into_iter().for_each(|count| out.i64(count));
        }
    }

    /// The sum that [`ExactFloatSum::save`] wrote.
    ///
    /// # Errors
    /// When it was written by something else.
    #[inline]
    pub fn load(saved: &mut StateReader<'_>) -> Result<ExactFloatSum> {
        let head = saved.u8()?;
        let (limb_number, limb) = (u32::from(head & !HAS_MORE), saved.i128()?);
        let more = if head & HAS_MORE == 0 { None } else { Some(Box::new(More::load(saved)?)) };
        let others = more.iter().flat_map(|more| &more.limbs).map(|(number, _)| *number);
        let mut known = [false; LIMBS_MAX];
        for number in others.chain([limb_number]) {
            match known.get_mut(number as usize) {
                Some(known) if !*known => *known = true,
                _ => return Err(damaged("a sum of floats has a limb twice, or out of range")),
            }
        }
        Ok(ExactFloatSum { limb, limb_number, more })
    }

    /// Sign and magnitude in base 2^32, and the place of the highest digit that is not zero.
    fn digits(&self) -> ((bool, [u32; LIMBS_MAX]), Option<usize>) {
        let mut limbs = [0i128; LIMBS_MAX];
        limbs[self.limb_number as usize] = self.limb;
        for (number, limb) in self.more.iter().flat_map(|more| &more.limbs) {
            limbs[*number as usize] = *limb;
        }
        let mut digits = [0u32; LIMBS_MAX];
        let mut carry = 0i128;
        for (digit, limb) in digits.iter_mut().zip(limbs) {
            // Adding the parts apart can't overflow.
            let low = (limb & 0xffff_ffff) + (carry & 0xffff_ffff);
            *digit = low as u32;
            carry = (limb >> LIMB_BITS) + (carry >> LIMB_BITS) + (low >> LIMB_BITS);
        }
        debug_assert!(carry == 0 || carry == -1, "the highest limbs hold only sign");
        if carry < 0 {
            let mut borrow = true;
            for digit in &mut digits {
                let (negated, overflow) = (!*digit).overflowing_add(u32::from(borrow));
                *digit = negated;
                borrow = overflow;
            }
        }
        let top = digits.iter().rposition(|digit| *digit != 0);
        ((carry < 0, digits), top)
    }
}

/// `magnitude * 2^(shift - 1074)`, where `sticky` tells that a little more was cut off below.
fn round(negative: bool, magnitude: u128, sticky: bool, shift: u32) -> f64 {
    if magnitude == 0 {
        return 0.0;
    }
    let length = 128 - magnitude.leading_zeros();
    let bits = if length + shift <= 53 {
        // Below 2^53 units the number of units is the bit pattern; nothing is cut off there.
        (magnitude as u64) << shift
    } else {
        let drop = i64::from(length) - 53;
        let mut mantissa = if drop >= 0 { (magnitude >> drop) as u64 } else { (magnitude as u64) << -drop };
        if drop > 0 {
            let rest = magnitude & ((1 << drop) - 1);
            let half = 1u128 << (drop - 1);
            if rest > half || (rest == half && (sticky || mantissa & 1 == 1)) {
                mantissa += 1;
            }
        }
        // The mantissa's top bit adds the one that the exponent field is short of.
        let exponent = (i64::from(shift) + drop) as u64;
        match (exponent << 52).checked_add(mantissa) {
            Some(bits) if exponent < 2047 && bits < 0x7ff << 52 => bits,
            _ => 0x7ff << 52,
        }
    };
    let value = f64::from_bits(bits);
    if negative { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactFloatSum::default();
        values.iter().for_each(|value| sum.add(*value, 1));
        sum.value()
    }

    #[test]
    fn one_value_comes_back_as_it_is() {
        let mut values =
            vec![1.0, -1.0, 0.1, 1e308, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324, 1e16];
        let mut state = 88172645463325252u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values.push(f64::from_bits(state));
        }
        for value in values.into_iter().filter(|value| value.is_finite()) {
            assert_eq!(sum(&[value]).to_bits(), value.to_bits(), "{value:e}");
            let mut other = ExactFloatSum::default();
            other.add(1e300, 3);
            other.add(value, 1);
            other.add(1e300, -3);
            assert_eq!(other.value().to_bits(), value.to_bits(), "{value:e} after retraction");
        }
    }

    #[test]
    fn rounds_once_to_nearest_even() {
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[1e16, 1.0, -1e16]), 1.0);
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        let ulp = f64::EPSILON;
        assert_eq!(sum(&[1.0, ulp / 2.0]), 1.0);
        assert_eq!(sum(&[1.0, ulp, ulp / 2.0]), 1.0 + 2.0 * ulp);
        assert_eq!(sum(&[1.0, ulp / 2.0, 5e-324]), 1.0 + ulp);
        assert_eq!(sum(&[1.0, ulp / 2.0, -5e-324]), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum(&[-0.0, -0.0]).to_bits(), 0);
    }

    #[test]
    fn matches_integer_arithmetic_with_any_order_and_weight() {
        // Values are whole multiples of 2^-20 below 2^60, so that i128 is an exact oracle.
        let mut state = 42u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..500 {
            let mut exact = 0i128;
            let mut sum = ExactFloatSum::default();
            let mut other = ExactFloatSum::default();
            for i in 0..next() % 50 {
                let mantissa = (next() >> 11) as i64 * if next() % 2 == 0 { 1 } else { -1 };
                let power = (next() % 28) as i32;
                let weight = [1, -1, 2, -7, 1 << 40][(next() % 5) as usize];
                let value = mantissa as f64 * 2f64.powi(power - 20);
                exact += (i128::from(mantissa) << power) * i128::from(weight);
                if i % 2 == 0 {
                    sum.add(value, weight)
                } else {
                    other.add(value, weight)
                };
            }
            sum.merge(&other, 1);
            assert_eq!(sum.value(), exact as f64 * 2f64.powi(-20));
            assert_eq!(sum.is_zero(), exact == 0);
        }
    }

    #[test]
    fn specials_are_counted() {
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        let mut sum = ExactFloatSum::default();
        sum.add(2.5, 1);
        sum.add(f64::NAN, 2);
        sum.add(f64::NEG_INFINITY, 1);
        sum.add(f64::NAN, -2);
        assert_eq!(sum.value(), f64::NEG_INFINITY);
        sum.add(f64::NEG_INFINITY, -1);
        assert_eq!(sum.value(), 2.5);
        sum.add(2.5, -1);
        assert!(sum.is_zero());
    }

    #[test]
    fn full_limbs_move_on() {
        let mut sum = ExactFloatSum::default();
        for _ in 0..64 {
            sum.add(f64::MAX, i64::MAX);
            sum.add(1.5, i64::MAX);
        }
        for _ in 0..64 {
            sum.add(f64::MAX, -i64::MAX);
        }
        assert_eq!(sum.value(), 1.5 * 64.0 * i64::MAX as f64);
    }
}
