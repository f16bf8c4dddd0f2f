//! Taking chains from rings.
//!
//! Only queues on the active list are looked at: those that were kicked, that had more than their share in the last turn, and new
//! ones. An idle queue costs nothing.

use super::queue::{Role, State};
use super::reactor::Reactor;
use crate::sys::event;
use crate::virtio_scsi::Popped;

/// How much one queue may bring in one turn, so that a busy guest does not starve the others.
#[derive(Clone, Copy)]
struct Share {
    chains: u32,
    bytes: u64,
}

impl Share {
    /// Of a request queue: as many commands as go to the kernel at once, or what is copied in about a millisecond.
    const REQUESTS: Share = Share { chains: 128, bytes: 4 << 20 };
    /// Of a control queue: each function makes all reactors look through their tasks.
    const CONTROL: Share = Share { chains: 8, bytes: u64::MAX };

    fn of(role: Role) -> Share {
        match role {
            Role::Control => Share::CONTROL,
            Role::Event | Role::Request => Share::REQUESTS,
        }
    }

    fn is_used_up(self) -> bool {
        self.chains == 0 || self.bytes == 0
    }
}

/// Requests of one control queue that may be under way. More wait in the ring: what each of them costs while it waits for tasks is
/// paid by everybody.
const CONTROL_DEPTH: usize = 128;

impl Reactor {
    /// Puts a queue on the list of those that may have chains.
    pub(super) fn activate(&mut self, number: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        if queue.takes_chains() && !std::mem::replace(&mut queue.active, true) {
            self.active.push_back(number);
        }
    }

    /// The wait set says that a queue was kicked.
    pub(super) fn on_kick(&mut self, number: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        if let Some(Err(e)) = queue.kick().map(event::take) {
            // It would be readable for ever.
            if let Err(e) = self.wait.remove(u64::from(number)) {
                log::debug!("its kick was not waited for: {e}");
            }
            self.break_ring(number, &format!("its kick cannot be read: {e}"));
            return;
        }
        queue.ring.disable_kicks();
        self.activate(number);
    }

    /// Takes chains from every queue on the list, each its share. Queues that have more go to the end of it.
    pub(super) fn pop_active(&mut self) {
        for _ in 0..self.active.len() {
            let Some(number) = self.active.pop_front() else { return };
            let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { continue };
            queue.active = false;
            let share = Share::of(queue.role);
            if self.pop_queue(number, share) {
                self.activate(number);
            }
            self.drain_events();
        }
    }

    /// Takes all commands that the rings show now, of all sessions.
    pub(super) fn pop_everything(&mut self) {
        for number in 0..self.queues.len() {
            self.pop_commands(number as u16);
        }
        self.drain_events();
    }

    /// Takes all commands that the rings of one session show now.
    pub(super) fn pop_session(&mut self, place: usize) {
        for number in 0..self.queues.len() {
            if matches!(&self.queues[number], Some(queue) if queue.session == place) {
                self.pop_commands(number as u16);
            }
        }
        self.drain_events();
    }

    fn pop_commands(&mut self, number: u16) {
        let Some(Some(queue)) = self.queues.get(usize::from(number)) else { return };
        if queue.role != Role::Request {
            return;
        }
        // A ring never shows more chains than it has descriptors. One that is filled again while it is emptied is not followed: what
        // came later was not there "now".
        let shown = Share { chains: u32::from(queue.ring.size()), bytes: u64::MAX };
        if self.pop_queue(number, shown) {
            self.activate(number);
        }
    }

    /// Takes chains from one queue, up to its share; true if there may be more.
    fn pop_queue(&mut self, number: u16, mut share: Share) -> bool {
        loop {
            let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return false };
            if !queue.takes_chains() {
                return false;
            }
            if queue.role == Role::Control && queue.heads.len() >= CONTROL_DEPTH {
                // The next one that ends puts it on the list again.
                return false;
            }
            // A driver that makes heads available again before it has seen them used waits for its turn.
            if share.is_used_up() || queue.unseen >= u32::from(queue.ring.size()) {
                return true;
            }
            let chain = match queue.ring.pop(&mut queue.chain) {
                Ok(Popped::Chain) => Ok(()),
                Ok(Popped::Malformed(why)) => Err(why),
                Ok(Popped::Empty) => match queue.ring.enable_kicks() {
                    Ok(true) => {
                        queue.ring.disable_kicks();
                        continue;
                    }
                    Ok(false) => return false,
                    Err(e) => {
                        self.break_ring(number, &e.to_string());
                        return false;
                    }
                },
                Err(e) => {
                    self.break_ring(number, &e.to_string());
                    return false;
                }
            };
            let bytes = self.on_chain(number, chain);
            share = Share { chains: share.chains - 1, bytes: share.bytes.saturating_sub(bytes) };
        }
    }

    /// Gives a ring up: what the guest wrote there makes no sense. Costs this ring only; what was taken from it is
    /// finished.
    pub(super) fn break_ring(&mut self, number: u16, why: &str) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        if !matches!(queue.state, State::Running) {
            return;
        }
        queue.state = State::Broken;
        queue.signal_error();
        if let Some(Some(s)) = self.sessions.get(queue.session)
            && !s.hang_up_if_poisoned()
        {
            s.limit.warn(format_args!("{}: ring {} is broken: {why}", s.initiator, queue.ring_index));
        }
    }
}
