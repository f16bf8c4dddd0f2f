//! Which units a nexus can copy between, and what it may do with them.

use std::sync::Arc;

use crate::device_server::{Answer, NO_MEDIUM, Peers, STOPPED, access, sbc, spc};
use crate::lu::{Admission, Extent, GateBits, Itl, Touches};
use crate::scsi::spc::{Association, Designation};
use crate::scsi::{AdditionalSense, Sense, Status};

/// What a copy does with a range of a unit, on behalf of the nexus whose unit it is.
#[derive(Clone, Debug)]
pub struct Use {
    /// The nexus's unit.
    pub itl: Arc<Itl>,
    /// The blocks.
    pub extent: Extent,
    /// What must be open in the gate.
    pub needs: GateBits,
    writes: bool,
}

/// What must be open for every use.
const ALWAYS: GateBits =
    GateBits::GONE.and(GateBits::DENY_SPC2).and(GateBits::ACCESS).and(GateBits::NOT_READY).and(GateBits::LOW_POWER);

impl Use {
    /// Reads the blocks, as READ does.
    pub fn reads(itl: &Arc<Itl>, extent: Extent) -> Use {
        Use { itl: Arc::clone(itl), extent, needs: ALWAYS.and(GateBits::DENY_READ), writes: false }
    }

    /// Writes the blocks, as WRITE does.
    pub fn writes(itl: &Arc<Itl>, extent: Extent) -> Use {
        Use { itl: Arc::clone(itl), extent, needs: ALWAYS.and(GateBits::DENY_WRITE), writes: true }
    }

    /// Whether the unit lets it pass now.
    ///
    /// # Errors
    ///
    /// What a READ or WRITE of the nexus would be answered. A pending unit attention is neither reported nor cleared: it is for a command
    /// that is sent to the unit.
    pub fn admit(&self) -> Result<(), Answer> {
        match self.itl.gate().admit(self.needs) {
            Admission::Gone => return Err(GONE.into()),
            Admission::Conflict => return Err(Answer::status(Status::ReservationConflict)),
            Admission::Inaccessible(state) => return Err(access::refusal(state)),
            Admission::Occupied => return Err(self.itl.lu().occupied_sense().into()),
            Admission::NoMedium => return Err(NO_MEDIUM.into()),
            Admission::Stopped => return Err(STOPPED.into()),
            // What uses the medium makes the unit active.
            Admission::LowPower => self.itl.lu().wake(),
            // Not asked for.
            Admission::Pass | Admission::Held | Admission::AcaActive | Admission::Attention(_) => {}
        }
        if self.writes {
            sbc::writable(self.itl.lu())?;
        }
        Ok(())
    }

    /// Says to the unit that the blocks are about to change, if they are.
    pub(in crate::device_server) fn announce(&self) {
        if self.writes {
            self.itl.lu().will_change(Touches::Blocks(self.extent));
        }
    }

    /// Whether a command that must be atomic has these blocks.
    pub(in crate::device_server) fn is_held(&self) -> bool {
        // Task sets are not its concern: it is in that of the unit that it was sent to, if in any.
        let gate = self.itl.gate().bits();
        gate.intersects(GateBits::HELD) && self.itl.lu().is_held(&self.itl, Touches::Blocks(self.extent), true, &[])
    }
}

const GONE: Sense = Sense::illegal_request(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED);

/// The unit of that name, as the nexus sees it; where it sees it at several addresses, at one of them.
///
/// A name is any that the Device Identification VPD page gives the unit itself; names of ports and devices are none.
pub(in crate::device_server) fn find(peers: &dyn Peers, name: &Designation<'_>) -> Option<Arc<Itl>> {
    let is_named = |itl: &Arc<Itl>| {
        let mut names = spc::designators(itl).into_iter();
        names.any(|designator| designator.association() == Association::LogicalUnit && designator.is(name))
    };
    peers.units().into_iter().find(is_named)
}
