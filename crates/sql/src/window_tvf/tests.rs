use super::*;

fn windows(kind: WindowKind, ts: i64) -> Vec<(i64, i64)> {
    kind.windows(ts).collect()
}

#[test]
fn tumble_aligns_also_before_1970() {
    let kind = WindowKind::tumble(10, 0).unwrap();
    assert_eq!(windows(kind, 0), [(0, 10)]);
    assert_eq!(windows(kind, 9), [(0, 10)]);
    assert_eq!(windows(kind, 10), [(10, 20)]);
    assert_eq!(windows(kind, -1), [(-10, 0)]);
    assert_eq!(windows(kind, -10), [(-10, 0)]);
    assert_eq!(windows(kind, -11), [(-20, -10)]);
}

#[test]
fn offsets_shift_and_may_be_negative_or_large() {
    for offset in [3, 13, -7] {
        let kind = WindowKind::tumble(10, offset).unwrap();
        assert_eq!(windows(kind, 2), [(-7, 3)]);
        assert_eq!(windows(kind, 3), [(3, 13)]);
    }
    let kind = WindowKind::hop(5, 10, 1).unwrap();
    assert_eq!(windows(kind, 0), [(-9, 1), (-4, 6)]);
    assert_eq!(windows(kind, 1), [(-4, 6), (1, 11)]);
    let kind = WindowKind::cumulate(5, 10, 1).unwrap();
    assert_eq!(windows(kind, 0), [(-9, 1)]);
    assert_eq!(windows(kind, 1), [(1, 6), (1, 11)]);
}

#[test]
fn hop_gives_every_window_that_holds_the_row() {
    let kind = WindowKind::hop(5, 15, 0).unwrap();
    assert_eq!(windows(kind, 7), [(-5, 10), (0, 15), (5, 20)]);
    assert_eq!(windows(kind, -1), [(-15, 0), (-10, 5), (-5, 10)]);
}

#[test]
fn cumulate_grows_within_the_size() {
    let kind = WindowKind::cumulate(5, 15, 0).unwrap();
    assert_eq!(windows(kind, 0), [(0, 5), (0, 10), (0, 15)]);
    assert_eq!(windows(kind, 5), [(0, 10), (0, 15)]);
    assert_eq!(windows(kind, 14), [(0, 15)]);
    assert_eq!(windows(kind, -1), [(-15, 0)]);
}

/// The definition, checked the slow way: a row is in exactly the aligned windows around it.
#[test]
fn windows_are_those_that_hold_the_row() {
    for offset in -3..3 {
        for ts in -40..40 {
            let kind = WindowKind::hop(4, 12, offset).unwrap();
            let expected: Vec<(i64, i64)> = (-100..100)
                .map(|n| n * 4 + offset)
                .filter(|start| *start <= ts && ts < start + 12)
                .map(|start| (start, start + 12))
                .collect();
            assert_eq!(windows(kind, ts), expected, "hop ts {ts} offset {offset}");

            let kind = WindowKind::cumulate(4, 12, offset).unwrap();
            let expected: Vec<(i64, i64)> = (-100..100)
                .map(|n| n * 12 + offset)
                .flat_map(|start| [4, 8, 12].map(|size| (start, start + size)))
                .filter(|(start, end)| *start <= ts && ts < *end)
                .collect();
            assert_eq!(windows(kind, ts), expected, "cumulate ts {ts} offset {offset}");
        }
    }
}

#[test]
fn times_at_the_edge_do_not_overflow() {
    for kind in [
        WindowKind::tumble(10, 0).unwrap(),
        WindowKind::hop(5, 10, 0).unwrap(),
        WindowKind::cumulate(5, 10, 0).unwrap(),
    ] {
        for ts in [i64::MIN, i64::MIN + 1, i64::MAX] {
            assert!(kind.windows(ts).all(|(start, end)| start <= end), "{kind} {ts}");
        }
    }
}

#[test]
fn sizes_are_checked() {
    let message = |kind: Result<WindowKind>| kind.unwrap_err().message;
    assert_eq!(message(WindowKind::tumble(0, 0)), "size of TUMBLE must be positive");
    assert_eq!(message(WindowKind::hop(-1, 10, 0)), "slide of HOP must be positive");
    assert_eq!(
        message(WindowKind::hop(7_000_000, 60_000_000, 0)),
        "size 1 minute of HOP is not a multiple of its slide 7 seconds"
    );
    assert_eq!(
        message(WindowKind::cumulate(60_000_000, 90_000_000, 0)),
        "size 1 minute 30 seconds of CUMULATE is not a multiple of its step 1 minute"
    );
    assert!(message(WindowKind::hop(1, 86_400_000_000, 0)).contains("86400000000 windows"));
}
