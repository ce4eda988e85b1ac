//! Power cuts, kills and failing operations at every point.

use super::*;

/// What a client of the log knows: payloads by offset, in the order of commits.
#[derive(Default)]
struct Model {
    committed: Vec<Vec<u8>>,
    /// Appended by a commit that failed or never ended: they may be there or not.
    uncertain: Vec<Vec<Vec<u8>>>,
    attempt: u64,
}

impl Model {
    /// Appends a few records and commits; true if acknowledged.
    fn write(&mut self, log: &mut Log, records: u64) -> Result<(), LogError> {
        self.attempt += 1;
        let first = self.committed.len() as u64;
        assert_eq!(log.next_offset(), Offset(first));
        let payloads: Vec<Vec<u8>> = (first..first + records).map(|n| payload(n, self.attempt)).collect();
        for (number, payload) in payloads.iter().enumerate() {
            let (offset, _) = log.append(self.attempt as u8, 1, payload)?;
            assert_eq!(offset, Offset(first + number as u64));
        }
        match log.commit() {
            Ok(next) => {
                self.committed.extend(payloads);
                self.uncertain.clear();
                assert_eq!(next, Offset(self.committed.len() as u64));
                Ok(())
            }
            Err(error) => {
                self.uncertain.push(payloads);
                Err(error)
            }
        }
    }

    /// Everything committed is there; what follows is the beginning of one commit that was tried.
    fn check(&mut self, log: &Log, context: &str) {
        let found = read_all(log);
        assert!(found.len() >= self.committed.len(), "{context}: committed records are missing");
        let (committed, rest) = found.split_at(self.committed.len());
        assert!(committed == self.committed, "{context}: a committed record has changed");
        assert!(
            rest.is_empty() || self.uncertain.iter().any(|tried| tried.starts_with(rest)),
            "{context}: records that were never appended together: {rest:?}"
        );
        self.committed = found;
        self.uncertain.clear();
    }
}

/// Writes commits of different sizes until one fails.
fn write_until_failure(log: &mut Log, model: &mut Model, commits: u64) -> Result<(), LogError> {
    for number in 0..commits {
        model.write(log, 1 + number * 5 % 13)?;
    }
    Ok(())
}

/// Guards the promise of an acknowledgement, with a power cut at every operation that changes the disk,
/// several times in a row, also during recovery.
#[test]
fn a_power_cut_at_any_point_loses_nothing_committed() {
    for seed in 0..300u64 {
        let disk = FaultyDisk::new(seed);
        let mut model = Model::default();
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..5 {
            disk.crash_at(1 + (seed + round * 7) % 40);
            let context = format!("seed {seed} round {round}");
            match open(&disk, 2_500) {
                Ok((mut log, _)) => {
                    model.check(&log, &context);
                    let result = write_until_failure(&mut log, &mut model, 30);
                    assert!(result.is_err() || !disk.is_down());
                }
                Err(_) => assert!(disk.is_down(), "{context}: opens unless the power is off"),
            }
            if random.bool() {
                disk.heal();
            }
            disk.crash();
        }
        disk.heal();
        let (log, _) = open(&disk, 2_500).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.check(&log, &format!("seed {seed} at the end"));
    }
}

/// Guards against taking a lost sector in the middle of an unfinished write for damage.
#[test]
fn sectors_of_an_unfinished_commit_may_be_lost_in_any_order() {
    let mut holes = 0;
    for seed in 0..400 {
        let disk = FaultyDisk::new(seed);
        let (mut log, _) = open(&disk, 1 << 20).unwrap();
        let mut model = Model::default();
        model.write(&mut log, 5).unwrap();
        let synced = disk.content(&segment(0)).unwrap().len();
        disk.crash_at(1);
        model.write(&mut log, 60).unwrap_err();
        disk.crash();
        let tail = disk.content(&segment(0)).unwrap().split_off(synced);
        let zero = tail.chunks(8).position(|bytes| bytes.iter().all(|byte| *byte == 0));
        holes += zero.is_some_and(|zero| tail[zero * 8..].iter().any(|byte| *byte != 0)) as u32;
        let (log, _) = open(&disk, 1 << 20).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.check(&log, &format!("seed {seed}"));
    }
    assert!(holes > 30, "the disk made only {holes} holes");
}

/// Guards the rule that after a failed sync or write nothing is acknowledged any more, and that nothing
/// acknowledged is lost.
#[test]
fn a_failed_write_or_sync_stops_writes_and_keeps_reads() {
    for operation in [Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Create] {
        for nth in 1..=50 {
            let context = format!("{operation:?} number {nth} fails");
            let disk = FaultyDisk::new(nth);
            let (mut log, _) = open(&disk, 900).unwrap();
            let mut model = Model::default();
            disk.fail(operation, nth, Fault::Io);
            let error = write_until_failure(&mut log, &mut model, 400).unwrap_err();
            assert_eq!(read_all(&log), model.committed, "{context}: reads go on");
            if operation == Operation::Create {
                assert!(matches!(error, LogError::Io { .. }) && error.can_retry(), "{context}: {error}");
                model.write(&mut log, 3).unwrap();
            } else {
                assert!(
                    matches!(error, LogError::Poisoned { .. }) && !error.can_retry(),
                    "{context}: {error}"
                );
                let syncs = disk.count(Operation::Sync) + disk.count(Operation::SyncDir);
                let writes = disk.count(Operation::Write);
                assert!(matches!(log.append(1, 1, b"more"), Err(LogError::Poisoned { .. })));
                assert!(matches!(log.commit(), Err(LogError::Poisoned { .. })));
                assert_eq!(disk.count(Operation::Sync) + disk.count(Operation::SyncDir), syncs, "{context}");
                assert_eq!(disk.count(Operation::Write), writes, "{context}");
            }
            // The process ends, a new one shows what it finds, then the power fails.
            disk.kill();
            let (mut log, _) = open(&disk, 900).unwrap_or_else(|error| panic!("{context}: {error}"));
            model.check(&log, &context);
            // Into a segment whose name may not have been durable before the kill.
            if nth % 2 == 0 {
                model.write(&mut log, 2).unwrap();
            }
            disk.crash();
            let (mut log, _) = open(&disk, 900).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(read_all(&log), model.committed, "{context}: what was shown to readers stays");
            model.write(&mut log, 3).unwrap();
        }
    }
}

#[test]
fn a_sync_that_fails_for_lack_of_space_is_final_too() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 900).unwrap();
    disk.fail(Operation::Sync, 1, Fault::Full);
    let error = Model::default().write(&mut log, 1).unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
}

#[test]
fn short_and_interrupted_writes_are_completed() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 900).unwrap();
    let mut model = Model::default();
    for nth in 1..100 {
        disk.fail(Operation::Write, nth, if nth % 3 == 0 { Fault::Interrupted } else { Fault::Short });
    }
    write_until_failure(&mut log, &mut model, 30).unwrap();
    drop(log);
    let (log, _) = open(&disk, 900).unwrap();
    assert_eq!(read_all(&log), model.committed);
}

/// Guards against a full disk that needs a restart, or that leaves half a record.
#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    for space in 0..700 {
        let disk = FaultyDisk::new(space);
        let (mut log, _) = open(&disk, 600).unwrap();
        let mut model = Model::default();
        disk.set_space_left(Some(space));
        let error = write_until_failure(&mut log, &mut model, 100).unwrap_err();
        assert!(matches!(error, LogError::DiskFull { .. }) && error.can_retry(), "{error}");
        assert!(error.to_string().contains("free space on the disk"), "{error}");
        assert_eq!(read_all(&log), model.committed);
        assert!(matches!(model.write(&mut log, 20).unwrap_err(), LogError::DiskFull { .. }));
        if space % 2 == 0 {
            disk.crash();
            log = open(&disk, 600).unwrap().0;
            model.check(&log, &format!("{space} bytes"));
        }
        disk.set_space_left(None);
        write_until_failure(&mut log, &mut model, 10).unwrap();
        assert_eq!(read_all(&log), model.committed);
        drop(log);
        disk.crash();
        let (log, recovery) = open(&disk, 600).unwrap();
        assert_eq!(recovery.torn_tail, None);
        assert_eq!(read_all(&log), model.committed);
    }
}

#[test]
fn failing_to_cut_an_incomplete_write_stops_writes() {
    for operation in [Operation::Truncate, Operation::Sync] {
        let disk = FaultyDisk::new(1);
        let (mut log, _) = open(&disk, 1 << 20).unwrap();
        let mut model = Model::default();
        model.write(&mut log, 5).unwrap();
        disk.set_space_left(Some(100));
        disk.fail(operation, 1, Fault::Io);
        let error = model.write(&mut log, 20).unwrap_err();
        assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
        disk.heal();
        disk.kill();
        let (log, _) = open(&disk, 1 << 20).unwrap();
        model.check(&log, "after the restart");
    }
}

/// Guards against records from before a full disk showing up between those written after it.
#[test]
fn random_full_disks_and_power_cuts_never_mix_attempts() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = FaultyDisk::new(seed);
        let mut model = Model::default();
        let (mut log, _) = open(&disk, 3_000).unwrap();
        for step in 0..40 {
            let context = format!("seed {seed} step {step}");
            match random.u32(0..10) {
                0 => {
                    disk.crash_at(random.u64(1..6));
                    while !disk.is_down() {
                        let _ = model.write(&mut log, random.u64(1..20));
                    }
                    disk.crash();
                    log = open(&disk, 3_000).unwrap_or_else(|error| panic!("{context}: {error}")).0;
                    model.check(&log, &context);
                }
                1 => {
                    drop(log);
                    disk.kill();
                    log = open(&disk, 3_000).unwrap_or_else(|error| panic!("{context}: {error}")).0;
                    model.check(&log, &context);
                }
                2..5 => {
                    disk.set_space_left(Some(random.u64(0..2_000)));
                    let _ = model.write(&mut log, random.u64(1..20));
                    disk.set_space_left(None);
                }
                _ => model.write(&mut log, random.u64(1..20)).unwrap(),
            }
        }
        assert_eq!(read_all(&log), model.committed, "seed {seed}");
    }
}
