//! The event queue: what the target reports by itself.
//!
//! An AER_REQ of the target is an SRP_AER_REQ information unit, and that an event in a buffer that the driver left on its
//! event ring: a parameter change, if the driver acknowledged VIRTIO_SCSI_F_CHANGE, and an asynchronous notification, if it subscribed to one.
//! Buffers stay in the ring until they are needed. An event that finds none is lost; then the next one carries
//! VIRTIO_SCSI_T_EVENTS_MISSED, and so that it need not be waited for, an event that says nothing else is sent as soon as there is a buffer
//! (virtio 1.2 5.6.6.3).

use super::queue::{Role, State};
use super::reactor::Reactor;
use crate::srp;
use crate::tgt::{AerReq, Tag};
use crate::virtio_scsi::{Event, EventBuffer, F_CHANGE, Popped, parameter_change};

/// What one connection can be told.
#[derive(Debug, Default)]
pub struct Events {
    /// Its driver has had an event ring.
    open: bool,
    /// It wants to know of parameter changes.
    parameters: bool,
    /// Events were lost since the last one that it got.
    missed: bool,
}

impl Events {
    /// Its event ring starts; with `anew` its driver does, too.
    pub fn start(&mut self, acked: u64, anew: bool) {
        *self = Events { open: true, parameters: acked & F_CHANGE != 0, missed: self.missed && !anew };
    }

    /// The process before this one ended while it was telling something.
    pub fn may_have_missed(&mut self) {
        self.missed = true;
    }
}

impl Reactor {
    /// The target reports something.
    pub(super) fn on_report(&mut self, report: AerReq, sense: &[u8]) {
        // It limits nothing, and nobody answers it, so its tag need not be told from others.
        let iu = srp::AerReq { solicited: false, req_lim_delta: 0, tag: report.itn_id, lun: report.lun, sense };
        for place in 0..self.sessions.len() {
            let Some(Some(session)) = self.sessions.get(place) else { continue };
            if session.itn_id != report.itn_id || !session.events.open {
                continue;
            }
            if session.events.parameters
                && let Some(event) = parameter_change(&iu)
            {
                self.tell(place, event);
            }
            if report.events != 0 {
                self.tell(place, Event::AsyncNotify { lun: report.lun, event: report.events });
            }
        }
    }

    /// Events were lost, and there may be a buffer now.
    pub(super) fn tell_missed(&mut self, place: usize) {
        if matches!(self.sessions.get(place), Some(Some(session)) if session.events.missed) {
            self.tell(place, Event::NoEvent);
        }
    }

    /// Tells a guest something, if it has a buffer for it.
    fn tell(&mut self, place: usize, event: Event) {
        let buffer = self.event_ring(place).and_then(|number| self.event_buffer(number));
        let Some(Some(session)) = self.sessions.get_mut(place) else { return };
        match buffer {
            None => session.events.missed = true,
            Some((tag, buffer)) => {
                let missed = std::mem::take(&mut session.events.missed);
                log::debug!("{}: told {event:?}, missed {missed}", session.label);
                let written = buffer.write(session.snapshots.writer(), event, missed);
                self.finish_chain(tag, written);
            }
        }
    }

    fn event_ring(&self, place: usize) -> Option<u16> {
        let session = self.sessions.get(place)?.as_ref()?;
        session.queues.iter().copied().find(|number| {
            let queue = self.queues.get(usize::from(*number));
            matches!(queue, Some(Some(q)) if q.role == Role::Event && matches!(q.state, State::Running))
        })
    }

    /// Takes the next buffer that an event fits in. Those that none does are given back with nothing in them. If there is none, the
    /// driver is asked to kick.
    fn event_buffer(&mut self, number: u16) -> Option<(Tag, EventBuffer)> {
        loop {
            let queue = self.queues.get_mut(usize::from(number))?.as_mut()?;
            // A driver that makes heads available again before it has seen them used gets no more now.
            if queue.unseen >= u32::from(queue.ring.size()) {
                return None;
            }
            let well_formed = match queue.pop() {
                Ok(Popped::Chain) => true,
                Ok(Popped::Malformed(why)) => {
                    log::debug!("ring {}: an event buffer: {why}", queue.ring_index);
                    false
                }
                Ok(Popped::Empty) => match queue.ring.enable_kicks() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(e) => {
                        self.break_ring(number, &e.to_string());
                        return None;
                    }
                },
                Err(e) => {
                    self.break_ring(number, &e.to_string());
                    return None;
                }
            };
            let Some(tag) = queue.take(self.index, number) else {
                self.break_ring(number, "a descriptor head was made available again before it was used");
                return None;
            };
            let session = self.sessions.get(queue.session)?.as_ref()?;
            if well_formed {
                match EventBuffer::parse(&queue.chain, session.snapshots.map()) {
                    Ok(buffer) => return Some((tag, buffer)),
                    Err(why) => log::debug!("{}: an event buffer is of no use: {why}", session.label),
                }
            }
            self.finish_chain(tag, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tgt::notification;
    use crate::virtio_scsi::wire;

    #[test]
    fn classes_have_the_same_numbers_on_both_sides() {
        assert_eq!(notification::OPERATIONAL_CHANGE, wire::AN_OPERATIONAL_CHANGE);
        assert_eq!(notification::MEDIA_CHANGE, wire::AN_MEDIA_CHANGE);
        assert_eq!(notification::MULTI_HOST, wire::AN_MULTI_HOST);
    }

    /// What was missed is told to the driver that missed it, and to no other.
    #[test]
    fn a_new_driver_has_missed_nothing() {
        let mut events = Events::default();
        events.start(F_CHANGE, true);
        assert!(events.open && events.parameters && !events.missed);
        events.missed = true;
        events.start(F_CHANGE, false);
        assert!(events.missed, "stopped and gone on");
        events.start(0, true);
        assert!(events.open && !events.parameters && !events.missed);
    }
}
