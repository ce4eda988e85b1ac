//! The log under crashes, failing disks and damage.
//!
//! The model is the list of payloads: what is read must be a prefix of what was appended, and contain
//! everything that was committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::disk::faulty::{Fault, FaultyDisk, Operation};
use crate::disk::{Disk, RealDisk};

mod crash;
mod damage;

const DIR: &str = "/log";

fn options(segment_bytes_max: u64) -> LogOptions {
    LogOptions { segment_bytes_max }
}

fn open(disk: &FaultyDisk, segment_bytes_max: u64) -> Result<(Log, Recovery), LogError> {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), options(segment_bytes_max))
}

fn segment(first: u64) -> PathBuf {
    Path::new(DIR).join(segment::file_name(first))
}

/// A payload that tells its offset and attempt, of a length that varies.
fn payload(offset: u64, attempt: u64) -> Vec<u8> {
    let length = (offset * 37 + attempt * 11) % 190;
    let mut bytes = format!("{offset}/{attempt}/").into_bytes();
    bytes.extend((0..length).map(|i| (i * offset + attempt) as u8 | 1));
    bytes
}

fn read_all(log: &Log) -> Vec<Vec<u8>> {
    let records: Vec<LogRecord> =
        log.reader().records(Offset(0)).collect::<Result<_, _>>().expect("what is committed can be read");
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.offset, Offset(number as u64));
        assert_eq!(log.reader().read_at(record.location).unwrap(), *record);
    }
    assert_eq!(Offset(records.len() as u64), log.reader().next_offset());
    records.into_iter().map(|record| record.payload).collect()
}

/// A picture of the log: a line per record, a line per segment.
fn picture(log: &Log) -> String {
    let mut text = String::new();
    let mut segment = None;
    for record in log.reader().records(Offset(0)) {
        let record = record.unwrap();
        if segment != Some(record.location.segment) {
            segment = Some(record.location.segment);
            text += &format!("segment {}\n", record.location.segment);
        }
        text += &format!(
            "{} at {}+{} kind={} stream={} {:?}\n",
            record.offset.0,
            record.location.position,
            record.location.length,
            record.kind,
            record.stream,
            String::from_utf8_lossy(&record.payload)
        );
    }
    text
}

#[test]
fn committed_records_are_read_in_order_and_others_not_at_all() {
    let disk = FaultyDisk::new(1);
    let (mut log, recovery) = open(&disk, 150).unwrap();
    assert_eq!(recovery, Recovery { records: 0, segments: 0, torn_tail: None });
    let reader = log.reader();
    assert_eq!(reader.records(Offset(0)).count(), 0);

    log.append(1, 10, b"browse").unwrap();
    let (offset, location) = log.append(1, 11, b"").unwrap();
    assert_eq!(reader.records(Offset(0)).count(), 0);
    assert!(matches!(reader.read_at(location), Err(LogError::NoSuchRecord { .. })));
    assert_eq!(log.next_offset(), Offset(2));
    assert_eq!(log.commit().unwrap(), Offset(2));
    assert_eq!(reader.read_at(location).unwrap().offset, offset);
    log.append(2, 10, b"purchase").unwrap();
    log.commit().unwrap();
    let mut records = reader.records(Offset(2));
    assert_eq!(records.next().unwrap().unwrap().payload, b"purchase");
    assert!(records.next().is_none());
    log.append(3, u32::MAX, b"watermark").unwrap();
    log.commit().unwrap();
    assert_eq!(records.next().unwrap().unwrap().payload, b"watermark");
    assert!(records.next().is_none());
    log.append(3, 1, b"forgotten").unwrap();

    let text = "segment 0\n\
        0 at 32+38 kind=1 stream=10 \"browse\"\n\
        1 at 70+32 kind=1 stream=11 \"\"\n\
        2 at 102+40 kind=2 stream=10 \"purchase\"\n\
        3 at 142+41 kind=3 stream=4294967295 \"watermark\"\n";
    assert_eq!(picture(&log), text);
    drop(log);

    let (mut log, recovery) = open(&disk, 150).unwrap();
    assert_eq!(recovery, Recovery { records: 4, segments: 1, torn_tail: None });
    assert_eq!(log.append(1, 10, b"add_to_cart").unwrap().0, Offset(4));
    log.commit().unwrap();
    assert_eq!(picture(&log), format!("{text}segment 4\n4 at 32+43 kind=1 stream=10 \"add_to_cart\"\n"));
    assert_eq!(log.bytes(), 183 + 75);
    let (log, recovery) = open(&disk, 150).unwrap();
    assert_eq!((recovery.records, recovery.segments), (5, 2));
    assert_eq!(read_all(&log).len(), 5);
}

/// Guards against a commit that costs more than it must: one write, one sync.
#[test]
fn a_commit_is_one_write_and_one_sync() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 1 << 20).unwrap();
    log.append(1, 1, b"the segment's header is written here").unwrap();
    log.commit().unwrap();
    let before = (disk.count(Operation::Write), disk.count(Operation::Sync), log.fsyncs());
    for number in 0..100 {
        log.append(1, 1, &payload(number, 0)).unwrap();
    }
    log.commit().unwrap();
    log.commit().unwrap();
    let after = (disk.count(Operation::Write), disk.count(Operation::Sync), log.fsyncs());
    assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 1));
}

#[test]
fn reading_starts_anywhere_in_any_segment_of_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("log");
    let (mut log, _) = Log::open(Arc::new(RealDisk), &dir, options(400_000)).unwrap();
    let big = vec![7; 50_000];
    for number in 0..60u64 {
        log.append(0, 0, &big[..(number * 800) as usize]).unwrap();
        if number % 3 == 0 {
            log.commit().unwrap();
        }
    }
    log.commit().unwrap();
    let (reopened, recovery) = Log::open(Arc::new(RealDisk), &dir, options(400_000)).unwrap();
    assert_eq!(recovery.records, 60);
    assert!(recovery.segments > 2);
    for log in [&log, &reopened] {
        for from in 0..=60 {
            let offsets: Vec<u64> =
                log.reader().records(Offset(from)).map(|record| record.unwrap().offset.0).collect();
            assert_eq!(offsets, (from..60).collect::<Vec<_>>());
        }
        assert_eq!(read_all(log).iter().map(Vec::len).max(), Some(59 * 800));
    }
    assert_eq!(log.reader().records(Offset(1000)).count(), 0);
}

/// Guards the limits: the largest record passes through write, read and recovery, one more byte does not.
#[test]
fn a_record_of_the_largest_size_works_and_a_larger_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Arc::new(RealDisk), folder.path(), LogOptions::default()).unwrap();
    let mut big = vec![0; RECORD_BYTES_MAX + 1];
    big[RECORD_BYTES_MAX - 1] = 9;
    let error = log.append(1, 1, &big).unwrap_err();
    assert_eq!(
        error.to_string(),
        "record of 268435457 bytes is larger than the log's limit of 268435456 bytes; send fewer rows at once"
    );
    assert!(!error.can_retry());
    log.append(1, 1, &big[..RECORD_BYTES_MAX]).unwrap();
    log.append(1, 2, b"after").unwrap();
    log.commit().unwrap();
    drop(log);
    let (log, recovery) = Log::open(Arc::new(RealDisk), folder.path(), LogOptions::default()).unwrap();
    assert_eq!(recovery.records, 2);
    let record = log.reader().records(Offset(0)).next().unwrap().unwrap();
    assert!(record.payload == big[..RECORD_BYTES_MAX]);
}

#[test]
fn readers_in_other_threads_follow_the_writer() {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = open(&disk, 2_000).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader = log.reader();
            scope.spawn(move || {
                let mut records = reader.records(Offset(0));
                let mut next = 0;
                while next < 500 {
                    match records.next() {
                        Some(record) => {
                            let record = record.unwrap();
                            assert_eq!((record.offset.0, record.payload), (next, payload(next, 0)));
                            next += 1;
                        }
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        for number in 0..500 {
            log.append(1, 1, &payload(number, 0)).unwrap();
            if number % 7 == 0 {
                log.commit().unwrap();
            }
        }
        log.commit().unwrap();
    });
}
