//! What initiators leave with a unit, besides data on its medium.
//!
//! All of it but the data buffer is [kept](KeptRecords) with the unit. It is cold: it is reached under the unit's lock, by
//! [`Lu::records`](super::Lu::records), and by no command that accesses the medium.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{KeptClock, KeptRecords, SelfTests};
use crate::scsi::spc::{IdentifyingInformationType, TimestampOrigin};
use crate::sys::clock::since_boot;

/// A unit's records.
#[derive(Debug, Default)]
pub struct Records {
    /// The device clock.
    pub clock: Clock,
    /// What SET IDENTIFYING INFORMATION set.
    pub identifying: IdentifyingInformation,
    /// The data buffer of WRITE BUFFER and READ BUFFER.
    pub buffer: DataBuffer,
    /// How often START STOP UNIT stopped the unit.
    pub cycles: u32,
    /// How the last self-tests ended.
    pub self_tests: SelfTests,
    /// There was too little space for the unit when it was looked at last.
    pub(super) threshold_reached: bool,
}

impl Records {
    /// Goes on with what was kept.
    pub(super) fn going_on(kept: KeptRecords) -> Records {
        Records {
            clock: Clock { set: kept.clock },
            identifying: kept.identifying,
            buffer: DataBuffer::default(),
            cycles: kept.cycles,
            self_tests: SelfTests::going_on(kept.self_tests, kept.hours),
            threshold_reached: kept.threshold_reached,
        }
    }

    /// What of them is to be kept; the error counters, which are elsewhere, are zero.
    pub(super) fn kept(&self) -> KeptRecords {
        KeptRecords {
            clock: self.clock.set,
            identifying: self.identifying.clone(),
            cycles: self.cycles,
            self_tests: self.self_tests.results().collect(),
            hours: self.self_tests.hours(),
            threshold_reached: self.threshold_reached,
            ..KeptRecords::default()
        }
    }
}

/// Bytes in the unit's data buffer.
pub const DATA_BUFFER_CAPACITY: usize = 64 << 10;

/// Bytes in each nexus's echo buffer.
pub const ECHO_BUFFER_CAPACITY: usize = 4096;

/// A buffer of [`DATA_BUFFER_CAPACITY`] bytes, at first zeros; it takes memory only once it was written.
#[derive(Clone, Debug, Default)]
pub struct DataBuffer {
    bytes: Vec<u8>,
}

impl DataBuffer {
    /// Writes `data` at `offset`; what does not lie within the buffer is not written.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        self.bytes.resize(DATA_BUFFER_CAPACITY, 0);
        let room = self.bytes.get_mut(offset..).unwrap_or_default();
        room.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    }

    /// `length` bytes from `offset` on; past the end there are zeros.
    pub fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut data: Vec<u8> = self.bytes.iter().skip(offset).take(length).copied().collect();
        data.resize(length, 0);
        data
    }
}

/// A device clock: the host's until an initiator sets it, and from then on that initiator's, whatever the host's does. It
/// outlives resets, the loss of nexuses and the process, but no loss of power.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    set: Option<KeptClock>,
}

impl Clock {
    /// Sets it: milliseconds since 1970.
    pub fn set(&mut self, milliseconds: u64) {
        self.set = Some(KeptClock { milliseconds, since_boot: in_milliseconds(since_boot()) });
    }

    /// Milliseconds since 1970, and who says so.
    pub fn now(&self) -> (TimestampOrigin, u64) {
        match self.set {
            Some(KeptClock { milliseconds, since_boot: then }) => {
                let since = in_milliseconds(since_boot()).saturating_sub(then);
                (TimestampOrigin::SetTimestamp, milliseconds.wrapping_add(since))
            }
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                (TimestampOrigin::OutsideMeans, in_milliseconds(since))
            }
        }
    }
}

fn in_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Identifying information, at first none of either type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentifyingInformation {
    peripheral: Vec<u8>,
    text: Vec<u8>,
}

impl IdentifyingInformation {
    /// The information of a type.
    pub fn get(&self, kind: IdentifyingInformationType) -> &[u8] {
        match kind {
            IdentifyingInformationType::Peripheral => &self.peripheral,
            IdentifyingInformationType::Text => &self.text,
        }
    }

    /// Keeps another; it was checked.
    pub fn set(&mut self, kind: IdentifyingInformationType, information: Vec<u8>) {
        match kind {
            IdentifyingInformationType::Peripheral => self.peripheral = information,
            IdentifyingInformationType::Text => self.text = information,
        }
    }
}
