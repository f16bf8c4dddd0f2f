//! A virtqueue as its reactor holds it: the ring, a slot for every descriptor head, the eventfds.

use std::fs::File;
use std::sync::Arc;

use super::heads::Heads;
use super::mail::Reply;
use crate::mem::{IoBuf, MemoryMap};
use crate::sys::event;
use crate::tgt::Tag;
use crate::vhost_user::{Earlier, InflightNotes, InflightRing, Owed, RingConfig};
use crate::virtio_scsi::{Chain, CommandRequest, ControlRequest, Popped, ResponseSlot, RingError, SplitRing};

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

/// A command, on a request queue.
#[derive(Debug, Default)]
pub struct Command {
    /// What the guest asked.
    pub request: CommandRequest,
    /// An empty buffer whose capacity is used again.
    pub spare: IoBuf,
    /// What it is charged with in [`Session::charged`](super::session::Session::charged): descriptors and pieces for which memory is kept.
    pub charged: usize,
}

impl Command {
    /// How many descriptors and pieces memory is kept for, with `buf` in place of the spare one while that is out.
    pub fn footprint(&self, buf: &IoBuf) -> usize {
        let request = &self.request;
        request.data_out.capacity() + request.data_in.capacity() + request.response.capacity() + buf.capacity()
    }

    /// Keeps no memory for the next use. It must have been answered.
    pub fn shrink(&mut self) {
        self.request = CommandRequest::default();
        self.spare = IoBuf::empty();
    }
}

/// A request on the control queue.
#[derive(Debug, Default)]
pub struct Control {
    /// What the guest asked.
    pub request: ControlRequest,
    /// How many reactors have still to say whether they have the task that it names.
    pub searching: usize,
    /// The tasks found so far.
    pub found: Vec<Tag>,
    /// How many TSK_MGMT_RSPs are still to come for it.
    pub functions: usize,
    /// The outcome so far.
    pub outcome: Option<i32>,
}

/// What a head is used for, by the queue's role.
#[derive(Debug)]
pub enum Work {
    /// On a request queue.
    Command(Command),
    /// On the control queue.
    Control(Control),
    /// On the event queue, whose buffers are taken and given back at once.
    Nothing,
}

/// What belongs to a descriptor head. Kept from use to use, so that nothing is allocated per command.
#[derive(Debug)]
pub struct Slot {
    /// Counts uses, so that an answer to an earlier use is known as such.
    generation: u16,
    /// The map that the response must be written to although it is not the current one: it has the response's place, which
    /// the current one lacks.
    pub kept: Option<Arc<MemoryMap>>,
    /// What it is used for.
    pub work: Work,
}

impl Slot {
    /// The command, on a request queue.
    pub fn command(&mut self) -> Option<&mut Command> {
        match &mut self.work {
            Work::Command(command) => Some(command),
            Work::Control(_) | Work::Nothing => None,
        }
    }

    /// The request, on the control queue.
    pub fn control(&mut self) -> Option<&mut Control> {
        match &mut self.work {
            Work::Control(control) => Some(control),
            Work::Command(_) | Work::Nothing => None,
        }
    }

    fn response(&self) -> Option<&ResponseSlot> {
        match &self.work {
            Work::Command(command) => Some(&command.request.response),
            Work::Control(control) => Some(&control.request.response),
            Work::Nothing => None,
        }
    }
}

/// Whether chains are taken from a ring.
#[derive(Debug)]
pub enum State {
    /// They are.
    Running,
    /// No more: what the guest put there cannot be understood.
    Broken,
    /// No more; when the last one taken has been answered the ring is given up, and whoever waits gets the next available
    /// index.
    Draining(Option<Reply<Option<u16>>>),
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
    /// The chain being looked at.
    pub chain: Chain,
    /// Whether chains are taken.
    pub state: State,
    /// Listed among its session's queues that may have chains to take.
    pub active: bool,
    /// Its reactor looks at it without being kicked.
    pub hot: bool,
    /// Turns of which it had nothing to take, while it was hot.
    pub turns_cold: u8,
    /// Where letters that judge its session's commands wait for it to get: an available index.
    pub mark: Option<u16>,
    /// Listed among the reactor's queues to publish.
    pub touched: bool,
    /// Used entries that the guest cannot see yet.
    pub unseen: u32,
    /// Commands of those used entries: their `CMD_DONE`s are owed.
    pub done: Vec<Tag>,
    /// Heads taken and not answered.
    pub heads: Heads,
    /// Chains that the process before this one took and did not give back, the last of them first: they are taken before what is
    /// available.
    pub owed: Vec<Owed>,
    /// What was noted about the chain being looked at.
    earlier: Earlier,
    /// When it was taken, if that was by another process.
    taken: u64,
    /// Where is written what is taken and given back.
    inflight: Option<InflightRing>,
    slots: Box<[Slot]>,
    kick: Option<File>,
    call: Option<File>,
    err: Option<File>,
}

impl Queue {
    /// A queue over `ring`. `seed` is where its generations begin: by another number than those of the queue that had this one's
    /// number before.
    pub fn new(session: usize, ring: SplitRing, config: RingConfig, owed: Vec<Owed>, seed: u16) -> Queue {
        let role = Role::of(config.index);
        let work = || match role {
            Role::Request => Work::Command(Command::default()),
            Role::Control => Work::Control(Control::default()),
            Role::Event => Work::Nothing,
        };
        let slots = (0..config.size).map(|_| Slot { generation: seed, kept: None, work: work() }).collect();
        Queue {
            session,
            ring_index: config.index,
            role,
            ring,
            chain: Chain::default(),
            state: State::Running,
            active: false,
            hot: false,
            turns_cold: 0,
            mark: None,
            touched: false,
            unseen: 0,
            done: Vec::with_capacity(usize::from(config.size)),
            heads: Heads::new(config.size),
            owed,
            earlier: Earlier::Nothing,
            taken: 0,
            inflight: config.inflight,
            slots,
            kick: config.kick,
            call: config.call,
            err: config.err,
        }
    }

    /// Whether chains are taken from it.
    pub fn takes_chains(&self) -> bool {
        matches!(self.state, State::Running) && self.role != Role::Event
    }

    /// Whether nothing that was taken is unanswered, or answered unseen.
    pub fn is_idle(&self) -> bool {
        self.heads.is_empty() && !self.touched
    }

    /// Takes the next chain: one that was in flight when the process before this one ended, or else what is available.
    ///
    /// # Errors
    ///
    /// If the ring breaks or is broken.
    pub fn pop(&mut self) -> Result<Popped, RingError> {
        if let Some(Owed { head, earlier, counter }) = self.owed.pop() {
            (self.earlier, self.taken) = (earlier, counter.max(1));
            return self.ring.pop_again(head, &mut self.chain);
        }
        (self.earlier, self.taken) = (Earlier::Nothing, 0);
        let popped = self.ring.pop(&mut self.chain)?;
        if let (Popped::Chain | Popped::Malformed(_), Some(inflight)) = (popped, &mut self.inflight) {
            inflight.begin(self.chain.head);
        }
        Ok(popped)
    }

    /// What the process before this one noted about the chain that was just popped. Asked once for each.
    pub fn take_earlier(&mut self) -> Earlier {
        std::mem::take(&mut self.earlier)
    }

    /// When the process before this one took the chain that was just popped; 0: it did not.
    pub fn taken_before(&self) -> u64 {
        self.taken
    }

    /// Chains that are taken from now on are taken at `now`, see [`InflightRing::advance`].
    pub fn advance(&mut self, now: u64) {
        if let Some(inflight) = &mut self.inflight {
            inflight.advance(now);
        }
    }

    /// Where decisions about its chains are noted, if anywhere.
    pub fn notes(&self) -> Option<&Arc<InflightNotes>> {
        self.inflight.as_ref()?.notes()
    }

    /// A request was answered, which must not be carried out again: `written` bytes were written to its chain.
    pub fn note_answer(&self, head: u16, written: u32) {
        if let Some(notes) = self.notes() {
            notes.answered(head, written);
        }
    }

    /// Shows the driver what was put on the used ring; whether it wants an interrupt.
    pub fn publish(&mut self) -> bool {
        self.unseen = 0;
        let wanted = self.ring.publish();
        // What cannot be shown stays in flight.
        if let Some(inflight) = self.inflight.as_mut().filter(|_| self.ring.is_mapped()) {
            let heads = &self.heads;
            inflight.published(self.ring.next_used(), |head| heads.contains(head));
        }
        wanted
    }

    /// Whether all has been taken that was available up to `end`.
    pub fn has_reached(&self, end: u16) -> bool {
        self.owed.is_empty() && self.ring.next_avail() == end
    }

    /// Begins to use the slot of the chain that was just popped: its tag; `None` if it is in use or there is none.
    pub fn take(&mut self, reactor: u8, number: u16) -> Option<Tag> {
        let head = self.chain.head;
        let slot = self.slots.get_mut(usize::from(head))?;
        if !self.heads.insert(head) {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        Some(Tag::new(reactor, number, head, slot.generation))
    }

    /// The slot whose present use `tag` names, and the chain that was popped last.
    pub fn slot(&mut self, tag: Tag) -> Option<(&mut Slot, &Chain)> {
        let slot = self.slots.get_mut(usize::from(tag.head()))?;
        let current = self.heads.contains(tag.head()) && slot.generation == tag.generation();
        current.then_some((slot, &self.chain))
    }

    /// Ends a use: `written` bytes were written to its chain, which goes on the used ring. `None` if it had ended before; else
    /// whether its response went to a map that was kept for it.
    pub fn finish(&mut self, tag: Tag, written: u32) -> Option<bool> {
        let kept = self.slot(tag)?.0.kept.take().is_some();
        self.heads.remove(tag.head());
        self.ring.push_used(tag.head(), written);
        if let Some(inflight) = &mut self.inflight {
            inflight.end(tag.head());
        }
        self.unseen += 1;
        Some(kept)
    }

    /// The tags of the commands for which `wanted` holds.
    pub fn find<'a>(
        &'a self,
        reactor: u8,
        number: u16,
        wanted: impl Fn(&CommandRequest) -> bool + 'a,
    ) -> impl Iterator<Item = Tag> + 'a {
        let slots = self.heads.iter().filter_map(|head| Some((head, self.slots.get(usize::from(head))?)));
        slots.filter_map(move |(head, slot)| match &slot.work {
            Work::Command(c) if wanted(&c.request) => Some(Tag::new(reactor, number, head, slot.generation)),
            _ => None,
        })
    }

    /// Keeps `before` for all requests whose response has no place in `now`; how many there are.
    pub fn keep_responses(&mut self, before: &Arc<MemoryMap>, now: &MemoryMap) -> usize {
        let mut kept = 0;
        for head in self.heads.iter() {
            let Some(slot) = self.slots.get_mut(usize::from(head)).filter(|slot| slot.kept.is_none()) else { continue };
            let lost = |&(addr, len): &(u64, u32)| !now.contains(addr, len.into());
            if slot.response().is_some_and(|response| response.pieces().iter().any(lost)) {
                slot.kept = Some(Arc::clone(before));
                kept += 1;
            }
        }
        kept
    }

    /// What all its commands are charged with.
    pub fn charged(&self) -> usize {
        let charged = self.slots.iter().map(|slot| match &slot.work {
            Work::Command(command) => command.charged,
            Work::Control(_) | Work::Nothing => 0,
        });
        charged.sum()
    }

    /// Where the guest kicks.
    pub fn kick(&self) -> Option<&File> {
        self.kick.as_ref()
    }

    /// Another interrupt. What was published while there was none, or the old one, must not be missed.
    pub fn set_call(&mut self, call: Option<File>) {
        self.call = call;
        self.signal();
    }

    /// Another place to hear of a broken ring.
    pub fn set_err(&mut self, err: Option<File>) {
        self.err = err;
        if matches!(self.state, State::Broken) {
            self.signal_error();
        }
    }

    /// Interrupts the guest.
    pub fn signal(&self) {
        signal(self.call.as_ref());
    }

    /// Tells the front-end that the ring is broken.
    pub fn signal_error(&self) {
        signal(self.err.as_ref());
    }
}

fn signal(to: Option<&File>) {
    if let Some(to) = to
        && let Err(e) = event::signal(to)
    {
        // It is the front-end's descriptor, and its loss.
        log::debug!("an eventfd cannot be written: {e}");
    }
}
