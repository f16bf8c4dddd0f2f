//! How a copy operation is getting on: the parameter data of RECEIVE COPY STATUS(LID4) and RECEIVE ROD TOKEN INFORMATION (SPC-4 6.24, 6.26;
//! SBC-3 5.21).

use super::RodToken;
use crate::scsi::{ParameterData, Sense, SenseFormat, Status};

/// TRANSFER COUNT UNITS: blocks of the unit.
const BLOCKS: u8 = 0xf1;

/// ESTIMATED STATUS UPDATE DELAY of what is over.
const NO_UPDATE: u32 = 0xffff_fffe;

/// ESTIMATED STATUS UPDATE DELAY of what is not, in milliseconds.
const UPDATE: u32 = 100;

/// COPY OPERATION STATUS, with the status and sense data that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// 11h: in progress, in the foreground.
    Foreground,
    /// 12h: in progress, in the background.
    Background,
    /// 01h: completed without errors.
    Done,
    /// 02h: completed with errors.
    Failed(Sense),
    /// 03h: completed, but not all that was asked for was there to be copied.
    Partial(Sense),
    /// 60h: ended from outside, by a reservation, a task management function or COPY OPERATION ABORT.
    Terminated,
}

/// What is told of a copy operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// RESPONSE TO SERVICE ACTION: that of the command that originated it.
    pub service_action: u8,
    /// How it is.
    pub state: CopyState,
    /// OPERATION COUNTER, which wraps.
    pub operations: u16,
    /// TRANSFER COUNT in blocks: without a gap from the first on.
    pub transferred: u64,
}

impl CopyState {
    /// Whether it goes on.
    pub fn in_progress(&self) -> bool {
        matches!(self, CopyState::Foreground | CopyState::Background)
    }

    fn code(&self) -> u8 {
        match self {
            CopyState::Foreground => 0x11,
            CopyState::Background => 0x12,
            CopyState::Done => 0x01,
            CopyState::Failed(_) => 0x02,
            CopyState::Partial(_) => 0x03,
            CopyState::Terminated => 0x60,
        }
    }

    fn completion(&self) -> (u8, Option<&Sense>) {
        match self {
            CopyState::Foreground | CopyState::Background => (0, None),
            CopyState::Done => (Status::Good as u8, None),
            CopyState::Failed(sense) | CopyState::Partial(sense) => (Status::CheckCondition as u8, Some(sense)),
            CopyState::Terminated => (Status::TaskAborted as u8, None),
        }
    }
}

impl CopyStatus {
    /// Of RECEIVE COPY STATUS(LID4), with sense data in the unit's format.
    pub fn data(&self, format: SenseFormat) -> ParameterData {
        let mut data = ParameterData::new();
        data.counted_u32(|data| self.header(format, data));
        data
    }

    /// Of RECEIVE ROD TOKEN INFORMATION: the same, and the token that the operation made, if it did. One that failed has none.
    pub fn rod_token_information(&self, format: SenseFormat, token: Option<&RodToken>) -> ParameterData {
        let mut data = ParameterData::new();
        data.counted_u32(|data| {
            self.header(format, data);
            data.counted_u32(|data| {
                if let Some(token) = token.filter(|_| matches!(self.state, CopyState::Done | CopyState::Partial(_))) {
                    // ID FOR CREATING ROD CSCD DESCRIPTOR is reserved but for EXTENDED COPY.
                    data.u16(0).raw(token.bytes());
                }
            });
        });
        data
    }

    fn header(&self, format: SenseFormat, data: &mut ParameterData) {
        let (completion, sense) = self.state.completion();
        // At most 252 bytes.
        let sense = sense.map(|sense| sense.encode(format, 252)).unwrap_or_default();
        let padding = sense.len().next_multiple_of(4) - sense.len();
        data.u8(self.service_action & 0x1f).u8(self.state.code()).u16(self.operations);
        data.u32(if self.state.in_progress() { UPDATE } else { NO_UPDATE });
        data.u8(completion).u8((sense.len() + padding) as u8).u8(sense.len() as u8).u8(BLOCKS);
        data.u64(self.transferred);
        // Neither command that is told of here has segments.
        data.u16(0).zeros(6);
        data.raw(&sense).zeros(padding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::AdditionalSense;
    use crate::scsi::spc::rod_token::tests::token;

    const WUT: CopyStatus =
        CopyStatus { service_action: 0x11, state: CopyState::Foreground, operations: 0x0102, transferred: 0x0304_0506 };

    /// SPC-4 table 248.
    #[test]
    fn in_progress() {
        let data = WUT.data(SenseFormat::Fixed);
        assert_eq!(
            data.bytes(),
            [
                0, 0, 0, 28, 0x11, 0x11, 1, 2, 0, 0, 0, 100, 0, 0, 0, 0xf1, //
                0, 0, 0, 0, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0,
            ]
        );
        let background = CopyStatus { state: CopyState::Background, ..WUT };
        assert_eq!(background.data(SenseFormat::Fixed).bytes()[5], 0x12);
    }

    /// SBC-3 table of 5.21.3: no token.
    #[test]
    fn of_a_write() {
        let done = CopyStatus { state: CopyState::Done, ..WUT };
        let data = done.rod_token_information(SenseFormat::Fixed, None);
        assert_eq!(data.len(), 36);
        assert_eq!(data.bytes()[..16], [0, 0, 0, 32, 0x11, 0x01, 1, 2, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0xf1]);
        assert_eq!(data.bytes()[24..], [0; 12]);
    }

    #[test]
    fn with_a_token() {
        let done = CopyStatus { service_action: 0x10, state: CopyState::Done, ..WUT };
        let token = token();
        let data = done.rod_token_information(SenseFormat::Fixed, Some(&token));
        assert_eq!(data.len(), 36 + 514);
        assert_eq!(data.bytes()[..4], [0, 0, 0x02, 0x22]);
        assert_eq!(data.bytes()[32..38], [0, 0, 0x02, 0x02, 0, 0]);
        assert_eq!(data.bytes()[38..], token.bytes()[..]);
        let failed = CopyStatus { state: CopyState::Terminated, ..done };
        assert_eq!(failed.rod_token_information(SenseFormat::Fixed, Some(&token)).len(), 36);
    }

    #[test]
    fn with_sense_data() {
        let sense = Sense::illegal_request(AdditionalSense::TOKEN_EXPIRED);
        let failed = CopyStatus { state: CopyState::Failed(sense), ..WUT };
        let data = failed.rod_token_information(SenseFormat::Fixed, None);
        // 18 bytes, and 2 of padding.
        assert_eq!(data.len(), 36 + 20);
        assert_eq!(data.bytes()[..16], [0, 0, 0, 52, 0x11, 0x02, 1, 2, 0xff, 0xff, 0xff, 0xfe, 2, 20, 18, 0xf1]);
        assert_eq!(data.bytes()[32..50], sense.encode(SenseFormat::Fixed, 252));
        assert_eq!(data.bytes()[50..], [0; 6]);
        let data = failed.data(SenseFormat::Descriptor);
        assert_eq!((data.bytes()[13], data.bytes()[14]), (8, 8));
        assert_eq!(data.bytes()[32..], [0x72, 0x05, 0x23, 0x07, 0, 0, 0, 0]);
        let partial = CopyStatus { state: CopyState::Partial(sense), ..WUT };
        assert_eq!(partial.data(SenseFormat::Fixed).bytes()[5], 0x03);
    }

    #[test]
    fn terminated() {
        let data = CopyStatus { state: CopyState::Terminated, ..WUT }.data(SenseFormat::Fixed);
        assert_eq!((data.bytes()[5], data.bytes()[12], data.bytes()[14], data.len()), (0x60, 0x40, 0, 32));
    }
}
