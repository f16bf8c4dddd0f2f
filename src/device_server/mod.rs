//! The device server: a command on a logical unit for a nexus becomes a [`Plan`].
//!
//! # Contract
//!
//! * [`start`] is the one function with the check order: the unit exists → the opcode is known and its CDB legal → the
//!   nexus's gate lets it pass (gone, held, unit attention, reservation) → run.
//! * It never waits and does no I/O itself; what touches the image is in the plan. It runs on any reactor at any time: it reads
//!   the unit's state through snapshots and atomics.
//! * `outcome` is the one place where a backing error becomes sense data.
//! * Nothing here knows of threads, virtio or SRP.

use std::sync::Arc;

use crate::backing::{Image, Op};
use crate::lu::Itl;
use crate::mem::IoBuf;
use crate::scsi::{Sense, Status};

/// What to do about a command. The only fork in its way.
#[derive(Debug)]
pub enum Plan {
    /// It is over already.
    Done(Answer),
    /// Exactly one backing operation; then [`BlockIo::finish`].
    Io(BlockIo),
    /// Several steps, straight-line, on a thread that may wait.
    Job(Job),
}

/// How a command ended, with what it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SAM status.
    pub status: Status,
    /// With CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Bytes that the command moved or would have moved through its data buffer; more than the buffer holds means
    /// overflow. Parameter data was copied into the buffer already.
    pub transferred: u64,
}

/// A plan of one operation.
#[derive(Debug)]
pub struct BlockIo {
    /// On which image.
    pub image: Arc<dyn Image>,
    /// What.
    pub op: Op,
    /// How a result becomes an answer.
    pub finish: Finish,
}

/// What is needed to turn the result of one operation into an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The command's first LBA, for the INFORMATION field.
    pub lba: u64,
    /// Bytes moved through the data buffer when it succeeds.
    pub transferred: u64,
}

/// A plan of several steps. Runs on a thread that may wait; looks at its abort flag at least every 1 MiB or 10 ms.
pub struct Job {
    /// The work.
    #[expect(clippy::type_complexity, reason = "it is the one place where the type is written")]
    pub run: Box<dyn FnOnce(&mut IoBuf, &AbortFlag) -> Answer + Send>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// Tells a job that its task is being ended.
#[derive(Clone, Debug, Default)]
pub struct AbortFlag(Arc<std::sync::atomic::AtomicBool>);

impl AbortFlag {
    /// Asks the job to end as soon as it may.
    pub fn raise(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Whether it was asked to.
    pub fn raised(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// A command as the target hands it over.
#[derive(Debug)]
pub struct Request<'a> {
    /// The whole CDB: 16 bytes of the event and what travelled beside it.
    pub cdb: &'a [u8],
    /// The nexus's logical unit; `None` if there is none at this number.
    pub itl: Option<&'a Arc<Itl>>,
    /// Numbers of the units this nexus sees below the same target, ascending.
    pub luns: &'a [u16],
    /// Addressed to the REPORT LUNS well-known unit.
    pub well_known: bool,
}
