//! One record as bytes: a header that proves itself, then the payload.
//!
//! ```text
//!   0      2    3         4               8        16       20            24            28           32
//!   | mark | kind | zero | payload length | offset | stream | into commit | payload crc | header crc | payload ...
//! ```
//!
//! The header's checksum starts from the segment's salt, a secret number: rows come from the internet,
//! and a payload that contains the bytes of a frame must not pass for one when a torn tail is examined.
//! `into commit` is the distance to the start of the commit, which tells where durability was certain
//! when the frame was written.

/// Bytes before the payload.
pub const FRAME_HEADER_BYTES: usize = 32;

const MARK: [u8; 2] = [0xF5, 0x1E];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: u8,
    pub payload_length: u32,
    pub offset: u64,
    pub stream: u32,
    pub into_commit: u32,
}

impl FrameHeader {
    pub fn frame_length(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_length)
    }

    /// Appends header and payload to `out`.
    pub fn write(&self, salt: u32, payload: &[u8], out: &mut Vec<u8>) {
        assert!(payload.len() == self.payload_length as usize);
        let mut header = [0; FRAME_HEADER_BYTES];
        header[0..2].copy_from_slice(&MARK);
        header[2] = self.kind;
        header[4..8].copy_from_slice(&self.payload_length.to_le_bytes());
        header[8..16].copy_from_slice(&self.offset.to_le_bytes());
        header[16..20].copy_from_slice(&self.stream.to_le_bytes());
        header[20..24].copy_from_slice(&self.into_commit.to_le_bytes());
        header[24..28].copy_from_slice(&payload_crc(payload).to_le_bytes());
        let crc = header_crc(salt, &header);
        header[28..32].copy_from_slice(&crc.to_le_bytes());
        out.reserve(FRAME_HEADER_BYTES + payload.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
    }

    /// The header and the payload's checksum, if the bytes are a header of a segment with this salt.
    pub fn parse(salt: u32, bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<(FrameHeader, u32), &'static str> {
        if bytes[0..2] != MARK {
            return Err("no record starts here");
        }
        if u32_at(bytes, 28) != header_crc(salt, bytes) {
            return Err("checksum of the record header does not match");
        }
        let header = FrameHeader {
            kind: bytes[2],
            payload_length: u32_at(bytes, 4),
            offset: u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32,
            stream: u32_at(bytes, 16),
            into_commit: u32_at(bytes, 20),
        };
        Ok((header, u32_at(bytes, 24)))
    }
}

pub fn payload_crc(payload: &[u8]) -> u32 {
    crc32fast::hash(payload)
}

fn header_crc(salt: u32, bytes: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&bytes[..28]);
    hasher.finalize()
}

/// Positions in `bytes` at which a header of the segment stands, with the header.
pub fn find_headers(salt: u32, bytes: &[u8]) -> impl Iterator<Item = (usize, FrameHeader)> {
    bytes.windows(FRAME_HEADER_BYTES).enumerate().filter_map(move |(position, window)| {
        if window[0..2] != MARK {
            return None;
        }
        let window = window.try_into().expect("a window has the header's size");
        FrameHeader::parse(salt, window).ok().map(|(header, _)| (position, header))
    })
}

fn u32_at(bytes: &[u8; FRAME_HEADER_BYTES], position: usize) -> u32 {
    u32::from_le_bytes([bytes[position], bytes[position + 1], bytes[position + 2], bytes[position + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FrameHeader =
        FrameHeader { kind: 7, payload_length: 3, offset: 0x0102_0304_0506_0708, stream: 9, into_commit: 10 };

    /// Guards the format: these bytes must stay readable for ever.
    #[test]
    fn the_bytes_are_those_of_the_documentation() {
        let mut bytes = Vec::new();
        HEADER.write(0, b"abc", &mut bytes);
        let text: Vec<String> =
            bytes.chunks(4).map(|four| four.iter().map(|b| format!("{b:02x}")).collect()).collect();
        assert_eq!(
            text.join(" "),
            "f51e0700 03000000 08070605 04030201 09000000 0a000000 c2412435 a6c3ac6f 616263"
        );
    }

    #[test]
    fn a_header_is_found_with_the_right_salt_only() {
        let mut bytes = vec![0xF5; 5];
        HEADER.write(77, b"abc", &mut bytes);
        assert_eq!(find_headers(77, &bytes).collect::<Vec<_>>(), [(5, HEADER)]);
        assert_eq!(find_headers(78, &bytes).count(), 0);
    }
}
