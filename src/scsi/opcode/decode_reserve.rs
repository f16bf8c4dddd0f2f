//! From CDBs to meanings: PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE.

use crate::scsi::{Cdb, Command, ReserveIn, ReserveOut, Sense};

type Decoded = Result<Command, Sense>;

pub(super) fn reserve(_: Cdb<'_>) -> Decoded {
    Ok(Command::Reserve)
}

pub(super) fn release(_: Cdb<'_>) -> Decoded {
    Ok(Command::Release)
}

fn persistent_reserve_in(cdb: Cdb<'_>, action: ReserveIn) -> Decoded {
    Ok(Command::PersistentReserveIn { action, allocation_length: u32::from(cdb.u16(7)) })
}

pub(super) fn read_keys(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_in(cdb, ReserveIn::ReadKeys)
}

pub(super) fn read_reservation(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_in(cdb, ReserveIn::ReadReservation)
}

pub(super) fn report_capabilities(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_in(cdb, ReserveIn::ReportCapabilities)
}

pub(super) fn read_full_status(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_in(cdb, ReserveIn::ReadFullStatus)
}

fn persistent_reserve_out(cdb: Cdb<'_>, action: ReserveOut) -> Decoded {
    let (scope, kind) = (cdb.u8(2) >> 4, cdb.u8(2) & 0x0f);
    Ok(Command::PersistentReserveOut { action, scope, kind, parameter_list_length: cdb.u32(5) })
}

pub(super) fn register(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::Register)
}

pub(super) fn reserve_out(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::Reserve)
}

pub(super) fn release_out(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::Release)
}

pub(super) fn clear(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::Clear)
}

pub(super) fn preempt(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::Preempt)
}

pub(super) fn preempt_and_abort(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::PreemptAndAbort)
}

pub(super) fn register_and_ignore_existing_key(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::RegisterAndIgnoreExistingKey)
}

pub(super) fn register_and_move(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::RegisterAndMove)
}

pub(super) fn replace_lost_reservation(cdb: Cdb<'_>) -> Decoded {
    persistent_reserve_out(cdb, ReserveOut::ReplaceLostReservation)
}
