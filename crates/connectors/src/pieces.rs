//! Bytes that come until they end, however many they are.
//!
//! A vector that grows by doubling holds, while it moves, three times what came. Here what came is kept in blocks and
//! copied once, when all of it is there; a block is given back as soon as it is copied. So a body that turns out to be
//! too long costs no more than the limit that it broke.

/// Large enough that blocks don't count, small enough that a half empty one doesn't either.
const BLOCK_BYTES: usize = 1 << 20;

/// The bytes so far.
#[derive(Default)]
pub struct Pieces {
    // Invariant: all blocks but the last have `BLOCK_BYTES`.
    blocks: Vec<Vec<u8>>,
    length: usize,
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            match self.blocks.last_mut().filter(|block| block.len() < BLOCK_BYTES) {
                Some(block) => {
                    let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - block.len()));
                    block.extend_from_slice(now);
                    bytes = later;
                }
                None => self.blocks.push(Vec::new()),
            }
        }
    }

    /// All of them in one.
    pub fn into_vec(mut self) -> Vec<u8> {
        if self.blocks.len() <= 1 {
            return self.blocks.pop().unwrap_or_default();
        }
        let mut bytes = Vec::with_capacity(self.length);
        for block in self.blocks {
            bytes.extend_from_slice(&block);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_come_out_as_they_went_in() {
        for size in [1, 7, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let mut pieces = Pieces::default();
            let mut whole = Vec::new();
            for number in 0..(3 * BLOCK_BYTES / size).clamp(3, 5000) {
                let piece = vec![number as u8; size];
                pieces.push(&piece);
                whole.extend(piece);
            }
            assert_eq!(pieces.len(), whole.len());
            assert!(pieces.blocks.iter().rev().skip(1).all(|block| block.len() == BLOCK_BYTES));
            assert!(pieces.into_vec() == whole, "pieces of {size} bytes");
        }
        assert!(Pieces::default().is_empty());
        assert_eq!(Pieces::default().into_vec(), b"");
    }
}
