//! "Did you mean": the known word nearest to a misspelt one.
//!
//! Distance counts insertions, deletions, replacements and swaps of neighbours (optimal string
//! alignment). A suggestion must be near enough to help: one slip for every three letters.

/// The candidate nearest to `word`, compared without case; `None` when none is near. The word
/// itself is not suggested, in other case it is.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    within(word, candidates, limit)
}

/// Like [`closest`], with a limit on the number of slips.
pub(crate) fn within<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    limit: usize,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let length = lower.chars().count();
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| {
            let candidate_length = candidate.chars().count();
            (
                distance(&lower, &candidate.to_lowercase()),
                length.abs_diff(candidate_length),
                candidate_length,
                candidate,
            )
        })
        .filter(|(slips, _, candidate_length, _)| *slips <= limit && slips < candidate_length)
        .min()
        .map(|(_, _, _, candidate)| candidate)
}

/// `did you mean "orders"?`
pub(crate) fn did_you_mean(name: &str) -> String {
    format!("did you mean \"{name}\"?")
}

fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_slips_once() {
        assert_eq!(distance("form", "from"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("orders", "orders"), 0);
        assert_eq!(distance("größe", "groesse"), 4);
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(closest("ordres", ["orders", "stock"]), Some("orders"));
        assert_eq!(closest("FORM", ["for", "from"]), Some("from"));
        assert_eq!(closest("Orders", ["orders"]), Some("orders"));
        assert_eq!(closest("orders", ["orders"]), None);
        assert_eq!(closest("customers", ["stock"]), None);
        assert_eq!(closest("a", ["b"]), None);
    }
}
