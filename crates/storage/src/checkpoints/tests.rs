//! Checkpoints under crashes and damage.
//!
//! The model: state `n` of checkpoint `m` has bytes that tell both numbers. Whatever happens, what is read back is what
//! was written, or an error.

use std::path::Path;

use super::*;
use crate::disk::faulty::FaultyDisk;

const DIR: &str = "/checkpoints";

fn open(disk: &FaultyDisk) -> (Checkpoints, Vec<Result<Checkpoint>>) {
    Checkpoints::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap()
}

fn state(checkpoint: u64, number: u64) -> Vec<u8> {
    let mut bytes = format!("{checkpoint}/{number}/").into_bytes();
    bytes.resize(bytes.len() + (checkpoint * 31 + number * 17) as usize % 90, b'.');
    bytes
}

fn body_of(blobs: &[(u64, u64, Blob)]) -> Vec<u8> {
    let line = |(checkpoint, number, b): &(u64, u64, Blob)| {
        format!("{checkpoint} {number} {} {} {} {}\n", b.file, b.position, b.length, b.crc)
    };
    blobs.iter().map(line).collect::<String>().into_bytes()
}

fn blobs_of(body: &[u8]) -> Vec<(u64, u64, Blob)> {
    let line = |line: &str| {
        let n: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        (n[0], n[1], Blob { file: n[2], position: n[3], length: n[4], crc: n[5] as u32 })
    };
    std::str::from_utf8(body).unwrap().lines().map(line).collect()
}

/// Writes a checkpoint of five states, of which it takes over some from the one before; keeps two checkpoints.
fn write(checkpoints: &mut Checkpoints, before: Option<&Checkpoint>) -> Result<Checkpoint> {
    let mut writer = checkpoints.begin()?;
    let number = writer.number();
    let mut blobs = before.map(|c| blobs_of(&c.body)).unwrap_or_default();
    blobs.retain(|(_, n, _)| (n + number) % 3 != 0);
    for n in 0..5 {
        if !blobs.iter().any(|(_, known, _)| *known == n) {
            blobs.push((number, n, writer.put(&state(number, n))?));
        }
    }
    let written = writer.commit(&body_of(&blobs))?;
    let kept = [Some(written.number), before.map(|c| c.number)].into_iter().flatten().collect();
    let bodies = [Some(&written), before].into_iter().flatten();
    let files = bodies.flat_map(|c| blobs_of(&c.body)).map(|(_, _, blob)| blob.file).collect();
    checkpoints.retain(&kept, &files)?;
    Ok(written)
}

/// Everything that the checkpoint refers to is what was written.
fn check(checkpoints: &Checkpoints, checkpoint: &Checkpoint) -> Result<()> {
    let mut reader = checkpoints.reader();
    for (of, number, blob) in blobs_of(&checkpoint.body) {
        assert_eq!(checkpoints.read(&blob)?, state(of, number));
        assert_eq!(reader.read(&blob)?, state(of, number));
    }
    Ok(())
}

#[test]
fn states_are_taken_over_and_files_removed_when_nothing_needs_them() {
    let disk = FaultyDisk::new(1);
    let (mut checkpoints, found) = open(&disk);
    assert!(found.is_empty());
    let mut last = None;
    for _ in 0..10 {
        last = Some(write(&mut checkpoints, last.as_ref()).unwrap());
    }
    let (checkpoints, found) = open(&disk);
    let found: Vec<Checkpoint> = found.into_iter().collect::<Result<_>>().unwrap();
    assert_eq!(found.iter().map(|c| c.number).collect::<Vec<_>>(), [10, 9]);
    found.iter().for_each(|checkpoint| check(&checkpoints, checkpoint).unwrap());
    let files = disk.list(Path::new(DIR)).unwrap().len();
    assert!(files <= 2 + 6, "{files} files");
}

#[test]
fn large_states_are_written_whole() {
    let disk = FaultyDisk::new(1);
    let (mut checkpoints, _) = open(&disk);
    let mut writer = checkpoints.begin().unwrap();
    let states: Vec<Vec<u8>> = [3, BUFFER_BYTES + 1, 0, BUFFER_BYTES, 5, BUFFER_BYTES - 1]
        .map(|length| vec![length as u8; length])
        .into();
    let blobs: Vec<Blob> = states.iter().map(|state| writer.put(state).unwrap()).collect();
    assert_eq!(writer.bytes(), states.iter().map(|s| s.len() as u64).sum::<u64>());
    writer.commit(b"").unwrap();
    for (blob, state) in blobs.iter().zip(&states) {
        assert!(checkpoints.read(blob).unwrap() == *state);
    }
}

/// A power cut at each change of the disk: the last checkpoint that was finished, or the one under way, is there whole.
#[test]
fn a_power_cut_anywhere_leaves_a_checkpoint_that_is_whole() {
    let mut cuts = 0;
    for cut in 1.. {
        let disk = FaultyDisk::new(cut);
        let (mut checkpoints, _) = open(&disk);
        let mut last = None;
        let before = disk.changes();
        disk.crash_at(before + cut);
        let mut finished = 0;
        for _ in 0..4 {
            let Ok(written) = write(&mut checkpoints, last.as_ref()) else { break };
            finished = written.number;
            last = Some(written);
        }
        let down = disk.is_down();
        disk.crash();
        let (checkpoints, found) = open(&disk);
        let newest = found.iter().filter_map(|c| c.as_ref().ok()).find(|c| check(&checkpoints, c).is_ok());
        let newest = newest.map_or(0, |checkpoint| checkpoint.number);
        assert!(newest >= finished, "cut {cut}: {newest} instead of {finished}");
        if !down {
            break;
        }
        cuts += 1;
        // It goes on from there.
        let (mut checkpoints, _) = open(&disk);
        let again = write(&mut checkpoints, None).unwrap();
        assert!(again.number > newest);
        check(&checkpoints, &again).unwrap();
    }
    assert!(cuts > 40, "{cuts} cuts");
}

#[test]
fn every_flipped_bit_and_every_missing_byte_is_found() {
    let disk = FaultyDisk::new(1);
    let (mut checkpoints, _) = open(&disk);
    let written = write(&mut checkpoints, None).unwrap();
    for path in disk.list(Path::new(DIR)).unwrap() {
        let whole = disk.content(&path).unwrap();
        let damages = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        for bytes in damages.chain((0..whole.len()).map(|length| whole[..length].to_vec())) {
            disk.set_content(&path, bytes);
            let (checkpoints, found) = open(&disk);
            match &found[0] {
                Ok(checkpoint) => {
                    assert_eq!(checkpoint.body, written.body);
                    check(&checkpoints, checkpoint).unwrap_err();
                }
                Err(error) => assert!(error.to_string().contains("checkpoint"), "{error}"),
            }
        }
        disk.set_content(&path, whole);
    }
    check(&open(&disk).0, &written).unwrap();
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_the_next_one_succeeds() {
    let disk = FaultyDisk::new(1);
    let (mut checkpoints, _) = open(&disk);
    let first = write(&mut checkpoints, None).unwrap();
    disk.set_space_left(Some(100));
    write(&mut checkpoints, Some(&first)).unwrap_err();
    checkpoints.discard(2);
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 2);
    check(&checkpoints, &first).unwrap();
    disk.set_space_left(None);
    let second = write(&mut checkpoints, Some(&first)).unwrap();
    check(&checkpoints, &second).unwrap();
}
