//! Bytes of rows, in segments, with the room of removed rows reused.
//!
//! Growing never moves rows (a segment is full before the next begins), and a removed row's room goes to
//! the next row of the same length, which is the usual one: the new version of an updated row.

/// Where a row's bytes stand: the segment in the upper bits, the offset in units of 8 bytes in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// Rows begin at multiples of this.
const ALIGNMENT: usize = 8;

#[derive(Default)]
pub struct Arena {
    segments: Vec<Vec<u8>>,
    // Room of removed rows by length in units of `ALIGNMENT`.
    room: Vec<Vec<Place>>,
    live_bytes: usize,
    free_bytes: usize,
}

impl Arena {
    /// Bytes per segment; a longer row has a segment of its own.
    const SEGMENT_BYTES: usize = ALIGNMENT << Arena::OFFSET_BITS;
    const OFFSET_BITS: u32 = 15;
    /// Longer rows' room is not reused before compaction.
    const REUSED_LENGTH_MAX: usize = 1024;
    /// Below this, holes are not worth the copying.
    const COMPACTION_BYTES_MIN: usize = 1024 * 1024;

    /// # Panics
    /// If it would hold more than 32 GiB.
    pub fn insert(&mut self, row: &[u8]) -> Place {
        let units = row.len().div_ceil(ALIGNMENT);
        let room = units * ALIGNMENT;
        self.live_bytes += room;
        if let Some(place) = self.room.get_mut(units).and_then(Vec::pop) {
            self.free_bytes -= room;
            let (segment, offset) = split(place);
            self.segments[segment][offset..offset + row.len()].copy_from_slice(row);
            return place;
        }
        // A row of no bytes stands somewhere too, so its offset must be inside.
        let fits = self.segments.last().is_some_and(|s| s.len() + room.max(1) <= Arena::SEGMENT_BYTES);
        if !fits {
            // The first segment grows from nothing, so that many small arenas stay small.
            let capacity = if self.segments.is_empty() { 0 } else { Arena::SEGMENT_BYTES.max(room) };
            self.segments.push(Vec::with_capacity(capacity));
        }
        let number = self.segments.len() - 1;
        assert!(number < 1 << (u32::BITS - Arena::OFFSET_BITS), "an operator keeps less than 32 GiB of rows");
        let segment = &mut self.segments[number];
        let place = Place(((number << Arena::OFFSET_BITS) | (segment.len() / ALIGNMENT)) as u32);
        segment.extend_from_slice(row);
        segment.resize(segment.len() + room - row.len(), 0);
        place
    }

    #[inline]
    pub fn get(&self, place: Place, length: u32) -> &[u8] {
        let (segment, offset) = split(place);
        &self.segments[segment][offset..offset + length as usize]
    }

    /// Gives the row's room back.
    pub fn remove(&mut self, place: Place, length: u32) {
        let units = (length as usize).div_ceil(ALIGNMENT);
        self.live_bytes -= units * ALIGNMENT;
        self.free_bytes += units * ALIGNMENT;
        if units < Arena::REUSED_LENGTH_MAX / ALIGNMENT {
            if self.room.len() <= units {
                self.room.resize_with(units + 1, Vec::new);
            }
            self.room[units].push(place);
        }
    }

    /// True when more than half is holes: the owner then moves its rows to a new arena.
    pub fn wants_compaction(&self) -> bool {
        self.free_bytes > Arena::COMPACTION_BYTES_MIN && self.free_bytes > self.live_bytes
    }

    pub fn size_bytes(&self) -> usize {
        let segments: usize = self.segments.iter().map(Vec::capacity).sum();
        let room: usize = self.room.iter().map(|places| places.capacity() * size_of::<Place>()).sum();
        segments + room
    }
}

#[inline]
fn split(place: Place) -> (usize, usize) {
    ((place.0 >> Arena::OFFSET_BITS) as usize, (place.0 as usize * ALIGNMENT) & (Arena::SEGMENT_BYTES - 1))
}
