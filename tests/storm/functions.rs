//! Task management, and what is known of tasks when its answer comes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::time::Instant;

use super::front_end::{FrontEnd, Storm};
use super::ledger::{Cause, SHARED, Time, UnitNo};
use super::task::Task;
use crate::drive::*;
use crate::frontend::guest::lun;
use crate::frontend::{BOUND, Buffer, Ram};

const CLEAR_ACA: u32 = 2;
const NO_SUCH_FUNCTION: u32 = 8;

/// What a request of the control queue asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Manage {
        subtype: u32,
        id: u64,
    },
    /// To a unit that there is not.
    Nowhere {
        subtype: u32,
    },
    /// Asynchronous notification: query or subscribe.
    Notification {
        kind: u32,
    },
}

/// A request of the control queue under way.
#[derive(Debug)]
pub struct Request {
    ask: Ask,
    unit: UnitNo,
    posted: Time,
    head: u16,
    /// Slots and numbers of the tasks that it covers.
    covered: Vec<(usize, u64)>,
    causes: Vec<usize>,
    /// The id is one of a command that was answered before.
    is_over: bool,
}

#[derive(Debug)]
pub struct Function {
    request_at: u64,
    response_at: u64,
    pub since: Instant,
    request: Option<Request>,
}

impl Function {
    pub fn new(ram: &Ram) -> Function {
        Function { request_at: ram.alloc(24), response_at: ram.alloc(8), since: Instant::now(), request: None }
    }

    pub fn is_free(&self) -> bool {
        self.request.is_none()
    }
}

impl FrontEnd {
    /// Sends a function, if there is room for one.
    pub fn manage(&mut self, storm: &Storm<'_>) {
        let Some(at) = self.functions.iter().position(Function::is_free) else { return };
        let units = self.units();
        let faulted = units.into_iter().find(|unit| self.faulted[*unit]);
        if self.left == 0 {
            // What waits because of an ACA condition waits until it is cleared.
            let waiting = self.slots.iter().find_map(|slot| slot.task.as_ref());
            if let Some(task) = waiting {
                let unit = task.unit;
                self.send(storm, at, Ask::Manage { subtype: CLEAR_ACA, id: 0 }, unit);
            }
            return;
        }
        self.left -= 1;
        let random = &mut self.random;
        if let Some(unit) = faulted
            && random.percent(40)
        {
            self.faulted[unit] = false;
            return self.send(storm, at, Ask::Manage { subtype: CLEAR_ACA, id: 0 }, unit);
        }
        let unit = if random.percent(70) { SHARED } else { self.who };
        let subtype = random.weighted(&[
            (30, ABORT_TASK),
            (15, QUERY_TASK),
            (10, ABORT_TASK_SET),
            (10, CLEAR_TASK_SET),
            (10, QUERY_TASK_SET),
            (4, CLEAR_ACA),
            (5, I_T_NEXUS_RESET),
            (if storm.resets { 5 } else { 0 }, LOGICAL_UNIT_RESET),
            (2, NO_SUCH_FUNCTION),
        ]);
        let ids: Vec<u64> = self.slots.iter().filter_map(|s| s.task.as_ref().map(|task| task.id)).collect();
        let id = match subtype {
            // Perhaps the one that was answered last.
            ABORT_TASK | QUERY_TASK if ids.is_empty() || self.random.percent(5) => 2,
            ABORT_TASK | QUERY_TASK => self.random.one_of(&ids),
            _ => 0,
        };
        // A command is at one unit; mostly it is that one that is meant.
        let at_unit = self.slots.iter().filter_map(|s| s.task.as_ref()).find(|t| t.id == id).map(|t| t.unit);
        let unit = at_unit.filter(|_| self.random.percent(95)).unwrap_or(unit);
        let ask = match self.random.below(50) {
            // A nexus is reset whether or not it has the unit that the reset is addressed to.
            0 if subtype != I_T_NEXUS_RESET => Ask::Nowhere { subtype },
            1 => Ask::Notification { kind: 1 },
            2 => Ask::Notification { kind: 2 },
            _ => Ask::Manage { subtype, id },
        };
        self.send(storm, at, ask, unit);
    }

    /// A task management function while there is nothing else; its response.
    pub fn function(&mut self, subtype: u32, unit: UnitNo) -> u8 {
        let Function { request_at, response_at, .. } = &self.functions[0];
        let (request_at, response_at) = (*request_at, *response_at);
        let mut bytes = [0u32.to_le_bytes(), subtype.to_le_bytes()].concat();
        bytes.extend(self.luns[unit]);
        bytes.extend(0u64.to_le_bytes());
        self.guest.ram.write(request_at, &bytes);
        let queue = self.guest.queue(CONTROL);
        let head = queue.push(&[Buffer::out(request_at, 24), Buffer::input(response_at, 1)]);
        queue.kick();
        assert_eq!(queue.wait_used(BOUND), Some((head, 1)));
        self.guest.ram.read(response_at, 1)[0]
    }

    fn send(&mut self, storm: &Storm<'_>, at: usize, ask: Ask, unit: UnitNo) {
        let posted = storm.ledger.now();
        let who = self.who;
        let mut causes = Vec::new();
        if let Ask::Manage { subtype, id } = ask {
            let mut cause = |cause, unit| causes.push(storm.ledger.cause(cause, who, unit, posted));
            match subtype {
                ABORT_TASK => cause(Cause::AbortTask(id), unit),
                ABORT_TASK_SET => cause(Cause::AbortTaskSet, unit),
                CLEAR_TASK_SET => cause(Cause::ClearTaskSet, unit),
                CLEAR_ACA => cause(Cause::ClearAca, unit),
                LOGICAL_UNIT_RESET => cause(Cause::UnitReset, unit),
                I_T_NEXUS_RESET => [who, SHARED].into_iter().for_each(|unit| cause(Cause::NexusReset, unit)),
                _ => {}
            }
        }
        let tasks = self.slots.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.task.as_ref()?)));
        let covered: Vec<_> = tasks.filter(|(_, task)| covers(ask, unit, task)).map(|(i, t)| (i, t.number)).collect();
        let to = if matches!(ask, Ask::Nowhere { .. }) { lun(0, 99) } else { self.luns[unit] };
        let mut bytes = Vec::new();
        let len = match ask {
            Ask::Manage { subtype, id } => {
                [0, subtype].iter().for_each(|field| bytes.extend(field.to_le_bytes()));
                bytes.extend(to);
                bytes.extend(id.to_le_bytes());
                1
            }
            Ask::Nowhere { subtype } => {
                [0, subtype].iter().for_each(|field| bytes.extend(field.to_le_bytes()));
                bytes.extend(to);
                bytes.extend(7u64.to_le_bytes());
                1
            }
            Ask::Notification { kind } => {
                bytes.extend(kind.to_le_bytes());
                bytes.extend(to);
                bytes.extend(0x7eu32.to_le_bytes());
                5
            }
        };
        let function = &mut self.functions[at];
        self.guest.ram.write(function.request_at, &bytes);
        self.guest.ram.write(function.response_at, &[0xff; 5]);
        let chain = [Buffer::out(function.request_at, bytes.len() as u32), Buffer::input(function.response_at, len)];
        function.since = Instant::now();
        let queue = self.guest.queue(CONTROL);
        let head = queue.push(&chain);
        queue.kick();
        // Id 1 many have.
        let is_over = covered.is_empty() && !matches!(ask, Ask::Manage { id: 1, .. });
        self.functions[at].request = Some(Request { ask, unit, posted, head, covered, causes, is_over });
    }

    /// The tasks that were in the used rings before the function's answer was have been taken.
    pub fn function_answered(&mut self, storm: &Storm<'_>, head: u16, len: u32) {
        let now = storm.ledger.now();
        let is = |f: &&mut Function| f.request.as_ref().is_some_and(|request| request.head == head);
        let Some(function) = self.functions.iter_mut().find(is) else {
            panic!("head {head} of the control ring is nobody's")
        };
        let request = function.request.take().unwrap();
        let bytes = self.guest.ram.read(function.response_at, 5);
        request.causes.iter().for_each(|&cause| storm.ledger.over(cause, now));
        let (response, written) = match request.ask {
            Ask::Notification { .. } => (bytes[4], 5),
            _ => (bytes[0], 1),
        };
        let context = || format!("front-end {} at {now}: {request:?}: {response}\n{}", self.who, self.outstanding());
        assert_eq!(len, written, "{}", context());
        let still = |&(at, number): &(usize, u64)| self.slots[at].task.as_ref().is_some_and(|t| t.number == number);
        let name = match request.ask {
            Ask::Notification { .. } => {
                assert_eq!(response, OK, "{}", context());
                "Notification"
            }
            Ask::Nowhere { subtype: NO_SUCH_FUNCTION } => {
                assert!([FUNCTION_REJECTED, INCORRECT_LUN].contains(&response), "{}", context());
                "nowhere"
            }
            Ask::Nowhere { .. } => {
                assert_eq!(response, INCORRECT_LUN, "{}", context());
                "nowhere"
            }
            Ask::Manage { subtype: NO_SUCH_FUNCTION, .. } => {
                assert_eq!(response, FUNCTION_REJECTED, "{}", context());
                "REJECTED"
            }
            Ask::Manage { subtype: QUERY_TASK, .. } => {
                // One that is not there any more was answered before, and visibly.
                if response == OK {
                    assert!(!request.covered.iter().any(still), "{}", context());
                    "QUERY: none"
                } else {
                    assert!(response == FUNCTION_SUCCEEDED && !request.is_over, "{}", context());
                    "QUERY: found"
                }
            }
            Ask::Manage { subtype: QUERY_TASK_SET, .. } => {
                if response == OK {
                    assert!(!request.covered.iter().any(still), "{}", context());
                    "QUERY: none"
                } else {
                    // Commands that were posted since may be found as well.
                    assert_eq!(response, FUNCTION_SUCCEEDED, "{}", context());
                    "QUERY: found"
                }
            }
            Ask::Manage { subtype, .. } => {
                assert_eq!(response, OK, "{}", context());
                assert!(!request.covered.iter().any(still), "complete before its tasks: {}", context());
                let units = if subtype == I_T_NEXUS_RESET { vec![self.who, SHARED] } else { vec![request.unit] };
                if [CLEAR_ACA, I_T_NEXUS_RESET, LOGICAL_UNIT_RESET].contains(&subtype) {
                    for unit in units {
                        let aca = self.aca.entry(unit).or_default();
                        if aca.naca_now == 0 && aca.naca_until < request.posted {
                            aca.cleared = now;
                        }
                    }
                }
                "COMPLETE"
            }
        };
        let asked = match request.ask {
            Ask::Manage { subtype, .. } => format!("function {subtype}"),
            ask => format!("{ask:?}"),
        };
        *self.counts.entry((asked, name)).or_default() += 1;
    }
}

/// Whether a function of a task's own nexus covers it.
fn covers(ask: Ask, unit: UnitNo, task: &Task) -> bool {
    let Ask::Manage { subtype, id } = ask else { return false };
    match subtype {
        ABORT_TASK | QUERY_TASK => task.id == id && task.unit == unit,
        ABORT_TASK_SET | CLEAR_TASK_SET | QUERY_TASK_SET | LOGICAL_UNIT_RESET => task.unit == unit,
        I_T_NEXUS_RESET => true,
        _ => false,
    }
}
