//! What is known of a table's rows before the first one: names, and how their keys look in JSON.

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;
use dataflow::RandomState;

/// Column names, ready to be compared and looked up.
#[derive(Debug)]
pub(super) struct RowShape {
    pub(super) names: Vec<String>,
    pub(super) keys: Vec<KeyPattern>,
    exact: HashMap<Vec<u8>, usize, RandomState>,
    /// By lower case name, for names not found exactly.
    folded: HashMap<String, usize, RandomState>,
}

/// A key as it stands in a row: `"name"` with its quotes.
#[derive(Debug)]
pub(super) struct KeyPattern {
    bytes: Vec<u8>,
    // The first 16 bytes as two words, so that most keys are compared without a loop.
    words: [u64; 2],
    masks: [u64; 2],
}

impl KeyPattern {
    fn new(name: &str) -> KeyPattern {
        let bytes = format!("\"{name}\"").into_bytes();
        let (mut head, mut mask) = ([0u8; 16], [0u8; 16]);
        for (at, byte) in bytes.iter().take(16).enumerate() {
            head[at] = *byte;
            mask[at] = 0xff;
        }
        let words = |bytes: [u8; 16]| {
            let both = u128::from_le_bytes(bytes);
            [both as u64, (both >> 64) as u64]
        };
        KeyPattern { bytes, words: words(head), masks: words(mask) }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the key stands at `at`. A name with characters that JSON escapes never matches;
    /// it is found by lookup.
    #[inline(always)]
    pub(super) fn stands_at(&self, bytes: &[u8], at: usize) -> bool {
        let Some(head) = bytes.get(at..at + 16) else {
            return bytes[at..].starts_with(&self.bytes);
        };
        let both = u128::from_le_bytes(head.try_into().expect("16 bytes"));
        let difference = ((both as u64) ^ self.words[0]) & self.masks[0]
            | (((both >> 64) as u64) ^ self.words[1]) & self.masks[1];
        difference == 0 && (self.bytes.len() <= 16 || bytes[at..].starts_with(&self.bytes))
    }
}

impl RowShape {
    pub(super) fn new(schema: &SchemaRef) -> RowShape {
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut exact = HashMap::with_hasher(RandomState::new());
        let mut folded = HashMap::with_hasher(RandomState::new());
        for (column, name) in names.iter().enumerate() {
            exact.entry(name.clone().into_bytes()).or_insert(column);
            folded.entry(name.to_lowercase()).or_insert(column);
        }
        // A quote or backslash in a name would make the pattern end early or match wrongly.
        let keys = names
            .iter()
            .map(|name| if name.contains(['"', '\\']) { "\u{0}" } else { name })
            .map(KeyPattern::new)
            .collect();
        RowShape { names, keys, exact, folded }
    }

    /// The column a key names: exactly, or else in another case.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        if let Some(column) = self.exact.get(key) {
            return Some(*column);
        }
        let key = std::str::from_utf8(key).ok()?;
        self.folded.get(&key.to_lowercase()).copied()
    }
}

/// The name most like `wanted`, when one is near enough to be meant.
pub(crate) fn did_you_mean<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The cost below is a product of lengths, and long keys come from strangers.
    if wanted.len() > 64 {
        return None;
    }
    let wanted: Vec<char> = wanted.to_lowercase().chars().collect();
    let near_enough = (wanted.len() / 3).clamp(1, 3);
    names
        .filter(|name| name.len() <= 64)
        .map(|name| (edit_distance(&wanted, name), name))
        .filter(|(distance, _)| *distance <= near_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein distance.
fn edit_distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, b) in b.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, a) in a.iter().enumerate() {
            let substituted = diagonal + usize::from(*a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested() {
        let names = ["user_id", "item_id", "behavior", "ts"];
        let suggest = |wanted| did_you_mean(wanted, names.into_iter());
        assert_eq!(suggest("userid"), Some("user_id"));
        assert_eq!(suggest("behaviour"), Some("behavior"));
        assert_eq!(suggest("t"), Some("ts"));
        assert_eq!(suggest("price"), None);
        assert_eq!(suggest(&"x".repeat(1000)), None);
    }

    #[test]
    fn keys_match_whole_or_not_at_all() {
        for name in ["a", "fourteen_chars", "fifteen_chars_x", "a_name_of_more_than_sixteen_bytes"] {
            let key = KeyPattern::new(name);
            for tail in ["", ":1}", ":1,\"some more text behind it\":2}"] {
                let text = format!("{{\"{name}\"{tail}");
                assert!(key.stands_at(text.as_bytes(), 1), "{text}");
                let longer = format!("{{\"{name}s\"{tail}");
                assert!(!key.stands_at(longer.as_bytes(), 1), "{longer}");
            }
        }
    }
}
