//! An engine that holds operations until it is told, so that races are made on purpose.

use std::sync::Arc;

use super::engines::Task;
use super::{BackingError, Completion, Image, Op, Submit};
use crate::mem::IoBuf;

/// Holds every operation until [`release`](HeldEngine::release) or [`fail`](HeldEngine::fail); does it then, on the caller's thread.
#[derive(Debug, Default)]
pub struct HeldEngine {
    held: Vec<Task<Arc<dyn Image>>>,
    ended: Vec<Completion>,
    /// Cancelled while held.
    cancels: Vec<u64>,
    begun: bool,
}

impl HeldEngine {
    /// One that treats operations as not begun: a cancel ends them at once.
    pub fn new() -> HeldEngine {
        HeldEngine::default()
    }

    /// One that treats operations as begun: a cancel changes nothing.
    pub fn begun() -> HeldEngine {
        HeldEngine { begun: true, ..HeldEngine::default() }
    }

    /// The operations held, in the order in which they were submitted.
    pub fn held(&self) -> impl Iterator<Item = (u64, Op)> + '_ {
        self.held.iter().map(|task| (task.cookie, task.op))
    }

    /// The cookies for which a cancel came, in order.
    pub fn cancels(&self) -> &[u64] {
        &self.cancels
    }

    /// Does the operation of this name; false if none is held.
    pub fn release(&mut self, cookie: u64) -> bool {
        let Some(task) = self.take(cookie) else { return false };
        self.ended.push(task.run());
        true
    }

    /// Does all that are held, in order.
    pub fn release_all(&mut self) {
        let tasks = std::mem::take(&mut self.held);
        self.ended.extend(tasks.into_iter().map(Task::run));
    }

    /// Ends the operation of this name with an error and without doing it; false if none is held.
    pub fn fail(&mut self, cookie: u64, error: BackingError) -> bool {
        let Some(task) = self.take(cookie) else { return false };
        self.ended.push(task.complete(Err(error)));
        true
    }

    /// Appends the operations that have ended to `out`.
    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.ended);
    }

    /// How many operations have been submitted and not been reaped.
    pub fn in_flight(&self) -> usize {
        self.held.len() + self.ended.len()
    }

    fn take(&mut self, cookie: u64) -> Option<Task<Arc<dyn Image>>> {
        let index = self.held.iter().position(|task| task.cookie == cookie)?;
        Some(self.held.remove(index))
    }
}

impl Submit for HeldEngine {
    fn submit(&mut self, image: &Arc<dyn Image>, op: Op, buf: IoBuf, cookie: u64) {
        self.held.push(Task::new(Arc::clone(image), op, buf, cookie));
    }

    fn cancel(&mut self, cookie: u64) {
        self.cancels.push(cookie);
        if !self.begun {
            self.fail(cookie, BackingError::Cancelled);
        }
    }
}
