//! Transfers that are copied on the reactor, by it or by the kernel as it is entered, and take long: they are done a slice a turn, so that whatever
//! is small and comes meanwhile waits for a slice and not for all of them. Each slice costs a turn, so where nothing small came lately they are not
//! here: they are begun at once, like all others.
//!
//! Owners take turns, and one owner's come in their order. Of a file whose pages are not all in memory slices would only make the disk wait for the
//! reactor: a read that was not over as soon as the kernel had it goes there whole from then on, and is none of this any more.

use super::OpKind;
use super::engines::Task;
use super::port::INLINE_MAX;
use crate::sys::fair::Fair;

/// Bytes of a slice: some twenty microseconds of copying.
const SLICE: u64 = 128 << 10;

/// After so many calls of `flush` what the kernel does at once is over: the one that handed it over, and one that only looked.
const AT_ONCE: u32 = 2;

/// What a small one counts at least: in the time that a command takes, so many bytes are copied.
const COMMAND: u64 = 16 << 10;

/// What is small came lately if it came no more flushes ago: some tenths of a second of copying, less where a reactor looks for the end of other I/O and
/// flushes each time.
const LATELY: u32 = 4096;

/// The large transfers of one port that have a slice to come.
#[derive(Debug)]
pub(super) struct Large {
    waiting: Fair<Task>,
    /// Counts flushes.
    flushes: u32,
    /// When something small came last.
    small: Option<u32>,
    /// Bytes that the small ones of this turn count.
    passed: u64,
}

impl Default for Large {
    fn default() -> Large {
        Large { waiting: Fair::new(1), flushes: 0, small: None, passed: 0 }
    }
}

impl Large {
    /// Whether this is how a task is done now. The ring copies what is in the page cache inside the call; writes to it the kernel's own threads do on
    /// most file systems, and direct I/O copies nothing.
    pub(super) fn takes(&self, task: &Task, ring: bool) -> bool {
        let op = task.op;
        if op.len <= SLICE || !self.was_passed() {
            return false;
        }
        let capabilities = task.image.capabilities;
        match op.kind {
            OpKind::Read | OpKind::Write { .. } if capabilities.never_waits => op.len <= INLINE_MAX,
            OpKind::Read => {
                ring && !capabilities.direct
                    && task
                        .image
                        .raw()
                        .is_some_and(|raw| raw.is_for_ring(op.kind) && !raw.waits() && raw.check(op).is_ok())
            }
            _ => false,
        }
    }

    /// Something else came.
    #[inline]
    pub(super) fn pass(&mut self, task: &Task) {
        if task.op.len <= SLICE {
            self.small = Some(self.flushes);
            self.passed += task.op.len.max(COMMAND);
        }
    }

    fn was_passed(&self) -> bool {
        self.small.is_some_and(|small| self.flushes.wrapping_sub(small) <= LATELY)
    }

    /// Takes a task of which nothing is done.
    pub(super) fn put(&mut self, task: Task) {
        self.waiting.put(owner(task.cookie), task);
    }

    /// How many bytes are to be done in the turn that ends: a slice, or as much as the small ones of this turn had, so that they leave the large ones half
    /// of the time.
    pub(super) fn turn(&mut self) -> u64 {
        std::mem::take(&mut self.passed).max(SLICE)
    }

    /// The next one to do, up to `until`: `bytes` of it.
    pub(super) fn next(&mut self, bytes: u64) -> Option<Task> {
        let (owner, mut task) = self.waiting.take()?;
        self.waiting.ended(owner);
        let slice = if self.was_passed() { bytes } else { u64::MAX };
        (task.until, task.begun) = (task.done.saturating_add(slice).min(task.op.len), self.flushes);
        Some(task)
    }

    /// A slice is over, and it has more.
    pub(super) fn go_on(&mut self, task: Task) {
        self.waiting.put_first(owner(task.cookie), task);
    }

    /// The same of one that the ring did: gives it back, to be done whole, if the ring did it not at once.
    pub(super) fn sliced(&mut self, mut task: Task) -> Option<Task> {
        if self.flushes.wrapping_sub(task.begun) <= AT_ONCE {
            self.go_on(task);
            return None;
        }
        task.until = task.op.len;
        Some(task)
    }

    /// The kernel was given what there is for it.
    pub(super) fn flushed(&mut self) {
        self.flushes = self.flushes.wrapping_add(1);
    }

    /// Takes out those that have one of these names, which are ascending, and no effect yet.
    pub(super) fn cancel(&mut self, cookies: &[u64]) -> Vec<Task> {
        self.waiting.remove(|task| task.without_effect() && cookies.binary_search(&task.cookie).is_ok())
    }

    /// Whether there is none to go on with.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Whose a task is, see [`Submit::submit`](super::Submit::submit).
fn owner(cookie: u64) -> u64 {
    cookie >> 16 & 0xffff
}
