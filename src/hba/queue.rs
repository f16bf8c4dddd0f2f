//! A virtqueue as its reactor holds it: the ring, a slot for every descriptor head, the eventfds.

use std::fs::File;
use std::io::{Read, Write};

use super::mail::Reply;
use crate::mem::IoBuf;
use crate::tgt::Tag;
use crate::virtio_scsi::{Chain, CommandRequest, ControlRequest, SplitRing};

/// What a ring is for (virtio 1.2 5.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ring 0.
    Control,
    /// Ring 1.
    Event,
    /// Rings 2 and up.
    Request,
}

impl Role {
    /// The role of ring `index`.
    pub fn of(index: u16) -> Role {
        match index {
            0 => Role::Control,
            1 => Role::Event,
            _ => Role::Request,
        }
    }
}

/// What a descriptor head is used for at the moment. Kept from use to use, so that nothing is allocated per command.
#[derive(Debug, Default)]
pub struct Slot {
    /// A chain with this head was taken and not answered yet.
    pub busy: bool,
    /// Counts uses, so that an answer to an earlier use is known as such.
    pub generation: u16,
    /// The command, on a request queue.
    pub command: CommandRequest,
    /// The request, on the control queue.
    pub control: ControlRequest,
    /// On the control queue: how many TSK_MGMT_RSPs are still to come for it.
    pub functions: u32,
    /// On the control queue: the outcome so far.
    pub function_result: Option<i32>,
    /// An empty buffer whose capacity is used again.
    pub spare: IoBuf,
}

/// Whether chains are taken from a ring.
#[derive(Debug)]
pub enum State {
    /// They are.
    Running,
    /// No more; when the last one taken has been answered, the next available index is given back.
    Draining(Reply<Option<u16>>),
    /// No more: what the guest put there cannot be understood.
    Broken,
}

/// A virtqueue.
#[derive(Debug)]
pub struct Queue {
    /// Place of its session on this reactor.
    pub session: usize,
    /// Ring index on the wire.
    pub ring_index: u16,
    /// What it is for.
    pub role: Role,
    /// The ring.
    pub ring: SplitRing,
    /// One for every descriptor head.
    pub slots: Vec<Slot>,
    /// The chain being looked at.
    pub chain: Chain,
    /// Whether chains are taken.
    pub state: State,
    /// There may be chains to take.
    pub more: bool,
    /// Listed among the reactor's queues to publish.
    pub touched: bool,
    /// Answered, with a used entry written but not published.
    pub done: Vec<Tag>,
    /// Chains taken and not yet published.
    pub outstanding: u32,
    /// The guest kicks here.
    pub kick: Option<File>,
    /// The guest is interrupted here.
    pub call: Option<File>,
    /// The front-end hears here of a broken ring.
    pub err: Option<File>,
}

impl Queue {
    /// Takes the kick off its eventfd.
    pub fn drain_kick(&mut self) {
        if let Some(kick) = &mut self.kick {
            // An eventfd that is empty, or was made blocking and empty by a front-end, is read only when the wait set said it is
            // readable; an error means there is nothing to take.
            if let Err(e) = kick.read(&mut [0; 8]) {
                log::trace!("kick already taken: {e}");
            }
        }
    }

    /// Interrupts the guest.
    pub fn signal(&mut self) {
        signal(&mut self.call);
    }

    /// Tells the front-end that the ring is broken.
    pub fn signal_error(&mut self) {
        signal(&mut self.err);
    }
}

fn signal(fd: &mut Option<File>) {
    if let Some(fd) = fd
        && let Err(e) = fd.write(&1u64.to_ne_bytes())
    {
        // EAGAIN: the counter is full, so the other side has something to read already. Anything else is the
        // front-end's own doing, and its loss.
        log::trace!("eventfd not written: {e}");
    }
}
