//! Numbers of any size: seven bits a byte, the lowest first, the top bit says that more follow.

/// Appends `value`.
pub fn write_unsigned(mut value: u128, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` so that numbers near zero are short, whatever their sign.
pub fn write_signed(value: i128, out: &mut Vec<u8>) {
    write_unsigned((value << 1 ^ value >> 127) as u128, out);
}

/// Takes a number from the front of `bytes`; `None` if it is cut off or too long.
pub fn read_unsigned(bytes: &mut &[u8]) -> Option<u128> {
    let mut value = 0u128;
    let mut shift = 0;
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u128::from(byte & 0x7F);
        if shift > 126 || (shift == 126 && bits > 3) {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

pub fn read_signed(bytes: &mut &[u8]) -> Option<i128> {
    let value = read_unsigned(bytes)?;
    Some((value >> 1) as i128 ^ -((value & 1) as i128))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, -1, 63, 64, -65, i128::from(i64::MIN), i128::MAX, i128::MIN] {
            let mut bytes = Vec::new();
            write_signed(value, &mut bytes);
            let mut rest = bytes.as_slice();
            assert_eq!(read_signed(&mut rest), Some(value));
            assert!(rest.is_empty());
            assert_eq!(read_signed(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(read_unsigned(&mut [0xFF; 30].as_slice()), None);
    }
}
