//! Several nexuses on one unit; each command in the bytes that an initiator sends.

mod commands;
mod conflicts;
mod legacy;
mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::device_server::testkit::{Bench, MemImage, Ran, check, nexus_of};
use crate::device_server::{Answer, Change, Plan};
use crate::lu::{Attention, Itl, KeepError, Keeper, KeptState, LuSetup};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{AdditionalSense, FieldPointer, ParameterData, Sense, SenseKey, Status};

const KEYS: [u64; 3] = [0xabc1, 0xabc2, 0xabc3];
const ALL_TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];

/// Service actions of PERSISTENT RESERVE OUT.
const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
const REGISTER_AND_MOVE: u8 = 7;
const REPLACE_LOST: u8 = 8;

/// Three nexuses on one unit of 100 blocks, no unit attention pending.
struct Cluster {
    nodes: [Bench; 3],
}

impl Cluster {
    fn new() -> Cluster {
        Cluster::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut LuSetup)) -> Cluster {
        let first = Bench::with(MemImage::patterned(51_200), change);
        let more = || Bench::of(first.image.clone(), nexus_of(first.itl.lu().clone(), None));
        let nodes = [more(), more()];
        let [second, third] = nodes;
        Cluster { nodes: [first, second, third] }
    }

    /// The same with the first `count` nexuses registered.
    fn registered(count: usize) -> Cluster {
        let cluster = Cluster::new();
        cluster.register(count);
        cluster
    }

    fn register(&self, count: usize) {
        for (node, key) in KEYS.into_iter().enumerate().take(count) {
            assert_eq!(self.out(node, REGISTER, 0, 0, key), GOOD);
        }
    }

    /// All registered, and the first holds a reservation of this type.
    fn reserved(kind: u8) -> Cluster {
        let cluster = Cluster::registered(3);
        assert_eq!(cluster.out(0, RESERVE, kind, KEYS[0], 0), GOOD);
        cluster
    }

    fn itl(&self, node: usize) -> &Arc<Itl> {
        &self.nodes[node].itl
    }

    /// PERSISTENT RESERVE OUT with the common list and no flags.
    fn out(&self, node: usize, action: u8, kind: u8, key: u64, service_action_key: u64) -> Answer {
        self.list(node, action, kind, &list(key, service_action_key, 0))
    }

    fn list(&self, node: usize, action: u8, kind: u8, list: &[u8]) -> Answer {
        self.nodes[node].data_out(&out_cdb(action, kind, list.len()), list)
    }

    /// PERSISTENT RESERVE IN with all the room there is.
    fn report(&self, node: usize, action: u8) -> Vec<u8> {
        let ran = self.ask(node, action, u16::MAX);
        assert_eq!(ran.answer.status, Status::Good);
        ran.data[..ran.answer.transferred as usize].to_vec()
    }

    fn ask(&self, node: usize, action: u8, allocation_length: u16) -> Ran {
        let [high, low] = allocation_length.to_be_bytes();
        self.nodes[node].data_in(&[0x5e, action, 0, 0, 0, 0, 0, high, low, 0], usize::from(allocation_length))
    }

    /// The same, asked by somebody else, who goes again: the three keep their unit attentions.
    fn observe(&self, action: u8) -> Vec<u8> {
        let itl = nexus_of(self.itl(0).lu().clone(), None);
        let observer = Bench::of(self.nodes[0].image.clone(), itl);
        let ran = observer.data_in(&[0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0], 0xffff);
        assert_eq!(ran.answer.status, Status::Good);
        ran.data[..ran.answer.transferred as usize].to_vec()
    }

    /// What READ KEYS says.
    fn keys(&self) -> (u32, Vec<u64>) {
        let data = self.observe(0);
        let generation = u32::from_be_bytes(data[..4].try_into().unwrap());
        (generation, data[8..].chunks(8).map(|key| u64::from_be_bytes(key.try_into().unwrap())).collect())
    }

    /// The key and the type that READ RESERVATION says.
    fn reservation(&self) -> Option<(u64, u8)> {
        let data = self.observe(1);
        (data.len() > 8).then(|| (u64::from_be_bytes(data[8..16].try_into().unwrap()), data[21]))
    }

    /// Takes the unit attentions of each.
    fn attentions(&self) -> [Vec<Attention>; 3] {
        [0, 1, 2].map(|node| std::iter::from_fn(|| self.itl(node).gate().take_attention()).collect())
    }

    /// A command without data.
    fn none(&self, node: usize, cdb: &[u8]) -> Answer {
        self.nodes[node].none(cdb)
    }

    fn read(&self, node: usize) -> Status {
        self.nodes[node].data_in(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512).answer.status
    }

    fn write(&self, node: usize) -> Status {
        self.nodes[node].data_out(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0x5a; 512]).status
    }

    /// A change, planned and no more.
    fn change(&self, node: usize, cdb: &[u8], list: &[u8]) -> Box<dyn Change> {
        self.unless_stopped(node, cdb, list).unwrap()
    }

    /// The same, if RESERVE of another node does not stop it.
    fn unless_stopped(&self, node: usize, cdb: &[u8], list: &[u8]) -> Option<Box<dyn Change>> {
        let mut buf = IoBuf::owned(list.len(), Direction::Out);
        buf.write_at(0, list);
        match self.nodes[node].plan(cdb, &mut buf) {
            Plan::Change(change) => Some(change),
            Plan::Done(answer) if answer == CONFLICT => None,
            other => panic!("{other:?}"),
        }
    }
}

/// GOOD of a common list.
const GOOD: Answer = Answer::good(24);
const CONFLICT: Answer = Answer::status(Status::ReservationConflict);

fn out_cdb(action: u8, kind: u8, length: usize) -> [u8; 10] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [0x5f, action, kind, 0, 0, a, b, c, d, 0]
}

fn list(key: u64, service_action_key: u64, flags: u8) -> Vec<u8> {
    let mut data = ParameterData::new();
    data.u64(key).u64(service_action_key).zeros(4).u8(flags).zeros(3);
    data.bytes().to_vec()
}

/// With SPEC_I_PT.
fn list_with(key: u64, service_action_key: u64, flags: u8, initiators: &[[u8; 16]]) -> Vec<u8> {
    let mut data = ParameterData::new();
    data.raw(&list(key, service_action_key, flags | 0x08)).u32(24 * initiators.len() as u32);
    for initiator in initiators {
        data.u8(0x04).zeros(7).raw(initiator);
    }
    data.bytes().to_vec()
}

/// Of REGISTER AND MOVE.
fn move_list(key: u64, service_action_key: u64, flags: u8, port: u16, initiator: [u8; 16]) -> Vec<u8> {
    let mut data = ParameterData::new();
    data.u64(key).u64(service_action_key).u8(0).u8(flags).u16(port).u32(24);
    data.u8(0x04).zeros(7).raw(&initiator);
    data.bytes().to_vec()
}

fn illegal(code: u16) -> Answer {
    check(Sense::new(SenseKey::IllegalRequest, AdditionalSense(code)))
}

fn in_cdb(byte: u16, bit: u8) -> Answer {
    check(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit)))
}

fn in_list(byte: u16, bit: u8) -> Answer {
    check(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, bit)))
}

/// Keeps states in memory, and fails when told to.
#[derive(Debug, Default)]
struct MemKeeper {
    kept: Mutex<Vec<KeptState>>,
    fails: AtomicBool,
    volatile: bool,
}

impl MemKeeper {
    fn last(&self) -> KeptState {
        self.kept.lock().unwrap().last().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.kept.lock().unwrap().len()
    }
}

impl Keeper for MemKeeper {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(KeepError::Write("no room".into()));
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(state.clone());
        Ok(())
    }

    fn note(&self) {}

    fn survives_power_loss(&self) -> bool {
        !self.volatile
    }
}
