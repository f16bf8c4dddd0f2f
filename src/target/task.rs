//! A shard's tasks: a table per virtqueue, indexed by descriptor head.

use std::sync::Arc;

use super::nexus::{LuIndex, NO_UNIT, Nexus};
use crate::device_server::{AbortFlag, Change, Finish, Memo, Notes, Use};
use crate::lu::{Extent, GateBits, HoldId, Touches};
use crate::scsi::{HostByte, TaskAttribute};
use crate::tgt::{CmdData, CmdReq, HostNo, ItnId, Tag};

/// Where a task is.
#[derive(Debug, Default)]
pub(super) enum State {
    /// There is none.
    #[default]
    Free,
    /// At the backing; this turns the result into an answer.
    Io(Finish),
    /// A job of its own has it.
    Job(AbortFlag),
    /// It has not begun.
    Waiting(Box<Waiting>),
    /// It changes its unit; the shard's list of changes has the rest.
    Changing,
    /// `CMD_RSP` was posted, `CMD_DONE` has not come.
    Answered,
}

/// Names a task in letters that may come after it is over: a tag may be used again, by another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskName {
    pub(super) tag: Tag,
    pub(super) serial: u64,
}

/// A command that has not begun, whole, so that it can be started again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) req: CmdReq,
    pub(super) data: CmdData,
    /// Holds that do not stop it: its own, and those that came after it.
    pub(super) passes: Vec<HoldId>,
    /// The newest hold of its unit when it came: later ones wait for it.
    pub(super) seen: HoldId,
    pub(super) until: Until,
}

impl Waiting {
    /// Whether it is an ORDERED command that has no hold yet.
    pub(super) fn is_ordered(&self) -> bool {
        let ordered = TaskAttribute::from_tgt_code(self.req.attribute) == Ok(TaskAttribute::Ordered);
        ordered && matches!(self.until, Until::Released)
    }
}

/// What a command waits for.
#[derive(Debug)]
pub(super) enum Until {
    /// A hold to end.
    Released,
    /// Commands that its own hold has to wait for.
    Quiet,
    /// Its turn to change the unit.
    Turn(Box<dyn Change>),
}

/// How a task ends that is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not delivered.
    Host(HostByte),
    /// With TASK ABORTED: another nexus ended it, and TAS is one (SAM-5 5.6).
    TaskAborted,
}

/// A command between `CMD_REQ` and `CMD_DONE`.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) state: State,
    /// What to answer instead of its own result; set by the first that ends it.
    pub(super) ended: Option<Ending>,
    pub(super) tag: Tag,
    pub(super) itn_id: ItnId,
    pub(super) host_no: HostNo,
    pub(super) lu: LuIndex,
    pub(super) target: u8,
    pub(super) lun: u16,
    /// Its place in the order in which this shard took commands.
    pub(super) serial: u64,
    /// The bits of its nexus's gate that it needs open while it runs.
    pub(super) needs: GateBits,
    /// The blocks that it uses while it runs.
    pub(super) touches: Touches,
    /// What it uses while it runs if it copies between units, the one that it was sent to included.
    pub(super) copies: Option<Box<Copies>>,
    /// Its own holds, which end when it is answered.
    pub(super) holds: Vec<HoldId>,
    /// NACA of its CONTROL byte.
    pub(super) naca: bool,
    /// One of its holds is on blocks: those that it uses.
    pub(super) has_blocks: bool,
    /// It has the ACA attribute, and the place of the one command that may.
    pub(super) aca: bool,
    /// It is not to be carried out again once it is answered, even with GOOD.
    pub(super) once: bool,
}

/// What a copy uses.
#[derive(Debug)]
pub(super) struct Copies {
    uses: Vec<UnitUse>,
}

#[derive(Debug)]
struct UnitUse {
    lu: LuIndex,
    target: Option<u8>,
    needs: GateBits,
    touches: Touches,
}

impl Copies {
    /// A copy of `nexus` uses these.
    pub(super) fn of(nexus: &Nexus, uses: &[Use]) -> Box<Copies> {
        let of = |used: &Use| UnitUse {
            lu: nexus.index_of(used.itl.lu()),
            target: used.itl.address().map(|(target, _)| target),
            needs: used.needs,
            touches: Touches::Blocks(used.extent),
        };
        Box::new(Copies { uses: uses.iter().map(of).collect() })
    }

    fn at(&self, lu: LuIndex) -> impl Iterator<Item = &UnitUse> {
        self.uses.iter().filter(move |used| used.lu == lu)
    }
}

impl Task {
    pub(super) const FREE: Task = Task {
        state: State::Free,
        ended: None,
        tag: Tag::NONE,
        itn_id: 0,
        host_no: 0,
        lu: NO_UNIT,
        target: 0,
        lun: 0,
        serial: 0,
        needs: GateBits::NONE,
        touches: Touches::Nothing,
        copies: None,
        holds: Vec::new(),
        naca: false,
        has_blocks: false,
        aca: false,
        once: false,
    };

    /// Makes it [`FREE`](Task::FREE) again. Field by field: it is large, and most of it is so already.
    fn clear(&mut self) {
        let Task { state, ended, tag, itn_id, host_no, lu, target, lun, serial, needs, touches, copies, holds, .. } =
            self;
        (*state, *ended, *tag) = (State::Free, None, Tag::NONE);
        (*itn_id, *host_no, *lu, *target, *lun, *serial) = (0, 0, NO_UNIT, 0, 0, 0);
        (*needs, *touches, *copies) = (GateBits::NONE, Touches::Nothing, None);
        holds.clear();
        (self.naca, self.has_blocks, self.aca, self.once) = (false, false, false, false);
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered)
    }

    pub(super) fn name(&self) -> TaskName {
        TaskName { tag: self.tag, serial: self.serial }
    }

    /// Whether it waits for what its own hold has to wait for.
    pub(super) fn waits_for_quiet(&self) -> bool {
        matches!(&self.state, State::Waiting(waiting) if matches!(waiting.until, Until::Quiet))
    }

    /// Whether it is an ORDERED command that waits for its task set.
    pub(super) fn is_barred(&self) -> bool {
        matches!(&self.state, State::Waiting(waiting) if self.holds.is_empty() && waiting.is_ordered())
    }

    /// Whether it waits, with nothing begun, behind an ORDERED command that stands there.
    pub(super) fn is_behind(&self, ordered: u64) -> bool {
        self.serial > ordered && self.holds.is_empty() && matches!(self.state, State::Waiting(_))
    }

    /// Whether it may use its blocks now.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Io(_) | State::Job(_))
    }

    /// Whether it runs, and uses some of these blocks of a unit.
    pub(super) fn is_using(&self, lu: LuIndex, extent: Extent) -> bool {
        let blocks = Touches::Blocks(extent);
        let copies = || self.copies.iter().flat_map(|copies| copies.at(lu));
        self.is_running()
            && (self.lu == lu && self.touches.overlaps(blocks) || copies().any(|used| used.touches.overlaps(blocks)))
    }

    /// Whether it runs, and needs one of these bits of its nexus's gate at a unit to be open.
    pub(super) fn is_needing(&self, lu: LuIndex, bits: GateBits) -> bool {
        let copies = || self.copies.iter().flat_map(|copies| copies.at(lu));
        self.is_running()
            && (self.lu == lu && self.needs.intersects(bits) || copies().any(|used| used.needs.intersects(bits)))
    }

    /// Whether it runs, and copies from or to a unit.
    pub(super) fn is_copying(&self, lu: LuIndex) -> bool {
        self.is_running() && self.copies.iter().any(|copies| copies.at(lu).next().is_some())
    }

    /// Whether it runs, and copies from or to a unit that its nexus finds below a target number.
    pub(super) fn is_copying_below(&self, target: u8) -> bool {
        let below = |copies: &Copies| copies.uses.iter().any(|used| used.target == Some(target));
        self.is_running() && self.copies.as_ref().is_some_and(|copies| below(copies))
    }
}

/// The tasks of one virtqueue.
#[derive(Debug)]
struct Queue {
    tasks: Box<[Task]>,
    in_flight: usize,
    /// To be freed when its last task is over.
    closing: bool,
    /// Where decisions about its commands are noted.
    notes: Option<Arc<dyn Notes>>,
}

/// The tasks of a shard.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    queues: Vec<Option<Queue>>,
    in_flight: usize,
}

impl Tasks {
    /// Makes room for the tasks of a virtqueue with `size` descriptors. A queue that still has tasks keeps them and its
    /// size.
    pub(super) fn open(&mut self, queue: u16, size: u16) {
        let at = usize::from(queue);
        if self.queues.len() <= at {
            self.queues.resize_with(at + 1, || None);
        }
        let Some(slot) = self.queues.get_mut(at) else { return };
        match slot {
            Some(busy) if busy.in_flight > 0 => {
                log::error!("queue {queue} opened while {} of its tasks are in flight", busy.in_flight);
                busy.closing = false;
            }
            _ => {
                let tasks = (0..size).map(|_| Task::FREE).collect();
                *slot = Some(Queue { tasks, in_flight: 0, closing: false, notes: None });
            }
        }
    }

    /// Decisions about a virtqueue's commands are noted there.
    pub(super) fn keep_notes(&mut self, queue: u16, notes: Arc<dyn Notes>) {
        if let Some(Some(queue)) = self.queues.get_mut(usize::from(queue)) {
            queue.notes = Some(notes);
        }
    }

    /// The place for notes on a command.
    pub(super) fn memo(&self, tag: Tag) -> Option<Memo> {
        let queue = self.queues.get(usize::from(tag.queue()))?.as_ref()?;
        Some(Memo::new(Arc::clone(queue.notes.as_ref()?), tag.head()))
    }

    /// Frees a virtqueue's table, now or when its last task is over.
    pub(super) fn close(&mut self, queue: u16) {
        let Some(slot) = self.queues.get_mut(usize::from(queue)) else { return };
        match slot {
            Some(busy) if busy.in_flight > 0 => busy.closing = true,
            _ => *slot = None,
        }
    }

    /// A free place for a new task; `None` if there is no such queue or head, or it has a task.
    pub(super) fn claim(&mut self, tag: Tag) -> Option<&mut Task> {
        let queue = self.queues.get_mut(usize::from(tag.queue()))?.as_mut()?;
        let task = queue.tasks.get_mut(usize::from(tag.head()))?;
        if queue.closing || !task.is_free() {
            return None;
        }
        queue.in_flight += 1;
        self.in_flight += 1;
        Some(task)
    }

    /// The task of this very name.
    pub(super) fn get(&mut self, tag: Tag) -> Option<&mut Task> {
        let queue = self.queues.get_mut(usize::from(tag.queue()))?.as_mut()?;
        queue.tasks.get_mut(usize::from(tag.head())).filter(|task| task.tag == tag && !task.is_free())
    }

    /// The task of this very name, even if its tag was used again since.
    pub(super) fn named(&mut self, name: TaskName) -> Option<&mut Task> {
        self.get(name.tag).filter(|task| task.serial == name.serial)
    }

    /// Frees a task that was answered. False: there is no such task, or it was not answered.
    pub(super) fn free(&mut self, tag: Tag) -> bool {
        self.try_free(tag).is_some()
    }

    fn try_free(&mut self, tag: Tag) -> Option<()> {
        let slot = self.queues.get_mut(usize::from(tag.queue()))?;
        let queue = slot.as_mut()?;
        let task = queue.tasks.get_mut(usize::from(tag.head()))?;
        if task.tag != tag || !task.is_answered() {
            return None;
        }
        task.clear();
        queue.in_flight -= 1;
        self.in_flight -= 1;
        if queue.closing && queue.in_flight == 0 {
            *slot = None;
        }
        Some(())
    }

    /// How many there are.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// All that there are.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        let busy = self.queues.iter_mut().flatten().filter(|queue| queue.in_flight > 0);
        busy.flat_map(|queue| &mut queue.tasks).filter(|task| !task.is_free())
    }

    /// All that one virtqueue has.
    pub(super) fn of_queue(&mut self, queue: u16) -> impl Iterator<Item = &mut Task> {
        let queue = self.queues.get_mut(usize::from(queue)).and_then(Option::as_mut);
        queue.into_iter().flat_map(|queue| &mut queue.tasks).filter(|task| !task.is_free())
    }
}
