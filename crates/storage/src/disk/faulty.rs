//! A disk in memory that fails on purpose, the same way for the same seed.
//!
//! ```text
//!   write --> content (what reads see) --sync_data--> durable (what a power cut leaves)
//!                    \--pending--/
//! ```
//!
//! At a power cut each unsynced write survives wholly, in part (cut at any byte, or any of its
//! 512-byte sectors), or not at all. A failed sync behaves as Linux does: some of the bytes arrived,
//! none of them is written again by a later sync, and reads go on showing them until the power cut.
//! Names are durable after `sync_dir` only, and otherwise survive in the order they were made.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirLock, Disk, DiskFile, LockError};

mod platter;

pub use platter::SECTOR_BYTES;
use platter::{FileState, Pending, Random, apply, write};

/// A handle on the disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Read,
    Write,
    Sync,
    SyncDir,
    Create,
    Truncate,
    Rename,
    Remove,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO.
    Io,
    /// ENOSPC.
    Full,
    /// A write takes only some of the bytes and reports so; other operations are not affected.
    Short,
    /// EINTR: nothing happened, to be tried again.
    Interrupted,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// Grows at every crash; file handles of an earlier life are dead.
    life: u64,
    down: bool,
    files: HashMap<u64, FileState>,
    next_file: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    dirs: HashSet<PathBuf>,
    locks: HashSet<PathBuf>,
    counts: HashMap<Operation, u64>,
    faults: HashMap<(Operation, u64), Fault>,
    /// Operations that change something, all kinds together.
    changes: u64,
    crash_at_change: Option<u64>,
    space_left: Option<u64>,
}

#[derive(Debug)]
enum NameChange {
    Set { path: PathBuf, file: u64 },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
}

#[derive(Debug)]
struct FaultyFile {
    state: Arc<Mutex<State>>,
    file: u64,
    life: u64,
}

impl FaultyDisk {
    pub fn new(seed: u64) -> FaultyDisk {
        let state = State {
            random: Random(seed),
            life: 0,
            down: false,
            files: HashMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            dirs: HashSet::new(),
            locks: HashSet::new(),
            counts: HashMap::new(),
            faults: HashMap::new(),
            changes: 0,
            crash_at_change: None,
            space_left: None,
        };
        FaultyDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Makes the `nth` operation of this kind from now on fail (1 is the next one).
    pub fn fail(&self, operation: Operation, nth: u64, fault: Fault) {
        let mut state = self.state.lock();
        let at = state.counts.get(&operation).copied().unwrap_or(0) + nth;
        state.faults.insert((operation, at), fault);
    }

    /// Forgets faults that have not happened yet, and a crash that was ordered.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.crash_at_change = None;
        state.space_left = None;
    }

    /// Lets files grow by this many bytes in all, then fails with ENOSPC after a short write;
    /// `None` is room without end.
    pub fn set_space_left(&self, bytes: Option<u64>) {
        self.state.lock().space_left = bytes;
    }

    /// Cuts the power and turns it on again: unsynced bytes and names are lost, torn or kept, locks are
    /// free, open files are dead.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        if !state.down {
            state.power_cut();
        }
        state.down = false;
    }

    /// Cuts the power; everything fails until [`FaultyDisk::crash`] turns it on again.
    pub fn power_off(&self) {
        let mut state = self.state.lock();
        if !state.down {
            state.power_cut();
        }
        state.down = true;
    }

    /// Cuts the power during the `nth` changing operation from now on; everything fails until
    /// [`FaultyDisk::crash`] turns it on again.
    pub fn crash_at(&self, nth: u64) {
        let mut state = self.state.lock();
        state.crash_at_change = Some(state.changes + nth);
    }

    /// True when the ordered crash has happened and the power is still off.
    pub fn is_down(&self) -> bool {
        self.state.lock().down
    }

    /// Ends the process that uses the disk, by kill -9: what was written stays visible, but is no more
    /// durable than before.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.locks.clear();
    }

    /// How many operations of this kind were tried.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state.lock().counts.get(&operation).copied().unwrap_or(0)
    }

    /// How many changing operations were tried; the range for [`FaultyDisk::crash_at`].
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// What reads of the file see.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let file = state.names.get(path)?;
        Some(state.files[file].content.clone())
    }

    /// Replaces the file, durably: for cutting and damaging.
    pub fn set_content(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let file = match state.names.get(path) {
            Some(file) => *file,
            None => state.new_file(),
        };
        state.names.insert(path.to_owned(), file);
        state.durable_names.insert(path.to_owned(), file);
        state.files.insert(file, FileState { content: bytes.clone(), durable: bytes, pending: Vec::new() });
    }

    /// Flips one bit of the file, durably.
    ///
    /// # Panics
    /// If there is no such file or it is shorter.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut bytes = self.content(path).expect("the file to damage exists");
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        self.set_content(path, bytes);
    }
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("simulated power cut")) } else { Ok(()) }
    }

    /// Counts the operation and says how it fails, if it does.
    fn begin(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        self.check_power()?;
        let count = self.counts.entry(operation).or_insert(0);
        *count += 1;
        let key = (operation, *count);
        if operation != Operation::Read {
            self.changes += 1;
        }
        match self.faults.remove(&key) {
            Some(Fault::Io) => Ok(Some(Fault::Io)),
            Some(Fault::Full) => Ok(Some(Fault::Full)),
            Some(Fault::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
            other => Ok(other),
        }
    }

    /// To be called when the operation has had its effect on what a power cut may keep.
    fn end(&mut self) -> io::Result<()> {
        if self.crash_at_change.is_some_and(|at| self.changes >= at) {
            self.crash_at_change = None;
            self.power_cut();
            self.down = true;
        }
        self.check_power()
    }

    fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, FileState::default());
        self.next_file
    }

    fn power_cut(&mut self) {
        self.life += 1;
        self.locks.clear();
        let kept = self.random.below(self.pending_names.len() as u64 + 1) as usize;
        let changes: Vec<NameChange> = self.pending_names.drain(..).collect();
        for change in &changes[..kept] {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        let mut ids: Vec<u64> = self.files.keys().copied().collect();
        // The order of a hash map must not show in what the seed does.
        ids.sort_unstable();
        for id in ids {
            let file = self.files.get_mut(&id).expect("the id was just listed");
            file.lose_pending(&mut self.random);
            file.content = file.durable.clone();
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Set { path, file } => {
                names.insert(path.clone(), *file);
            }
            NameChange::Remove { path } => {
                names.remove(path);
            }
            NameChange::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let path = match self {
            NameChange::Set { path, .. } | NameChange::Remove { path } => path,
            NameChange::Rename { to, .. } => to,
        };
        path.parent() == Some(dir)
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Full => io::Error::from_raw_os_error(28),
        _ => io::Error::from_raw_os_error(5),
    }
}

/// Fails the operation unless the fault means writes only.
fn refuse(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None | Some(Fault::Short) => Ok(()),
        Some(fault) => Err(error_of(fault)),
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {}", path.display()))
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        refuse(state.begin(Operation::Create)?)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(not_found(path));
        }
        let file = state.new_file();
        state.names.insert(path.to_owned(), file);
        state.pending_names.push(NameChange::Set { path: path.to_owned(), file });
        state.end()?;
        Ok(Arc::new(FaultyFile { state: Arc::clone(&self.state), file, life: state.life }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        state.check_power()?;
        let file = *state.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(Arc::new(FaultyFile { state: Arc::clone(&self.state), file, life: state.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        refuse(state.begin(Operation::Rename)?)?;
        if !state.names.contains_key(from) {
            return Err(not_found(from));
        }
        let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned() };
        change.apply(&mut state.names);
        state.pending_names.push(change);
        state.end()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        refuse(state.begin(Operation::Remove)?)?;
        if !state.names.contains_key(path) {
            return Err(not_found(path));
        }
        let change = NameChange::Remove { path: path.to_owned() };
        change.apply(&mut state.names);
        state.pending_names.push(change);
        state.end()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.lock();
        state.check_power()?;
        if !state.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        Ok(state.names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check_power()?;
        for ancestor in dir.ancestors() {
            state.dirs.insert(ancestor.to_owned());
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        refuse(state.begin(Operation::SyncDir)?)?;
        // A cut during the sync leaves it open whether the names arrived.
        state.end()?;
        let (synced, pending) = state.pending_names.drain(..).partition(|change| change.is_in(dir));
        state.pending_names = pending;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock, LockError> {
        let mut state = self.state.lock();
        state.check_power().map_err(|source| LockError::Io { dir: dir.to_owned(), source })?;
        if !state.locks.insert(dir.to_owned()) {
            return Err(LockError::Held { dir: dir.to_owned(), pid: Some(std::process::id()) });
        }
        let held = HeldLock { state: Arc::clone(&self.state), dir: dir.to_owned(), life: state.life };
        Ok(DirLock::new(dir, held))
    }

    fn random(&self) -> u64 {
        self.state.lock().random.next()
    }
}

struct HeldLock {
    state: Arc<Mutex<State>>,
    dir: PathBuf,
    life: u64,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.locks.remove(&self.dir);
        }
    }
}

impl FaultyFile {
    fn check_life(&self, state: &State) -> io::Result<()> {
        state.check_power()?;
        if state.life == self.life {
            Ok(())
        } else {
            Err(io::Error::other("file handle of a process that has ended"))
        }
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.check_life(state)?;
        let fault = state.begin(Operation::Write)?;
        let mut taken = bytes.len();
        if let Some(fault) = fault {
            if fault != Fault::Short {
                return Err(error_of(fault));
            }
            taken = 1 + state.random.below(bytes.len() as u64) as usize;
        }
        let position = position as usize;
        let file = state.files.get_mut(&self.file).expect("files are never forgotten");
        if let Some(space_left) = &mut state.space_left {
            let growth = (position + taken).saturating_sub(file.content.len().max(position)) as u64;
            if growth > *space_left {
                taken -= (growth - *space_left) as usize;
                if taken == 0 {
                    return Err(error_of(Fault::Full));
                }
            }
            *space_left -= growth.min(*space_left);
        }
        write(&mut file.content, position, &bytes[..taken]);
        file.pending.push(Pending::Write { position, bytes: bytes[..taken].to_vec() });
        state.end()?;
        Ok(taken)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        self.check_life(&state)?;
        refuse(state.begin(Operation::Read)?)?;
        let content = &state.files[&self.file].content;
        let rest = content.get(position as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        self.check_life(&state)?;
        Ok(state.files[&self.file].content.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.check_life(state)?;
        refuse(state.begin(Operation::Truncate)?)?;
        let file = state.files.get_mut(&self.file).expect("files are never forgotten");
        let change = Pending::Truncate { length: length as usize };
        if let Some(space_left) = &mut state.space_left {
            *space_left += (file.content.len() as u64).saturating_sub(length);
        }
        apply(&mut file.content, &change);
        file.pending.push(change);
        state.end()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.check_life(state)?;
        let fault = state.begin(Operation::Sync)?;
        // A cut during the sync finds the writes still pending.
        state.end()?;
        let file = state.files.get_mut(&self.file).expect("files are never forgotten");
        if let Err(error) = refuse(fault) {
            file.lose_pending(&mut state.random);
            return Err(error);
        }
        for change in std::mem::take(&mut file.pending) {
            apply(&mut file.durable, &change);
        }
        Ok(())
    }
}
