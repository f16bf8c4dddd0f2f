//! An image in memory whose operations wait until they are told to go on, or to fail.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use vstgt::backing::{BackingError, Capabilities, Image, RawFile};
use vstgt::mem::IoBuf;

use crate::frontend::BOUND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Flush,
}

/// An operation that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub number: u64,
    pub kind: Kind,
    pub offset: u64,
    pub len: u64,
}

#[derive(Default)]
struct State {
    /// Each byte differs from what is stored here by its [`pattern`]: so an image costs nothing until it is written.
    stored: Vec<u8>,
    /// Operations that touch these bytes wait; flushes are at the very end.
    hold: Option<Range<u64>>,
    held: Vec<Begun>,
    /// Told how to end: `None` to go on.
    told: Vec<(u64, Option<BackingError>)>,
    begun: Vec<Begun>,
    ended: usize,
}

impl State {
    fn load(&self, offset: u64, len: u64) -> Vec<u8> {
        (offset..offset + len).map(|at| self.stored[at as usize] ^ pattern(at)).collect()
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            self.stored[at as usize] = byte ^ pattern(at);
        }
    }
}

pub struct HeldImage {
    state: Mutex<State>,
    changed: Condvar,
    /// Says that it never waits, which is not true: so it holds up the reactor itself.
    inline: bool,
}

impl std::fmt::Debug for HeldImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldImage").finish_non_exhaustive()
    }
}

pub const SIZE: u64 = 64 << 20;

fn pattern(offset: u64) -> u8 {
    ((offset / 512) as u8).wrapping_add(1)
}

impl HeldImage {
    /// Holds nothing yet. Each block of 512 bytes is filled with the low byte of its number, plus one.
    pub fn new() -> HeldImage {
        let stored = vec![0; SIZE as usize];
        let state = Mutex::new(State { stored, ..State::default() });
        HeldImage { state, changed: Condvar::new(), inline: false }
    }

    /// One whose held operations hold up the reactor that does them.
    pub fn of_reactors() -> HeldImage {
        HeldImage { inline: true, ..HeldImage::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed with the lock held must still be able to let everything go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations on these bytes wait from now on.
    pub fn hold(&self, range: Range<u64>) {
        self.state().hold = Some(range);
    }

    /// All operations, flushes too.
    pub fn hold_all(&self) {
        self.hold(0..u64::MAX);
    }

    /// Waits until exactly so many are held; they are in the order in which they began.
    pub fn wait_held(&self, count: usize) -> Vec<Begun> {
        let (state, timeout) =
            self.changed.wait_timeout_while(self.state(), BOUND, |state| state.held.len() != count).unwrap();
        let held = state.held.clone();
        drop(state);
        assert!(!timeout.timed_out(), "{count} operations should be held: {held:?}");
        held
    }

    pub fn held(&self) -> Vec<Begun> {
        self.state().held.clone()
    }

    fn tell(&self, number: u64, how: Option<BackingError>) {
        self.state().told.push((number, how));
        self.changed.notify_all();
    }

    pub fn release(&self, begun: &Begun) {
        self.tell(begun.number, None);
    }

    pub fn fail(&self, begun: &Begun, error: BackingError) {
        self.tell(begun.number, Some(error));
    }

    /// Holds nothing more, and lets all go on.
    pub fn release_all(&self) {
        let mut state = self.state();
        state.hold = None;
        let all: Vec<_> = state.held.iter().map(|begun| (begun.number, None)).collect();
        state.told.extend(all);
        drop(state);
        self.changed.notify_all();
    }

    /// All operations so far.
    pub fn begun(&self) -> Vec<Begun> {
        self.state().begun.clone()
    }

    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        self.state().load(range.start, range.end - range.start)
    }

    fn begin(&self, kind: Kind, offset: u64, len: u64) -> Result<MutexGuard<'_, State>, BackingError> {
        let mut state = self.state();
        let begun = Begun { number: state.begun.len() as u64, kind, offset, len };
        state.begun.push(begun);
        if state.hold.as_ref().is_some_and(|hold| offset < hold.end && hold.start < offset + len.max(1)) {
            state.held.push(begun);
            self.changed.notify_all();
            let told = |state: &State| state.told.iter().position(|(number, _)| *number == begun.number);
            state = self.changed.wait_while(state, |state| told(state).is_none()).unwrap();
            state.held.retain(|held| held.number != begun.number);
            let at = told(&state).unwrap();
            if let Some(error) = state.told.swap_remove(at).1 {
                return Err(error);
            }
        }
        state.ended += 1;
        Ok(state)
    }
}

impl Image for HeldImage {
    fn size(&self) -> u64 {
        SIZE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: false,
            unmap: false,
            write_zeroes: false,
            unmap_granularity: 512,
            never_waits: self.inline,
            direct: true,
            volatile: false,
        }
    }

    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError> {
        let state = self.begin(Kind::Read, offset, len)?;
        let n = buf.write_at(at, &state.load(offset, len));
        if n as u64 == len { Ok(()) } else { Err(BackingError::ReadFailed) }
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, _fua: bool) -> Result<(), BackingError> {
        let mut state = self.begin(Kind::Write, offset, len)?;
        let mut bytes = vec![0; len as usize];
        let n = buf.read_at(at, &mut bytes);
        state.store(offset, &bytes);
        if n as u64 == len { Ok(()) } else { Err(BackingError::WriteFailed) }
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        let state = self.begin(Kind::Read, offset, dst.len() as u64)?;
        dst.copy_from_slice(&state.load(offset, dst.len() as u64));
        Ok(())
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        let mut state = self.begin(Kind::Write, offset, src.len() as u64)?;
        state.store(offset, src);
        Ok(())
    }

    fn flush(&self) -> Result<(), BackingError> {
        self.begin(Kind::Flush, SIZE, 0).map(drop)
    }

    fn unmap(&self, _offset: u64, _len: u64) -> Result<(), BackingError> {
        Err(BackingError::Unsupported)
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> Result<(), BackingError> {
        Err(BackingError::Unsupported)
    }

    fn raw(&self) -> Option<&RawFile> {
        None
    }
}
