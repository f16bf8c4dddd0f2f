//! Taking chains from rings.
//!
//! Only queues that may have chains are looked at: those that were kicked, that had more than their share in the last turn, and new
//! ones. An idle queue costs nothing. In each turn every guest that has such queues gets one share, however many they are.

use super::queue::{Role, State};
use super::reactor::Reactor;
use crate::sys::event;
use crate::virtio_scsi::{Popped, RingError};

/// How much one guest may bring in one turn, so that a busy one does not starve the others.
#[derive(Clone, Copy)]
struct Share {
    commands: u32,
    /// Of commands' data.
    bytes: u64,
    functions: u32,
}

impl Share {
    /// As many commands as go to the kernel at once, or what is copied in about a millisecond; few functions, for each makes all
    /// reactors look through their tasks.
    const TURN: Share = Share { commands: 128, bytes: 4 << 20, functions: 8 };

    fn is_used_up(self, role: Role) -> bool {
        match role {
            Role::Control => self.functions == 0,
            Role::Event | Role::Request => self.commands == 0 || self.bytes == 0,
        }
    }

    fn without(self, role: Role, bytes: u64) -> Share {
        match role {
            Role::Control => Share { functions: self.functions.saturating_sub(1), ..self },
            Role::Event | Role::Request => {
                Share { commands: self.commands.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes), ..self }
            }
        }
    }
}

/// Requests of one control queue that may be under way. More wait in the ring: what each of them costs while it waits for tasks is
/// paid by everybody.
const CONTROL_DEPTH: usize = 128;

impl Reactor {
    /// Puts a queue on its session's list of those that may have chains, and the session on the reactor's.
    pub(super) fn activate(&mut self, number: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        let place = queue.session;
        let Some(Some(session)) = self.sessions.get_mut(place) else { return };
        if queue.takes_chains() && !std::mem::replace(&mut queue.active, true) {
            session.active.push_back(number);
            if !std::mem::replace(&mut session.listed, true) {
                self.active.push_back(place);
            }
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
        match queue.role {
            // Buffers stay where they are, unless something waits for one.
            Role::Event => {
                let place = queue.session;
                self.tell_missed(place);
            }
            Role::Control | Role::Request => self.activate(number),
        }
    }

    /// Takes chains for every session on the list, each its share. Those that have more go to the end of it.
    pub(super) fn pop_active(&mut self) {
        for _ in 0..self.active.len() {
            let Some(place) = self.active.pop_front() else { return };
            self.prefetch_next();
            self.pop_share(place);
            self.drain_events();
        }
    }

    /// The next session's chains are on their way while the one before is worked for: where there are many guests, none has many.
    fn prefetch_next(&self) {
        let session = self.active.front().and_then(|place| self.sessions.get(*place)?.as_ref());
        let number = session.and_then(|session| session.active.front());
        if let Some(Some(queue)) = number.and_then(|number| self.queues.get(usize::from(*number))) {
            queue.ring.prefetch_avail();
        }
    }

    /// Takes one share from a session's queues, beginning with the one that has waited longest.
    fn pop_share(&mut self, place: usize) {
        let Some(Some(session)) = self.sessions.get_mut(place) else { return };
        session.listed = false;
        let mut share = Share::TURN;
        for _ in 0..session.active.len() {
            if share.is_used_up(Role::Request) {
                break;
            }
            let Some(Some(session)) = self.sessions.get_mut(place) else { return };
            let Some(number) = session.active.pop_front() else { break };
            let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { continue };
            queue.active = false;
            if self.pop_queue(number, &mut share) {
                self.activate(number);
            }
        }
        // Those that did not get their turn are the first in the next one.
        let Some(Some(session)) = self.sessions.get_mut(place) else { return };
        if !session.active.is_empty() && !std::mem::replace(&mut session.listed, true) {
            self.active.push_back(place);
        }
    }

    /// Takes chains from one queue, up to the share; true if there may be more.
    fn pop_queue(&mut self, number: u16, share: &mut Share) -> bool {
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
            if share.is_used_up(queue.role) || queue.unseen >= u32::from(queue.ring.size()) {
                return true;
            }
            let (role, popped) = (queue.role, queue.pop());
            let chain = match popped {
                Ok(Popped::Chain) => Ok(()),
                Ok(Popped::Malformed(why)) => Err(why),
                Ok(Popped::Empty) if self.keep_hot(number) => return false,
                Ok(Popped::Empty) => match self.enable_kicks(number) {
                    Ok(true) => continue,
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
            let Some(Some(queue)) = self.queues.get(usize::from(number)) else { return false };
            if queue.mark.is_some_and(|end| queue.has_reached(end)) {
                self.clear_mark(number);
            }
            let bytes = self.on_chain(number, chain);
            *share = share.without(role, bytes);
        }
    }

    /// Has a queue's driver kick; true, and it need not, if there is something to take meanwhile.
    pub(super) fn enable_kicks(&mut self, number: u16) -> Result<bool, RingError> {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return Ok(false) };
        let more = queue.ring.enable_kicks()?;
        if more {
            queue.ring.disable_kicks();
        }
        Ok(more)
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
        self.clear_mark(number);
        let Some(Some(queue)) = self.queues.get(usize::from(number)) else { return };
        if let Some(Some(s)) = self.sessions.get(queue.session)
            && !s.hang_up_if_poisoned()
        {
            s.limit.warn(format_args!("{}: ring {} is broken: {why}", s.label, queue.ring_index));
        }
    }
}
