//! Cut and damaged files: the longest valid prefix, or an error that names the place.

use super::*;

/// A log of commits of one to three records; returns where each record ends and its payload.
fn write_log(disk: &FaultyDisk, commits: u64, segment_bytes_max: u64) -> Vec<(Location, Vec<u8>)> {
    let (mut log, _) = open(disk, segment_bytes_max).unwrap();
    let mut written = Vec::new();
    for commit in 0..commits {
        for _ in 0..=commit % 3 {
            let payload = payload(written.len() as u64, 1);
            let (_, location) = log.append(1, 1, &payload).unwrap();
            written.push((location, payload));
        }
        log.commit().unwrap();
    }
    written
}

fn end(location: Location) -> u64 {
    location.position + u64::from(location.length)
}

#[test]
fn a_log_cut_at_any_byte_keeps_the_longest_valid_prefix() {
    let disk = FaultyDisk::new(1);
    let written = write_log(&disk, 20, 1_500);
    let last_segment = written.last().unwrap().0.segment;
    assert!(last_segment > 0);
    let path = segment(last_segment);
    let whole = disk.content(&path).unwrap();
    for length in 0..whole.len() as u64 {
        disk.set_content(&path, whole[..length as usize].to_vec());
        let kept = written
            .iter()
            .filter(|(location, _)| location.segment < last_segment || end(*location) <= length)
            .count();
        let (mut log, recovery) =
            open(&disk, 1_500).unwrap_or_else(|error| panic!("cut at {length}: {error}"));
        let payloads: Vec<Vec<u8>> = written[..kept].iter().map(|(_, payload)| payload.clone()).collect();
        assert_eq!(read_all(&log), payloads, "cut at {length}");
        let valid = match kept.checked_sub(1).map(|last| written[last].0) {
            Some(last) if last.segment == last_segment => end(last),
            _ if length >= 32 => 32,
            _ => 0,
        };
        match recovery.torn_tail {
            Some(tail) => {
                assert_eq!((tail.path, tail.position, tail.bytes), (path.clone(), valid, length - valid))
            }
            None => assert_eq!(length, valid),
        }
        // And it goes on from there.
        assert_eq!(log.append(1, 1, b"next").unwrap().0, Offset(kept as u64));
        log.commit().unwrap();
        drop(log);
        let (log, recovery) = open(&disk, 1_500).unwrap();
        assert_eq!(recovery.torn_tail, None);
        assert_eq!(read_all(&log).len(), kept + 1);
        for file in disk.list(Path::new(DIR)).unwrap() {
            if segment::parse_file_name(&file).unwrap() > last_segment {
                disk.remove(&file).unwrap();
            }
        }
    }
}

/// Guards against a flipped bit giving a wrong record, or silently ending the log before the last commit.
#[test]
fn a_flipped_bit_is_cut_at_the_end_and_refused_elsewhere() {
    let disk = FaultyDisk::new(1);
    let written = write_log(&disk, 12, 1 << 20);
    let path = segment(0);
    let whole = disk.content(&path).unwrap();
    let last = written.last().unwrap().0;
    for bit in 0..whole.len() as u64 * 8 {
        disk.set_content(&path, whole.clone());
        disk.flip_bit(&path, bit);
        let hit = written.iter().position(|(location, _)| bit / 8 < end(*location)).unwrap();
        match open(&disk, 1 << 20) {
            Ok((log, recovery)) => {
                assert!(bit / 8 >= last.position, "bit {bit}: only the last record may be cut");
                let tail = recovery.torn_tail.unwrap();
                assert_eq!((tail.position, tail.bytes), (last.position, u64::from(last.length)));
                let kept: Vec<Vec<u8>> = written[..hit].iter().map(|(_, payload)| payload.clone()).collect();
                assert_eq!(read_all(&log), kept, "bit {bit}");
            }
            Err(LogError::Damaged { path: named, position, .. }) => {
                assert!(bit / 8 < last.position);
                let expected = if bit / 8 < 32 { 0 } else { written[hit].0.position };
                assert_eq!((named, position), (path.clone(), expected), "bit {bit}");
            }
            // The version of the format has become larger.
            Err(LogError::NewerFormat { .. }) => assert!((8..12).contains(&(bit / 8))),
            Err(error) => panic!("bit {bit}: {error}"),
        }
        if bit / 8 < last.position {
            let mut damaged = whole.clone();
            damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
            assert!(disk.content(&path).unwrap() == damaged, "bit {bit}: nothing is changed on disk");
            // The way out that docs/format.md describes.
            if bit % 97 == 0 && bit / 8 >= 32 {
                disk.set_content(&path, whole[..written[hit].0.position as usize].to_vec());
                let (log, recovery) = open(&disk, 1 << 20).unwrap();
                assert_eq!((recovery.records, recovery.torn_tail), (hit as u64, None));
                assert_eq!(read_all(&log).len(), hit);
            }
        }
    }
}

#[test]
fn damage_in_an_earlier_segment_is_refused_even_at_its_end() {
    let disk = FaultyDisk::new(1);
    let written = write_log(&disk, 20, 1_500);
    let last_of_first = written.iter().rev().find(|(location, _)| location.segment == 0).unwrap().0;
    let path = segment(0);
    let whole = disk.content(&path).unwrap();
    disk.flip_bit(&path, last_of_first.position * 8 + 300);
    let error = open(&disk, 1_500).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "log file /log/00000000000000000000.log is damaged at byte {}: checksum of the record does not match; restore the file from a backup, or see \"Damage\" in docs/format.md to give up the records from there on",
            last_of_first.position
        )
    );
    disk.set_content(&path, whole[..whole.len() - 1].to_vec());
    assert!(matches!(open(&disk, 1_500).unwrap_err(), LogError::Damaged { .. }));
    // A whole record is missing: every frame is valid, but the next segment starts later.
    disk.set_content(&path, whole[..last_of_first.position as usize].to_vec());
    let error = open(&disk, 1_500).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
    disk.remove(&path).unwrap();
    let error = open(&disk, 1_500).unwrap_err();
    assert!(error.to_string().contains("the segment before it, with records 0 to"), "{error}");
}

#[test]
fn misplaced_segments_and_foreign_files() {
    let disk = FaultyDisk::new(1);
    let written = write_log(&disk, 20, 1_500);
    let second = written.iter().find(|(location, _)| location.segment > 0).unwrap().0.segment;
    disk.set_content(&Path::new(DIR).join("notes.txt"), b"not a segment".to_vec());
    disk.set_content(&Path::new(DIR).join("12.log"), b"not a segment".to_vec());
    assert_eq!(open(&disk, 1_500).unwrap().1.records, written.len() as u64);
    let bytes = disk.content(&segment(second)).unwrap();
    disk.set_content(&segment(0), bytes);
    let error = open(&disk, 1_500).unwrap_err();
    assert!(error.to_string().contains("its name does not"), "{error}");
}

#[test]
fn a_newer_format_is_refused_and_kept() {
    let disk = FaultyDisk::new(1);
    open(&disk, 100).unwrap();
    let mut header = segment::SegmentHeader { first: 0, salt: 1 }.to_bytes();
    header[8] = 2;
    disk.set_content(&segment(0), header.to_vec());
    let error = open(&disk, 100).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log file /log/00000000000000000000.log has format version 2, this program reads up to 1; use a newer program"
    );
    assert_eq!(disk.content(&segment(0)).unwrap(), header);
}

/// Guards against a sender of rows who plants the bytes of a record, so that a torn tail looks like damage.
#[test]
fn a_frame_inside_of_a_payload_is_not_taken_for_one() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 1 << 20).unwrap();
    let mut planted = Vec::new();
    for salt in 0..1000 {
        let header = frame::FrameHeader { kind: 1, payload_length: 2, offset: 1, stream: 1, into_commit: 0 };
        header.write(salt, b"hi", &mut planted);
    }
    log.append(1, 1, b"first").unwrap();
    log.commit().unwrap();
    log.append(1, 1, &planted).unwrap();
    log.commit().unwrap();
    drop(log);
    let whole = disk.content(&segment(0)).unwrap();
    disk.set_content(&segment(0), whole[..whole.len() - 1].to_vec());
    let (log, recovery) = open(&disk, 1 << 20).unwrap();
    assert!(recovery.torn_tail.is_some());
    assert_eq!(read_all(&log), [b"first"]);
}

/// Guards the reading side: damage that happens while the log is open.
#[test]
fn damage_under_an_open_log_is_named_when_read() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 1 << 20).unwrap();
    log.append(1, 1, b"one").unwrap();
    let (_, location) = log.append(1, 1, b"two").unwrap();
    log.append(1, 1, b"three").unwrap();
    log.commit().unwrap();
    let mut bytes = disk.content(&segment(0)).unwrap();
    bytes[location.position as usize + 33] ^= 1;
    let file = disk.open(&segment(0)).unwrap();
    file.write_all_at(0, &bytes).unwrap();
    let damaged = |error: &LogError| matches!(error, LogError::Damaged { position, .. } if *position == location.position);
    let found: Vec<Result<LogRecord, LogError>> = log.reader().records(Offset(0)).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].as_ref().unwrap().payload, b"one");
    assert!(damaged(found[1].as_ref().unwrap_err()));
    assert!(damaged(&log.reader().read_at(location).unwrap_err()));
    disk.fail(Operation::Read, 1, Fault::Io);
    assert!(matches!(log.reader().records(Offset(0)).next(), Some(Err(LogError::Io { .. }))));
    file.truncate(location.position).unwrap();
    let last = log.reader().records(Offset(0)).last().unwrap().unwrap_err();
    assert!(damaged(&last) && last.to_string().contains("the file ends"), "{last}");
    let error = log.reader().read_at(Location { segment: 5, ..location }).unwrap_err();
    assert_eq!(error.to_string(), format!("no record at byte {} of log segment 5", location.position));
}

/// Guards against taking a sector that was lost after its commit for one that was never written.
#[test]
fn a_zeroed_sector_is_damage_when_a_later_commit_follows() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk, 1 << 20).unwrap();
    for _ in 0..3 {
        for number in 0..20 {
            log.append(1, 1, &payload(number, 1)).unwrap();
        }
        log.commit().unwrap();
    }
    drop(log);
    let whole = disk.content(&segment(0)).unwrap();
    let (mut damaged, mut cut) = (0, 0);
    for start in (512..whole.len() - 512).step_by(512) {
        let mut bytes = whole.clone();
        bytes[start..start + 512].fill(0);
        disk.set_content(&segment(0), bytes);
        match open(&disk, 1 << 20) {
            // Only in the last commit, whose end the crash may have prevented.
            Ok((log, recovery)) => {
                assert!((40..60).contains(&recovery.records));
                assert!(recovery.torn_tail.unwrap().position <= start as u64);
                assert_eq!(read_all(&log).len() as u64, recovery.records);
                cut += 1;
            }
            Err(LogError::Damaged { position, .. }) => {
                assert!(position < start as u64 + 512);
                damaged += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(damaged > cut && cut > 0, "{damaged} damaged, {cut} cut");
}
