//! Followers of changes: those that keep up get every one, those that don't are let go before they cost memory.

use tokio::sync::mpsc::error::TryRecvError;

use super::harness::Harness;

/// A row of a megabyte, again and again.
fn change(db: &Harness, count: usize, mut after_each: impl FnMut()) {
    for n in 0..count {
        db.run(&format!("INSERT INTO t VALUES (1, repeat('{}', 1000000))", n % 10));
        after_each();
    }
}

#[test]
fn a_follower_that_takes_nothing_is_let_go_after_sixteen_megabytes() {
    let db = Harness::new(1);
    db.run("CREATE TABLE t (id INT PRIMARY KEY, text TEXT)");
    let mut slow = db.database().subscribe("t", None).unwrap().changes;
    let mut fast = db.database().subscribe("t", None).unwrap().changes;
    let mut seen = 0;
    change(&db, 30, || {
        while let Ok(change) = fast.try_recv() {
            change.unwrap();
            seen += 1;
        }
    });
    assert_eq!(seen, 30, "who keeps up gets every change");
    // A change is the old row and the new one.
    let mut waited = 0;
    let ended = loop {
        match slow.try_recv() {
            Ok(change) => {
                change.unwrap();
                waited += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(ended, TryRecvError::Disconnected, "it is told by the end of its changes");
    assert!((6..=9).contains(&waited), "{waited} changes of two megabytes waited");
}

#[test]
fn changes_are_kept_for_those_who_come_back_up_to_sixteen_megabytes() {
    let db = Harness::new(1);
    db.run("CREATE TABLE t (id INT PRIMARY KEY, text TEXT)");
    let first = db.database().subscribe("t", None).unwrap();
    let mut ticks = Vec::new();
    change(&db, 20, || ticks.push(db.database().status().tick));
    let resumed = |after| db.database().subscribe("t", Some(after)).unwrap();
    let mut recent = resumed(ticks[16]);
    assert!(recent.snapshot.is_none(), "three changes are kept");
    let missed = std::iter::from_fn(|| recent.changes.try_recv().ok()).count();
    assert_eq!(missed, 3);
    assert!(resumed(first.tick).snapshot.is_some(), "forty megabytes are not");
}
