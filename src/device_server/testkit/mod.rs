//! For tests: a nexus on a unit in memory, and an executor that runs a plan to its end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod held_background;
mod mem_image;

pub use held_background::HeldBackground;
pub use mem_image::{Call, MemImage, pattern};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{AbortFlag, Answer, Copying, Exclusive, Peers, Plan, Request, io_done, start};
use crate::backing::{Op, OpKind};
use crate::lu::{Attention, Itl, Lu, LuSetup, NexusId};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{Sense, Status, TaskAttribute};

/// One nexus on one unit on one [`MemImage`].
pub struct Bench {
    /// The image.
    pub image: Arc<MemImage>,
    /// The nexus's unit.
    pub itl: Arc<Itl>,
    /// What REPORT LUNS is to show.
    pub luns: Vec<u16>,
    /// The units that the nexus sees.
    pub peers: Vec<Arc<Itl>>,
}

/// For a nexus that sees no units to copy between.
#[derive(Debug)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn units(&self) -> Vec<Arc<Itl>> {
        Vec::new()
    }
}

/// What became of a command.
#[derive(Debug)]
pub struct Ran {
    /// Its answer.
    pub answer: Answer,
    /// Its data buffer afterwards, whole.
    pub data: Vec<u8>,
}

impl Bench {
    /// A unit as [`LuSetup::new`] makes it, no unit attention pending.
    pub fn new(image: MemImage) -> Bench {
        Bench::with(image, |_| ())
    }

    /// The same after a change to its set-up.
    pub fn with(image: MemImage, change: impl FnOnce(&mut LuSetup)) -> Bench {
        let image = Arc::new(image);
        let mut setup = LuSetup::new(image.clone(), 0x3123_4567_89ab_cdef, "SERIAL01".into());
        change(&mut setup);
        Bench::of(image, nexus_of(Lu::new(setup).unwrap(), None))
    }

    /// A nexus's unit on an image.
    pub fn of(image: Arc<MemImage>, itl: Arc<Itl>) -> Bench {
        let peers = vec![Arc::clone(&itl)];
        Bench { image, itl, luns: vec![0], peers }
    }

    /// Runs a command without data.
    pub fn none(&self, cdb: &[u8]) -> Answer {
        self.run(cdb, IoBuf::empty()).answer
    }

    /// Runs a command with a Data-In buffer of `len` bytes, filled with EEh.
    pub fn data_in(&self, cdb: &[u8], len: usize) -> Ran {
        let mut buf = IoBuf::owned(len, Direction::In);
        buf.write_at(0, &vec![0xee; len]);
        self.run(cdb, buf)
    }

    /// Runs a command with a Data-Out buffer.
    pub fn data_out(&self, cdb: &[u8], data: &[u8]) -> Answer {
        self.run(cdb, out_buf(data)).answer
    }

    /// Plans a command and runs the plan to its end.
    pub fn run(&self, cdb: &[u8], buf: IoBuf) -> Ran {
        self.run_with(cdb, buf, &AbortFlag::default())
    }

    /// The same with an abort flag that somebody else holds.
    pub fn run_with(&self, cdb: &[u8], mut buf: IoBuf, abort: &AbortFlag) -> Ran {
        let plan = self.plan(cdb, &mut buf);
        let answer = execute(plan, &mut buf, abort);
        Ran { answer, data: contents(&buf) }
    }

    /// Plans a command.
    pub fn plan<'a>(&'a self, cdb: &'a [u8], buf: &mut IoBuf) -> Plan<'a> {
        let attribute = TaskAttribute::Simple;
        let request = Request {
            cdb,
            itl: Some(&self.itl),
            luns: &self.luns,
            peers: &self.peers,
            well_known: None,
            attribute,
            passes: &[],
        };
        start(&request, buf).plan
    }
}

/// Another nexus of a unit: each has an initiator port of its own, all have one target port.
pub fn nexus_of(lu: Arc<Lu>, attention: Option<Attention>) -> Arc<Itl> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut initiator = [0; 16];
    initiator[8..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Itl::new(lu, NexusId { initiator, port: 1 }, attention)
}

/// Runs a plan to its end, as a target with a simple engine would.
pub fn execute(plan: Plan<'_>, buf: &mut IoBuf, abort: &AbortFlag) -> Answer {
    match plan {
        Plan::Done(answer) => answer,
        Plan::Io(io) => {
            let Op { kind, offset, len } = io.op;
            let result = match kind {
                OpKind::Read => {
                    assert_eq!(buf.direction(), Direction::In);
                    io.image.read(offset, len, buf, 0)
                }
                OpKind::Write { fua } => {
                    assert_eq!(buf.direction(), Direction::Out);
                    io.image.write(offset, len, buf, 0, fua)
                }
                OpKind::Flush => io.image.flush(),
                OpKind::Unmap => io.image.unmap(offset, len),
                OpKind::WriteZeroes { unmap } => io.image.write_zeroes(offset, len, unmap),
            };
            io_done(io.finish, result, 0)
        }
        Plan::Job(job) | Plan::Exclusive(Exclusive { job, .. }) | Plan::Copy(Copying { job, .. }) => {
            (job.run)(buf, abort)
        }
        Plan::Change(mut change) => {
            let fence = match change.evaluate() {
                Ok(fence) => fence,
                Err(answer) => return answer,
            };
            if fence.persists
                && let Err(answer) = change.persist()
            {
                return answer;
            }
            change.apply();
            execute(change.grant(), buf, abort)
        }
        Plan::Held => panic!("nothing holds here"),
    }
}

/// A Data-Out buffer that holds `data`.
pub fn out_buf(data: &[u8]) -> IoBuf {
    let mut buf = IoBuf::owned(data.len(), Direction::Out);
    buf.write_at(0, data);
    buf
}

/// The bytes of a buffer.
pub fn contents(buf: &IoBuf) -> Vec<u8> {
    let mut data = vec![0; buf.len() as usize];
    buf.read_at(0, &mut data);
    data
}

/// GOOD, having moved `transferred` bytes.
pub fn good(transferred: u64) -> Answer {
    Answer { status: Status::Good, sense: None, transferred }
}

/// CHECK CONDITION with `sense`, having moved nothing.
pub fn check(sense: Sense) -> Answer {
    Answer { status: Status::CheckCondition, sense: Some(sense), transferred: 0 }
}
