//! The bytes of one simulated file: what reads see, what is durable, and what lies between.

/// Smallest unit a disk writes: a power cut keeps or loses it as a whole.
pub const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
pub struct FileState {
    /// What reads see.
    pub content: Vec<u8>,
    /// What a power cut leaves.
    pub durable: Vec<u8>,
    /// Changes of `content` since the last sync, in order.
    pub pending: Vec<Pending>,
}

#[derive(Debug)]
pub enum Pending {
    Write { position: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

impl FileState {
    /// Decides what of the unsynced writes reached the platter, and forgets them.
    pub fn lose_pending(&mut self, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        match random.below(4) {
            0 => {}
            1 => pending.iter().for_each(|change| apply(&mut self.durable, change)),
            2 => {
                // In order, the last one torn at any byte.
                let kept = random.below(pending.len() as u64 + 1) as usize;
                pending[..kept].iter().for_each(|change| apply(&mut self.durable, change));
                if let Some(Pending::Write { position, bytes }) = pending.get(kept) {
                    let cut = random.below(bytes.len() as u64 + 1) as usize;
                    write(&mut self.durable, *position, &bytes[..cut]);
                }
            }
            _ => {
                for change in &pending {
                    match change {
                        Pending::Write { position, bytes } => {
                            for (start, end) in sectors(*position, bytes.len()) {
                                if random.below(2) == 0 {
                                    let sector = &bytes[start - position..end - position];
                                    write(&mut self.durable, start, sector);
                                }
                            }
                        }
                        truncate => apply(&mut self.durable, truncate),
                    }
                }
            }
        }
    }
}

/// The parts of a range that lie in one sector each.
fn sectors(position: usize, length: usize) -> impl Iterator<Item = (usize, usize)> {
    let end = position + length;
    let mut start = position;
    std::iter::from_fn(move || {
        if start >= end {
            return None;
        }
        let sector_end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        let part = (start, sector_end);
        start = sector_end;
        Some(part)
    })
}

pub fn apply(bytes: &mut Vec<u8>, change: &Pending) {
    match change {
        Pending::Write { position, bytes: new } => write(bytes, *position, new),
        Pending::Truncate { length } => bytes.resize(*length, 0),
    }
}

pub fn write(bytes: &mut Vec<u8>, position: usize, new: &[u8]) {
    if new.is_empty() {
        return;
    }
    let end = position + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[position..end].copy_from_slice(new);
}

/// SplitMix64: small, seeded, good enough for choosing faults.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
