//! The real and the simulated disk behave alike; the simulated one fails as it is told.

use super::faulty::{Fault, Operation};
use super::*;

fn on_both(test: impl Fn(&dyn Disk, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    test(&RealDisk, &folder.path().join("a/b"));
    test(&FaultyDisk::new(1), Path::new("/a/b"));
}

#[test]
fn a_file_is_written_read_cut_renamed_listed_and_removed() {
    on_both(|disk, dir| {
        disk.create_dir_all(dir).unwrap();
        disk.create_dir_all(dir).unwrap();
        let file = disk.create(&dir.join("one")).unwrap();
        assert_eq!(disk.create(&dir.join("one")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        file.write_all_at(0, b"hello world").unwrap();
        file.write_all_at(6, b"shop!").unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir).unwrap();
        let mut buffer = [0; 32];
        assert_eq!(file.read_full_at(6, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"shop!");
        assert_eq!(file.read_full_at(100, &mut buffer).unwrap(), 0);
        file.truncate(3).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        assert!(!file.is_empty().unwrap());
        disk.rename(&dir.join("one"), &dir.join("two")).unwrap();
        disk.create(&dir.join("three")).unwrap();
        assert_eq!(disk.list(dir).unwrap(), [dir.join("three"), dir.join("two")]);
        assert_eq!(disk.open(&dir.join("one")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.open(&dir.join("two")).unwrap().len().unwrap(), 3);
        disk.remove(&dir.join("two")).unwrap();
        assert_eq!(disk.list(dir).unwrap(), [dir.join("three")]);
        assert_ne!(disk.random(), disk.random());
    });
}

/// Guards against two processes writing one log.
#[test]
fn a_second_opener_is_refused_with_the_pid_of_the_first() {
    on_both(|disk, dir| {
        disk.create_dir_all(dir).unwrap();
        let lock = DirLock::acquire(disk, dir).unwrap();
        assert_eq!(lock.dir(), dir);
        let error = DirLock::acquire(disk, dir).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()));
        assert_eq!(
            error.to_string(),
            format!(
                "data directory {} is in use by process {}; stop that process or choose another directory",
                dir.display(),
                std::process::id()
            )
        );
        drop(lock);
        DirLock::acquire(disk, dir).unwrap();
    });
    let missing = DirLock::acquire(&RealDisk, Path::new("/nowhere/at/all")).unwrap_err();
    assert!(matches!(missing, LockError::Io { .. }));
}

#[test]
fn a_crash_keeps_what_was_synced_and_loses_at_most_what_was_not() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        let file = disk.create(&dir.join("f")).unwrap();
        file.write_all_at(0, &[1; 1000]).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir).unwrap();
        file.write_all_at(1000, &[2; 2000]).unwrap();
        disk.create(&dir.join("unsynced")).unwrap();
        disk.crash();
        assert!(file.read_at(0, &mut [0; 1]).is_err(), "a handle does not survive");
        let content = disk.content(&dir.join("f")).unwrap();
        assert_eq!(content[..1000], [1; 1000]);
        assert!(content[1000..].iter().all(|byte| *byte == 2 || *byte == 0));
        match content.iter().filter(|byte| **byte == 2).count() {
            0 => lost += 1,
            2000 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 20 && kept > 20 && torn > 20, "{lost} lost, {kept} kept, {torn} torn");
}

/// Guards the simulation of Linux's behaviour: a second sync reports success for bytes that are gone.
#[test]
fn bytes_of_a_failed_sync_are_not_saved_by_the_next_one() {
    let lost = (0..50).any(|seed| {
        let disk = FaultyDisk::new(seed);
        let path = Path::new("/d/f");
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.create(path).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(0, b"x").unwrap();
        disk.fail(Operation::Sync, 1, Fault::Io);
        assert!(file.sync_data().is_err());
        assert_eq!(disk.content(path).unwrap(), b"x");
        file.sync_data().unwrap();
        disk.crash();
        disk.content(path).unwrap().is_empty()
    });
    assert!(lost);
}

#[test]
fn faults_come_when_ordered() {
    let disk = FaultyDisk::new(3);
    let path = Path::new("/d/f");
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.create(path).unwrap();
    disk.fail(Operation::Write, 2, Fault::Full);
    file.write_at(0, b"a").unwrap();
    assert!(is_disk_full(&file.write_at(1, b"b").unwrap_err()));
    disk.fail(Operation::Write, 1, Fault::Short);
    disk.fail(Operation::Write, 2, Fault::Interrupted);
    file.write_all_at(1, &[b'c'; 100]).unwrap();
    assert_eq!(file.len().unwrap(), 101);
    disk.set_space_left(Some(10));
    assert!(is_disk_full(&file.write_all_at(101, &[b'd'; 11]).unwrap_err()));
    assert_eq!(file.len().unwrap(), 111);
    file.truncate(101).unwrap();
    file.write_all_at(101, &[b'd'; 10]).unwrap();
    disk.heal();
    disk.crash_at(1);
    assert!(file.write_at(0, b"z").is_err());
    assert!(disk.is_down());
    assert!(disk.open(path).is_err());
    disk.crash();
    assert!(!disk.is_down());
    disk.flip_bit(
        &{
            disk.set_content(path, vec![0]);
            path.to_owned()
        },
        3,
    );
    assert_eq!(disk.content(path).unwrap(), [8]);
}
