//! SRP_TSK_MGMT: a task management function (SRP r16a 6.7).

use super::iu::{IuType, be64, field, fixed, put};
use super::{IuError, SolicitedNotification};
use crate::scsi::Lun;

/// A task management function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TskMgmt {
    /// Which answers are to interrupt the initiator.
    pub notify: SolicitedNotification,
    /// The initiator's name for this request.
    pub tag: u64,
    /// The logical unit meant.
    pub lun: Lun,
    /// TASK MANAGEMENT FUNCTION FLAGS, as [`crate::scsi::TaskManagementFunction`] numbers them; any byte, whether it is
    /// supported is the target's business.
    pub function: u8,
    /// TAG OF MANAGED TASK, for functions that name one.
    pub managed: u64,
}

impl TskMgmt {
    /// Length on the wire.
    pub const LEN: usize = 48;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::TskMgmt as u8;
        b[1] = self.notify.to_byte();
        put(&mut b, 8, &self.tag.to_be_bytes());
        put(&mut b, 20, &self.lun.0);
        b[30] = self.function;
        put(&mut b, 32, &self.managed.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<TskMgmt, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::TskMgmt)?;
        Ok(TskMgmt {
            notify: SolicitedNotification::from_byte(b[1]),
            tag: be64(b, 8),
            lun: Lun(field(b, 20)),
            function: b[30],
            managed: be64(b, 32),
        })
    }
}
