//! A unit's intents, in a file that is mapped: what is stored there is there for the next process, without a system call.
//!
//! # The file
//!
//! `lu-<naa>.intents`, of use within one boot of the host only, and made anew in the next one. All numbers are little-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `vstgtCAW` |
//! | 8 | 4 | version: 1 |
//! | 16 | 48 | the boot in which it was made, zeros behind it |
//! | 4096 | 135168 each | 16 slots |
//!
//! A slot: state (8 bytes: 0 free, 1 committed, 2 finished by a successor), name (8), offset in the image (8), length of each of the two
//! halves (8); from byte 4096 on what was expected, from 69632 on what is written instead. The state is stored last.
//!
//! Where the file system is full a page cannot be had; the mapping then becomes one of zeros, see [`MemoryMap::poisoned`], and nothing
//! is put down any more.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::boot::BootId;
use crate::lu::{Intent, IntentName, Intents};
use crate::mem::{LoggedRange, MemoryMap, PinnedRange, Region, RegionSpec};
use crate::sys::random;

const MAGIC: u64 = u64::from_le_bytes(*b"vstgtCAW");
const VERSION: u32 = 1;
const BOOT: usize = 16;
const BOOT_LEN: usize = 48;
const HEADER: u64 = 4096;

const SLOTS: usize = 16;
const HALF: u64 = 64 << 10;
const DATA: u64 = 4096;
const SLOT: u64 = DATA + 2 * HALF;
const LENGTH: u64 = HEADER + SLOTS as u64 * SLOT;

const STATE: usize = 0;
const NAME: usize = 8;
const OFFSET: usize = 16;
const LEN: usize = 24;

const FREE: u64 = 0;
const COMMITTED: u64 = 1;
const FINISHED: u64 = 2;

/// Set in every name.
const NAMED: u64 = 1 << 63;

/// A unit's file of intents.
#[derive(Debug)]
pub struct IntentFile {
    map: Arc<MemoryMap>,
    slots: Vec<LoggedRange>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The name that a slot was last given, and whether it is in use here.
    slots: [Option<IntentName>; SLOTS],
    /// Where to look for a free one next: those that a successor may be asked about are used again as late as possible.
    next: usize,
    /// Whether it was finished by this process: most likely its front-end has not come back yet.
    fresh: [bool; SLOTS],
    epoch: u32,
    count: u32,
}

impl IntentFile {
    /// Maps the file, which is made if it is not there, or not of this boot. To be called under the unit's lock.
    pub(super) fn open(path: &Path, boot: Option<&BootId>) -> io::Result<IntentFile> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() != LENGTH {
            clear(&file)?;
        }
        let file_again = file.try_clone()?;
        let map = map(file)?;
        let header = range(&map, 0, HEADER)?;
        if !is_ours(&map, &header, boot) {
            clear(&file_again)?;
            begin(&header, boot);
        }
        let slots = (0..SLOTS as u64).map(|n| range(&map, HEADER + n * SLOT, SLOT)).collect::<io::Result<_>>()?;
        let mut epoch = [0; 4];
        random::fill(&mut epoch)?;
        let state =
            State { slots: [None; SLOTS], next: 0, fresh: [false; SLOTS], epoch: u32::from_le_bytes(epoch), count: 0 };
        Ok(IntentFile { map, slots, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves a slot in use at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, at: usize) -> Option<&LoggedRange> {
        self.slots.get(at)
    }

    fn set(&self, name: IntentName, state: u64) {
        let at = self.state().slots.iter().position(|slot| *slot == Some(name));
        if let Some(slot) = at.and_then(|at| self.slot(at)) {
            slot.store_u64(STATE, state, Ordering::Release);
        }
    }

    /// The slots in a state, with their names.
    fn in_state(&self, state: u64) -> impl Iterator<Item = (usize, IntentName)> {
        self.slots.iter().enumerate().filter_map(move |(at, slot)| {
            let is = slot.range().load_u64(STATE, Ordering::Acquire)? == state;
            is.then_some((at, IntentName(slot.range().load_u64(NAME, Ordering::Relaxed)?)))
        })
    }
}

impl Intents for IntentFile {
    fn prepare(&self, offset: u64, expected: &[u8], replacement: &[u8]) -> Option<IntentName> {
        if replacement.len() as u64 > HALF || replacement.len() != expected.len() || self.map.poisoned() {
            return None;
        }
        let mut state = self.state();
        let state = &mut *state;
        let unused = |at: &usize| state.slots.get(*at).is_some_and(Option::is_none);
        let is = |at: usize, wanted| {
            self.slot(at).and_then(|s| s.range().load_u64(STATE, Ordering::Relaxed)) == Some(wanted)
        };
        let order = || (0..SLOTS).map(|n| (state.next + n) % SLOTS).filter(unused);
        // What was finished for a front-end that has not come back goes last, and of that what was finished just now.
        let fresh = |at: &usize| state.fresh.get(*at).is_some_and(|fresh| *fresh);
        let finished = || order().filter(|at| is(*at, FINISHED));
        let at = order()
            .find(|at| is(*at, FREE))
            .or_else(|| finished().find(|at| !fresh(at)))
            .or_else(|| finished().next())?;
        state.count = state.count.checked_add(1)?;
        let name = IntentName(NAMED | u64::from(state.epoch >> 1) << 32 | u64::from(state.count));
        state.next = at + 1;
        *state.slots.get_mut(at)? = Some(name);
        let slot = self.slot(at)?;
        slot.store_u64(STATE, FREE, Ordering::Release);
        slot.store_u64(NAME, name.0, Ordering::Relaxed);
        slot.store_u64(OFFSET, offset, Ordering::Relaxed);
        slot.store_u64(LEN, replacement.len() as u64, Ordering::Relaxed);
        let put = put(slot, DATA, expected) && put(slot, DATA + HALF, replacement);
        if !put || self.map.poisoned() {
            *state.slots.get_mut(at)? = None;
            return None;
        }
        Some(name)
    }

    fn commit(&self, name: IntentName) {
        self.set(name, COMMITTED);
    }

    fn end(&self, name: IntentName) {
        self.set(name, FREE);
        self.state().slots.iter_mut().filter(|slot| **slot == Some(name)).for_each(|slot| *slot = None);
    }

    fn committed(&self) -> Vec<Intent> {
        let mut found = Vec::new();
        for (at, name) in self.in_state(COMMITTED) {
            let Some(slot) = self.slot(at) else { continue };
            let number = |field| slot.range().load_u64(field, Ordering::Relaxed).unwrap_or(0);
            let (offset, len) = (number(OFFSET), number(LEN).min(HALF));
            let mut halves = [vec![0; len as usize], vec![0; len as usize]];
            let data = HEADER + at as u64 * SLOT + DATA;
            let read = halves.iter_mut().zip([data, data + HALF]).all(|(half, at)| self.map.read(at, half).is_ok());
            let [expected, replacement] = halves;
            if read {
                // It is this process's to end now.
                if let Some(slot) = self.state().slots.get_mut(at) {
                    *slot = Some(name);
                }
                found.push(Intent { name, offset, expected, replacement });
            }
        }
        found
    }

    fn finished(&self, name: IntentName) {
        self.set(name, FINISHED);
        let mut state = self.state();
        let state = &mut *state;
        for (slot, fresh) in state.slots.iter_mut().zip(&mut state.fresh).filter(|(slot, _)| **slot == Some(name)) {
            (*slot, *fresh) = (None, true);
        }
    }

    fn was_finished(&self, name: IntentName) -> bool {
        self.in_state(FINISHED).any(|(_, finished)| finished == name)
    }

    fn forget(&self, name: IntentName) {
        // Under the lock: a slot that is put to another use meanwhile has another name.
        let _state = self.state();
        for (at, _) in self.in_state(FINISHED).filter(|(_, finished)| *finished == name) {
            if let Some(slot) = self.slot(at) {
                slot.store_u64(STATE, FREE, Ordering::Release);
            }
        }
    }
}

fn clear(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.set_len(LENGTH)
}

fn map(file: File) -> io::Result<Arc<MemoryMap>> {
    let spec = RegionSpec { guest_addr: 0, size: LENGTH, user_addr: 0, mmap_offset: 0 };
    let region = Region::map(&spec, file).map_err(io::Error::other)?;
    Ok(Arc::new(MemoryMap::new(vec![region]).map_err(io::Error::other)?))
}

fn range(map: &Arc<MemoryMap>, at: u64, len: u64) -> io::Result<LoggedRange> {
    let range = PinnedRange::new(map, at, len, 8).ok_or_else(|| io::Error::other("a part of it is not mapped"))?;
    Ok(LoggedRange::new(range, None))
}

/// Stores bytes, a multiple of eight, at a multiple of eight; false if there is no room.
fn put(range: &LoggedRange, at: u64, bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let store = |(n, word): (usize, &[u8; 8])| {
        range.store_u64(at as usize + 8 * n, u64::from_le_bytes(*word), Ordering::Relaxed)
    };
    rest.is_empty() && words.iter().enumerate().all(store)
}

/// The boot as the header has it; none is like no other.
fn boot_field(boot: Option<&BootId>) -> Option<[u8; BOOT_LEN]> {
    let name = boot?.0.as_bytes();
    let mut field = [0; BOOT_LEN];
    field.get_mut(..name.len())?.copy_from_slice(name);
    Some(field)
}

fn is_ours(map: &MemoryMap, header: &LoggedRange, boot: Option<&BootId>) -> bool {
    let mut found = [0; BOOT_LEN];
    header.range().load_u64(0, Ordering::Acquire) == Some(MAGIC)
        && header.range().load_u32(8, Ordering::Relaxed) == Some(VERSION)
        && map.read(BOOT as u64, &mut found).is_ok()
        && Some(found) == boot_field(boot)
}

fn begin(header: &LoggedRange, boot: Option<&BootId>) {
    // Without a boot to tell from others it is made anew each time.
    let Some(field) = boot_field(boot) else { return };
    if put(header, BOOT as u64, &field) {
        header.store_u32(8, VERSION, Ordering::Relaxed);
        header.store_u64(0, MAGIC, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(name: &str) -> BootId {
        BootId(name.to_owned())
    }

    fn open(dir: &tempfile::TempDir, of: &str) -> IntentFile {
        IntentFile::open(&dir.path().join("lu-1.intents"), Some(&boot(of))).unwrap()
    }

    #[test]
    fn what_was_committed_is_found_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(&dir, "one");
        let (a, b) = (vec![1; 512], vec![2; 512]);
        let names: Vec<_> = (0..4).map(|n| first.prepare(n * 512, &a, &b).unwrap()).collect();
        assert!(names.iter().all(|name| name.0 >> 63 == 1));
        names[1..].iter().for_each(|name| first.commit(*name));
        first.end(names[3]);
        assert!(!first.was_finished(names[1]));
        drop(first);

        let second = open(&dir, "one");
        let found = second.committed();
        let intent =
            |n: usize| Intent { name: names[n], offset: n as u64 * 512, expected: a.clone(), replacement: b.clone() };
        assert_eq!(found, [intent(1), intent(2)]);
        second.finished(names[1]);
        second.end(names[2]);
        drop(second);

        let third = open(&dir, "one");
        assert_eq!(third.committed(), []);
        let finished = names.iter().map(|name| third.was_finished(*name)).collect::<Vec<_>>();
        assert_eq!(finished, [false, true, false, false]);
        drop(third);
        assert!(!open(&dir, "two").was_finished(names[1]), "of another boot");
        assert!(!open(&dir, "one").was_finished(names[1]), "made anew");
    }

    #[test]
    fn room() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir, "one");
        let block = vec![0; 64 << 10];
        let mut names: Vec<_> = (0..SLOTS).map(|_| file.prepare(0, &block, &block).unwrap()).collect();
        assert_eq!(file.prepare(0, &block, &block), None, "all in use");
        file.commit(names[3]);
        file.end(names[3]);
        let again = file.prepare(7, &block, &block).unwrap();
        assert!(!names.contains(&again));
        names[3] = again;
        names.iter().for_each(|name| file.commit(*name));
        drop(file);
        // All of them finished: used again when there is no other.
        let file = open(&dir, "one");
        assert_eq!(file.committed().len(), SLOTS);
        names.iter().for_each(|name| file.finished(*name));
        assert!(names.iter().all(|name| file.was_finished(*name)));
        file.prepare(0, &block, &block).unwrap();
        assert_eq!(names.iter().filter(|name| file.was_finished(**name)).count(), SLOTS - 1);
        // One that was answered is free; then no other is given up.
        file.forget(names[9]);
        assert!(!file.was_finished(names[9]));
        let at_work = file.prepare(0, &block, &block).unwrap();
        assert_eq!(names.iter().filter(|name| file.was_finished(**name)).count(), SLOTS - 2);
        file.commit(at_work);
        drop(file);
        // What is finished now outlasts what was finished by processes before.
        let file = open(&dir, "one");
        assert_eq!(file.committed().len(), 1);
        file.finished(at_work);
        let more: Vec<_> = (0..SLOTS - 1).map(|_| file.prepare(0, &block, &block).unwrap()).collect();
        assert!(file.was_finished(at_work) && !names.iter().any(|name| file.was_finished(*name)));
        more.iter().for_each(|name| file.end(*name));
        let long = vec![0; (64 << 10) + 512];
        assert_eq!(file.prepare(0, &long, &long), None);
    }

    #[test]
    fn a_file_that_is_no_such_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lu-1.intents");
        for content in [vec![], vec![0xff; 100], vec![0xff; LENGTH as usize]] {
            std::fs::write(&path, content).unwrap();
            let file = open(&dir, "one");
            assert_eq!(file.committed(), []);
            assert!(file.prepare(0, &[1; 512], &[2; 512]).is_some());
        }
    }
}
