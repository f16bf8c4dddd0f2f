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
//! * Every command is answered whatever its bytes and its buffer: a data buffer that is too short, or goes the wrong way, costs
//!   the command its effect, see [`Answer::transferred`].
//!
//! # Where is what
//!
//! `spc` and `sbc` hold the commands, a file for each family; `timestamp`, `identifying`, `buffer`, `diagnostic` and `log` hold those that
//! keep something in the unit's [`Records`](crate::lu::Records) or look at it, `defects` READ DEFECT DATA, `erase` FORMAT UNIT and SANITIZE, `mode` the mode pages, `reservations` what is
//! reserved; `absent` answers for units that are not there, `well_known` for
//! the REPORT LUNS well-known unit; `outcome` turns backing errors into sense data, `ports` names target ports, `access` has their access states, `transfer` checks data buffers.
//! `third_party_copy` copies between units, `rod_tokens` by token.

mod absent;
mod access;
mod buffer;
mod change;
mod defects;
mod diagnostic;
mod erase;
mod identifying;
mod log;
mod memo;
mod mode;
mod outcome;
mod ports;
mod reservations;
mod rod_tokens;
mod sbc;
mod spc;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
mod third_party_copy;
mod timestamp;
mod transfer;
mod well_known;

pub use change::{Change, Fence, Losers};
pub use erase::go_on;
pub use log::io_failed;
pub use memo::{Decision, Memo, Noted, Notes};
pub use outcome::io_done;
pub use third_party_copy::{Copying, Use};

use std::sync::Arc;

use crate::backing::{Image, Op, OpKind};
use crate::lu::{Admission, Attention, Extent, GateBits, HoldId, Itl, Ports, Touches};
use crate::mem::IoBuf;
use crate::scsi::opcode::{self, Access, Persistent, Readiness, Row, Spc2};
use crate::scsi::spc::{ModeSelectFields, ModeSenseFields};
use crate::scsi::{AdditionalSense, Command, Sense, Status, TaskAttribute};

/// What to do about a command. The only fork in its way.
#[derive(Debug)]
pub enum Plan<'a> {
    /// It is over already.
    Done(Answer),
    /// Exactly one backing operation; then [`BlockIo::finish`].
    Io(BlockIo<'a>),
    /// Several steps, straight-line, on a thread that may wait.
    Job(Job),
    /// The same, while no other command uses the blocks that it uses.
    Exclusive(Exclusive),
    /// Several steps, which use other units as well.
    Copy(Copying),
    /// A change of what nexuses share, in its turn.
    Change(Box<dyn Change>),
    /// Nothing yet: a hold stops it. To be started again when a hold has ended; nothing has happened to its buffer or to the unit.
    Held,
}

/// A plan of several steps between which nobody else may use its blocks.
#[derive(Debug)]
pub struct Exclusive {
    /// The blocks.
    pub extent: Extent,
    /// The work.
    pub job: Job,
}

/// A plan, and what the command needs while it is carried out.
#[derive(Debug)]
pub struct Started<'a> {
    /// What to do.
    pub plan: Plan<'a>,
    /// The bits of the gate that had to be open for it. Whoever closes one of them for the command's nexus waits for its end.
    pub needs: GateBits,
    /// The blocks that it uses.
    pub touches: Touches,
}

/// How a command ended, with what it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SAM status.
    pub status: Status,
    /// With CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Bytes that the command moved or would have moved through its data buffer; more than the buffer holds means
    /// overflow: nothing was done then. A buffer of the wrong direction holds nothing, so this is more than its length,
    /// too. Parameter data was copied into the buffer already.
    pub transferred: u64,
}

impl Answer {
    /// GOOD, having moved so many bytes.
    pub const fn good(transferred: u64) -> Answer {
        Answer { status: Status::Good, sense: None, transferred }
    }

    /// CHECK CONDITION.
    pub const fn check(sense: Sense) -> Answer {
        Answer { status: Status::CheckCondition, sense: Some(sense), transferred: 0 }
    }

    /// A status that says it all.
    pub const fn status(status: Status) -> Answer {
        Answer { status, sense: None, transferred: 0 }
    }
}

impl From<Sense> for Answer {
    fn from(sense: Sense) -> Answer {
        Answer::check(sense)
    }
}

impl From<Answer> for Plan<'_> {
    fn from(answer: Answer) -> Self {
        Plan::Done(answer)
    }
}

/// A plan of one operation.
#[derive(Debug)]
pub struct BlockIo<'a> {
    /// On which image: the unit's own, borrowed, so that no reference count is touched.
    pub image: &'a Arc<dyn Image>,
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

impl Job {
    /// A plan to run `run`; what it returns in `Err` is its answer as well.
    fn plan(run: impl FnOnce(&mut IoBuf, &AbortFlag) -> Result<Answer, Answer> + Send + 'static) -> Plan<'static> {
        Plan::Job(Job { run: Box::new(move |buf, abort| run(buf, abort).unwrap_or_else(|answer| answer)) })
    }
}

impl Exclusive {
    /// A plan to run `run` while no other command uses the blocks of `extent`.
    fn plan(
        extent: Extent,
        run: impl FnOnce(&mut IoBuf, &AbortFlag) -> Result<Answer, Answer> + Send + 'static,
    ) -> Plan<'static> {
        let run = Box::new(move |buf: &mut IoBuf, abort: &AbortFlag| run(buf, abort).unwrap_or_else(|answer| answer));
        Plan::Exclusive(Exclusive { extent, job: Job { run } })
    }
}

impl std::fmt::Debug for dyn Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Change")
    }
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

/// The units that a nexus sees, on all targets. Only commands that are about several units ask.
pub trait Peers: std::fmt::Debug {
    /// Each once for each place where the nexus finds it.
    fn units(&self) -> Vec<Arc<Itl>>;
}

/// The same for who has a list of them.
impl Peers for Vec<Arc<Itl>> {
    fn units(&self) -> Vec<Arc<Itl>> {
        self.clone()
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
    /// All units that this nexus sees, for commands that copy between units.
    pub peers: &'a dyn Peers,
    /// Addressed to the REPORT LUNS well-known unit, which is reached by these ports.
    pub well_known: Option<Ports<'a>>,
    /// Its task attribute, as far as holds go: ACA and HEAD OF QUEUE pass those of task sets.
    pub attribute: TaskAttribute,
    /// Holds that do not stop this command: its own, and those that came after it.
    pub passes: &'a [HoldId],
}

/// A command on a unit that is there, on its way to a plan.
struct Task<'a, 'b> {
    itl: &'a Arc<Itl>,
    luns: &'a [u16],
    peers: &'a dyn Peers,
    row: &'static Row,
    noted: &'b Noted,
    buf: &'b mut IoBuf,
}

/// A plan, or the answer that ended the command before there was one.
type Planned<'a> = Result<Plan<'a>, Answer>;

/// Decides what to do about a command. The check order is here: the unit exists, its CDB is legal, the gate lets
/// it pass, and only then is it looked at what the command wants.
///
/// Parameter data is written to `buf` right away. Anything else that happens to `buf` or to the image is in the plan.
pub fn start<'a>(request: &Request<'a>, buf: &mut IoBuf) -> Started<'a> {
    start_noted(request, &Noted::default(), buf)
}

/// The same for a command of which something is, or is to be, noted; see [`Notes`].
pub fn start_noted<'a>(request: &Request<'a>, noted: &Noted, buf: &mut IoBuf) -> Started<'a> {
    let over = |plan| Started { plan, needs: GateBits::NONE, touches: Touches::Nothing };
    if let Some(ports) = request.well_known {
        return over(well_known::start(request, ports, buf).unwrap_or_else(Plan::Done));
    }
    let Some(itl) = request.itl else {
        return over(absent::start(request, buf).unwrap_or_else(Plan::Done));
    };
    let (row, command) = match opcode::decode(request.cdb) {
        Ok(decoded) => decoded,
        // That there is no such command comes before what is wrong with its fields.
        Err(sense) => return over(Plan::Done(Answer::check(unsupported(itl, request.cdb).unwrap_or(sense)))),
    };
    if took_effect(itl, noted) {
        if let (Some(Decision::Intent(name)), Some(intents), Some(_)) = (noted.earlier, itl.lu().intents(), &noted.memo)
        {
            // Noted so, it is known without the intent, whose place others need.
            noted.decide(Decision::Written);
            intents.forget(name);
        }
        // It passed the gate when it did. Whatever closed since, and whatever unit attention came, concerns the next one.
        let plan =
            run(command, Task { itl, luns: request.luns, peers: request.peers, row, noted: &carried_out(noted), buf });
        return over(match plan.unwrap_or_else(Plan::Done) {
            Plan::Change(mut change) => change.made(),
            plan => plan,
        });
    }
    let mut mask = mask(row, &command);
    if noted.earlier == Some(Decision::Matched) {
        // It may have written. A reservation that was lost since is the answer that keeps others safe; a unit attention would only hide how
        // it ends, and is reported by the next one.
        mask = mask.without(GateBits::ATTENTION);
    }
    let mut admission = itl.gate().admit(mask);
    if admission == Admission::AcaActive && request.attribute == TaskAttribute::Aca {
        admission = itl.gate().admit(mask.without(GateBits::ACA));
    }
    if admission == Admission::Held {
        let passes = passes_task_sets(request.attribute);
        if itl.lu().is_held(itl, touches(itl, &command), passes, request.passes) {
            return over(Plan::Held);
        }
        admission = itl.gate().admit(mask.without(GateBits::HELD).without(GateBits::ACA));
    }
    match admission {
        Admission::Pass => {}
        Admission::Gone => return over(absent::start(request, buf).unwrap_or_else(Plan::Done)),
        Admission::AcaActive => return over(Plan::Done(Answer::status(Status::AcaActive))),
        Admission::Held => return over(Plan::Held),
        Admission::Attention(attention) => return over(Plan::Done(Answer::check(attention.sense()))),
        Admission::Conflict => return over(Plan::Done(ended(itl, Answer::status(Status::ReservationConflict)))),
        Admission::Inaccessible(state) => return over(Plan::Done(access::refusal(state))),
        Admission::Occupied => return over(Plan::Done(Answer::check(itl.lu().occupied_sense()))),
        Admission::NoMedium => return over(Plan::Done(Answer::check(NO_MEDIUM))),
        Admission::Stopped => return over(Plan::Done(Answer::check(STOPPED))),
        Admission::LowPower => itl.lu().wake(),
    }
    let mut plan = match run(command, Task { itl, luns: request.luns, peers: request.peers, row, noted, buf }) {
        Ok(plan) => plan,
        Err(answer) => return over(Plan::Done(ended(itl, answer))),
    };
    log::tally(itl, &command);
    if matches!(plan, Plan::Job(_) | Plan::Exclusive(_)) {
        plan = log::counted(plan, itl, log::verifies(&command));
    }
    if let Plan::Copy(copy) = &plan
        && copy.uses.iter().any(Use::is_held)
    {
        return over(Plan::Held);
    }
    let touches = match &plan {
        Plan::Io(io) if io.op.kind == OpKind::Flush => Touches::Nothing,
        Plan::Io(io) => Touches::Blocks(Extent { offset: io.op.offset, len: io.op.len }),
        Plan::Exclusive(exclusive) => Touches::Blocks(exclusive.extent),
        Plan::Job(_) => touches(itl, &command),
        // Of a copy each use says what it touches, on its own unit or another one.
        Plan::Copy(_) | Plan::Done(_) | Plan::Change(_) | Plan::Held => Touches::Nothing,
    };
    announce(itl, row, &command, &plan, touches);
    Started { plan, needs: mask.common(NEEDS), touches }
}

/// The same, for who does not care how it is known.
fn carried_out(noted: &Noted) -> Noted {
    Noted { earlier: Some(Decision::Written), memo: noted.memo.clone() }
}

/// Whether a process before this one carried the command out, so that only its answer is missing.
fn took_effect(itl: &Itl, noted: &Noted) -> bool {
    match noted.earlier {
        None | Some(Decision::Matched) => false,
        Some(Decision::Written) => true,
        Some(Decision::Intent(name)) => itl.lu().intents().is_some_and(|intents| intents.was_finished(name)),
        Some(Decision::Change(name)) => itl.lu().was_made(name),
    }
}

/// Says to the units that their blocks are about to change, if this command is to change some; see [`Lu::will_change`](crate::lu::Lu::will_change).
fn announce(itl: &Itl, row: &Row, command: &Command, plan: &Plan<'_>, touches: Touches) {
    match plan {
        Plan::Copy(copy) => copy.uses.iter().for_each(Use::announce),
        // It knows better what it will change: it says so itself.
        _ if matches!(command, Command::Unmap { .. }) => {}
        Plan::Io(_) | Plan::Job(_) | Plan::Exclusive(_) if row.reservation.persistent == Persistent::Writes => {
            itl.lu().will_change(touches);
        }
        _ => {}
    }
}

/// INVALID COMMAND OPERATION CODE, if the CDB's is one that this unit has not, though others have.
fn unsupported(itl: &Itl, cdb: &[u8]) -> Option<Sense> {
    let rows = opcode::rows_of(*cdb.first()?);
    let none = !rows.is_empty() && !rows.iter().any(|row| spc::supported(itl.lu(), row));
    none.then(|| Sense::illegal_request(AdditionalSense::INVALID_COMMAND_OPERATION_CODE))
}

/// Whether a command of this attribute passes what holds its task set (SAM-5 8.6).
pub fn passes_task_sets(attribute: TaskAttribute) -> bool {
    matches!(attribute, TaskAttribute::HeadOfQueue | TaskAttribute::Aca)
}

/// With which task attribute, in tgt's numbers, a command is processed that came with `attribute`: SANITIZE as if it were HEAD OF QUEUE
/// (SBC-3 5.24.1).
pub fn processed_as(cdb: &[u8], attribute: i32) -> i32 {
    const SANITIZE: u8 = 0x48;
    match TaskAttribute::from_tgt_code(attribute) {
        Ok(TaskAttribute::Simple | TaskAttribute::Ordered) if cdb.first() == Some(&SANITIZE) => {
            TaskAttribute::HeadOfQueue.tgt_code()
        }
        _ => attribute,
    }
}

/// Whether a command that was started, and has waited, may still go on; else its answer. Unit attentions do not matter any more.
pub fn still_admitted(itl: &Itl, needs: GateBits) -> Result<(), Answer> {
    match itl.gate().admit(needs) {
        Admission::Conflict => Err(ended(itl, Answer::status(Status::ReservationConflict))),
        Admission::Inaccessible(state) => Err(access::refusal(state)),
        Admission::Occupied => Err(Answer::check(itl.lu().occupied_sense())),
        Admission::NoMedium => Err(Answer::check(NO_MEDIUM)),
        _ => Ok(()),
    }
}

/// A command of this nexus ends with `status`. With UA_INTLCK_CTRL 11b, BUSY, TASK SET FULL and RESERVATION CONFLICT leave a unit
/// attention behind (SPC-4 7.5.10), once until it is cleared however many commands end so.
///
/// What [`start`] and [`still_admitted`] answer has been told; this is for whoever ends commands otherwise: a change that is not
/// made, a task set that is full.
pub fn ended_with(itl: &Itl, status: Status) {
    let attention = match status {
        Status::Busy => Attention::PreviousBusy,
        Status::TaskSetFull => Attention::PreviousTaskSetFull,
        Status::ReservationConflict => Attention::PreviousReservationConflict,
        _ => return,
    };
    if itl.lu().mode().ua_intlck == 0b11 {
        itl.establish(attention);
    }
}

fn ended(itl: &Itl, answer: Answer) -> Answer {
    ended_with(itl, answer.status);
    answer
}

/// What a gate can close while commands that need it open are running.
const NEEDS: GateBits = GateBits::DENY.and(GateBits::ACCESS).and(GateBits::NO_MEDIUM).and(GateBits::OCCUPIED);

/// The blocks that a command may use, before it is known whether there are such blocks.
fn touches(itl: &Itl, command: &Command) -> Touches {
    let blocks = |lba, blocks| match itl.lu().geometry().extent(lba, blocks) {
        Ok(extent) => Touches::Blocks(extent),
        Err(_) => Touches::Nothing,
    };
    match command {
        Command::Read(t) | Command::Write(t) | Command::CompareAndWrite(t) | Command::Orwrite(t) => {
            blocks(t.lba, t.blocks)
        }
        Command::Verify { transfer, .. }
        | Command::WriteAndVerify { transfer, .. }
        | Command::WriteAtomic { transfer, .. } => blocks(transfer.lba, transfer.blocks),
        Command::WriteSame { transfer, .. } if transfer.blocks != 0 => blocks(transfer.lba, transfer.blocks),
        Command::WriteSame { .. } | Command::Unmap { .. } => Touches::Everything,
        // They use no blocks, or read what is there only to see whether it can be read.
        _ => Touches::Nothing,
    }
}

/// Sense data of a unit that START STOP UNIT stopped.
const STOPPED: Sense = Sense::not_ready(AdditionalSense::INITIALIZING_COMMAND_REQUIRED);

/// Sense data of a unit whose medium was ejected.
const NO_MEDIUM: Sense = Sense::not_ready(AdditionalSense::MEDIUM_NOT_PRESENT);

/// The gate bits that stop a command.
fn mask(row: &Row, command: &Command) -> GateBits {
    let mut mask = GateBits::GONE.and(GateBits::HELD).and(GateBits::ACA);
    if row.attention == opcode::Attention::Reports {
        mask = mask.and(GateBits::ATTENTION);
    }
    mask = mask.and(match row.readiness(command) {
        // TEST UNIT READY looks at the medium and does not use it.
        Readiness::Ready if *command == Command::TestUnitReady => GateBits::NOT_READY,
        Readiness::Ready => GateBits::NOT_READY.and(GateBits::LOW_POWER),
        Readiness::Medium => GateBits::NO_USABLE_MEDIUM,
        Readiness::Unoccupied => GateBits::OCCUPIED,
        Readiness::Occupies => {
            GateBits::NOT_READY.without(GateBits::OCCUPIED.and(GateBits::FORMAT_CORRUPT)).and(GateBits::LOW_POWER)
        }
        Readiness::Any => GateBits::NONE,
    });
    mask = mask.and(match row.access {
        Access::Active => GateBits::ACCESS,
        Access::Standby => GateBits::ACCESS.without(GateBits::STANDBY),
        Access::Settled => GateBits::TRANSITIONING,
        Access::Always => GateBits::NONE,
    });
    let reservation = row.reservation(command);
    if reservation.spc2 == Spc2::Conflicts {
        mask = mask.and(GateBits::DENY_SPC2);
    }
    match reservation.persistent {
        Persistent::Allowed => mask,
        Persistent::Reads => mask.and(GateBits::DENY_READ),
        Persistent::Writes => mask.and(GateBits::DENY_WRITE),
    }
}

fn run<'a>(command: Command, task: Task<'a, '_>) -> Planned<'a> {
    match command {
        Command::TestUnitReady => Ok(Answer::good(0).into()),
        Command::RequestSense { descriptor, allocation_length } => {
            spc::request_sense(task, descriptor, allocation_length)
        }
        Command::Inquiry { page, allocation_length } => spc::inquiry(task, page, allocation_length),
        Command::ReportLuns { select_report, allocation_length } => {
            spc::report_luns(task, select_report, allocation_length)
        }
        Command::ReportSupportedOperationCodes { rctd, options, opcode, service_action, allocation_length } => {
            spc::report_supported_operation_codes(task, rctd, options, opcode, service_action, allocation_length)
        }
        Command::ReportSupportedTaskManagementFunctions { repd, allocation_length } => {
            spc::report_supported_task_management_functions(task, repd, allocation_length)
        }
        Command::ReportTargetPortGroups { extended, allocation_length } => {
            access::report_target_port_groups(task, extended, allocation_length)
        }
        Command::SetTargetPortGroups { parameter_list_length } => {
            access::set_target_port_groups(task, parameter_list_length)
        }
        Command::PersistentReserveIn { action, allocation_length } => {
            reservations::persistent_reserve_in(task, action, allocation_length)
        }
        Command::PersistentReserveOut { action, scope, kind, parameter_list_length } => {
            reservations::persistent_reserve_out(task, action, scope, kind, parameter_list_length)
        }
        Command::Reserve => reservations::reserve(task),
        Command::Release => reservations::release(task),
        Command::LogSelect { pcr, control, page, subpage, parameter_list_length } => {
            log::select(task, pcr, control, page, subpage, parameter_list_length)
        }
        Command::LogSense { control, page, subpage, pointer, allocation_length } => {
            log::sense(task, control, page, subpage, pointer, allocation_length)
        }
        Command::SendDiagnostic { self_test_code, page_format, self_test, parameter_list_length } => {
            diagnostic::send(task, self_test_code, page_format, self_test, parameter_list_length)
        }
        Command::ReceiveDiagnosticResults { page, allocation_length } => {
            diagnostic::receive(task, page, allocation_length)
        }
        Command::WriteBuffer { mode, buffer_id, offset, parameter_list_length } => {
            buffer::write(task, mode, buffer_id, offset, parameter_list_length)
        }
        Command::ReadBuffer { mode, buffer_id, offset, allocation_length } => {
            buffer::read(task, mode, buffer_id, offset, allocation_length)
        }
        Command::ReadDefectData { twelve, plist, glist, format, allocation_length } => {
            defects::read(task, twelve, plist, glist, format, allocation_length)
        }
        Command::ReportIdentifyingInformation { kind, allocation_length } => {
            identifying::report(task, kind, allocation_length)
        }
        Command::SetIdentifyingInformation { kind, parameter_list_length } => {
            identifying::set(task, kind, parameter_list_length)
        }
        Command::ReportTimestamp { allocation_length } => timestamp::report(task, allocation_length),
        Command::SetTimestamp { parameter_list_length } => timestamp::set(task, parameter_list_length),
        Command::ModeSense { ten, llbaa, dbd, control, page, subpage, allocation_length } => {
            let fields = ModeSenseFields { ten, llbaa, dbd, control, page, subpage };
            mode::mode_sense(task, fields, allocation_length)
        }
        Command::ModeSelect { ten, page_format, save, parameter_list_length } => {
            mode::mode_select(task, ModeSelectFields { ten, page_format, save }, parameter_list_length)
        }
        Command::ExtendedCopy { parameter_list_length } => third_party_copy::extended_copy(task, parameter_list_length),
        Command::ReceiveCopyStatus { list, allocation_length } => {
            third_party_copy::receive_status(task, list, allocation_length)
        }
        Command::ReceiveCopyOperatingParameters { allocation_length } => {
            third_party_copy::receive_operating_parameters(task, allocation_length)
        }
        Command::ReceiveCopyFailureDetails { list, allocation_length } => {
            third_party_copy::receive_failure_details(task, list, allocation_length)
        }
        Command::ReadCapacity10 => sbc::read_capacity10(task),
        Command::ReadCapacity16 { allocation_length } => sbc::read_capacity16(task, allocation_length),
        Command::GetLbaStatus { lba, allocation_length } => sbc::get_lba_status(task, lba, allocation_length),
        Command::Read(transfer) => sbc::read(task, transfer),
        Command::Write(transfer) => sbc::write(task, transfer),
        Command::WriteAndVerify { transfer, check } => sbc::write_and_verify(task, transfer, check),
        Command::Verify { transfer, check } => sbc::verify(task, transfer, check),
        Command::CompareAndWrite(transfer) => sbc::compare_and_write(task, transfer),
        Command::WriteAtomic { transfer, boundary } => sbc::write_atomic(task, transfer, boundary),
        Command::Orwrite(transfer) => sbc::orwrite(task, transfer),
        Command::SynchronizeCache { transfer, .. } => sbc::synchronize_cache(task, transfer),
        Command::PreFetch { transfer, immed } => sbc::pre_fetch(task, transfer, immed),
        Command::PopulateToken { list_identifier, parameter_list_length } => {
            rod_tokens::populate(task, list_identifier, parameter_list_length)
        }
        Command::WriteUsingToken { list_identifier, parameter_list_length } => {
            rod_tokens::write(task, list_identifier, parameter_list_length)
        }
        Command::CopyOperationAbort { list_identifier } => rod_tokens::copy_operation_abort(task, list_identifier),
        Command::ReceiveCopyStatusLid4 { list_identifier, allocation_length } => {
            rod_tokens::receive_copy_status(task, list_identifier, allocation_length)
        }
        Command::ReceiveRodTokenInformation { list_identifier, allocation_length } => {
            rod_tokens::receive_rod_token_information(task, list_identifier, allocation_length)
        }
        Command::Unmap { anchor, parameter_list_length } => sbc::unmap(task, anchor, parameter_list_length),
        Command::WriteSame { transfer, unmap, anchor, ndob } => sbc::write_same(task, transfer, unmap, anchor, ndob),
        Command::StartStopUnit(fields) => sbc::start_stop_unit(task, fields),
        Command::FormatUnit { long_list, data } => erase::format_unit(task, long_list, data),
        Command::Sanitize { action, immed, ause, parameter_list_length } => {
            erase::sanitize(task, action, immed, ause, parameter_list_length)
        }
        Command::PreventAllowMediumRemoval { prevent } => sbc::prevent_allow_medium_removal(task, prevent),
    }
}
