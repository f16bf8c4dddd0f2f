//! What a legal CDB means: the result of decoding, before any logical unit is looked at.

use super::{FieldPointer, Sense};

/// A block range and the flags that go with reading or writing it (SBC-3 5.x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks; 0 moves nothing (READ(6)'s and WRITE(6)'s 0 has become 256).
    pub blocks: u64,
    /// Disable page out.
    pub dpo: bool,
    /// Force unit access.
    pub fua: bool,
    /// Byte offset of the LBA field in the CDB, for a field pointer.
    pub lba_field: u16,
}

impl Transfer {
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE, pointing at the CDB's LBA field.
    pub const fn lba_out_of_range(&self) -> Sense {
        // READ(6)'s and WRITE(6)'s field begins in the middle of byte 1.
        let bit = if self.lba_field == 1 { 4 } else { 7 };
        Sense::lba_out_of_range(FieldPointer::cdb(self.lba_field, bit))
    }
}

/// PAGE CONTROL of MODE SENSE (SPC-4 table 172).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// 00b.
    Current,
    /// 01b.
    Changeable,
    /// 10b.
    Default,
    /// 11b.
    Saved,
}

/// What VERIFY compares (SBC-3 5.36, BYTCHK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// 00b: medium verification only.
    None,
    /// 01b: against as much Data-Out.
    Full,
    /// 11b: against one block of Data-Out, repeated.
    OneBlock,
}

/// PAGE CONTROL of LOG SENSE and LOG SELECT (SPC-4 6.7, 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogControl {
    /// 00b: threshold values.
    Threshold,
    /// 01b: cumulative values.
    Cumulative,
    /// 10b: default threshold values.
    DefaultThreshold,
    /// 11b: default cumulative values.
    DefaultCumulative,
}

/// SERVICE ACTION of PERSISTENT RESERVE IN (SPC-4 table 206); the discriminant is its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReserveIn {
    /// 00h.
    ReadKeys = 0x00,
    /// 01h.
    ReadReservation = 0x01,
    /// 02h.
    ReportCapabilities = 0x02,
    /// 03h.
    ReadFullStatus = 0x03,
}

/// SERVICE ACTION of PERSISTENT RESERVE OUT (SPC-4 table 217); the discriminant is its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReserveOut {
    /// 00h.
    Register = 0x00,
    /// 01h.
    Reserve = 0x01,
    /// 02h.
    Release = 0x02,
    /// 03h.
    Clear = 0x03,
    /// 04h.
    Preempt = 0x04,
    /// 05h.
    PreemptAndAbort = 0x05,
    /// 06h.
    RegisterAndIgnoreExistingKey = 0x06,
    /// 07h.
    RegisterAndMove = 0x07,
    /// 08h.
    ReplaceLostReservation = 0x08,
}

/// The fields of START STOP UNIT (SBC-3 5.29). IMMED is not among them: nobody heeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartStopFields {
    /// POWER CONDITION, as it stands in the CDB.
    pub power_condition: u8,
    /// NO_FLUSH.
    pub no_flush: bool,
    /// LOEJ.
    pub loej: bool,
    /// START.
    pub start: bool,
}

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields carry the names of their CDB fields; the variants name command and clause")]
pub enum Command {
    /// SPC-4 6.47.
    TestUnitReady,
    /// SPC-4 6.39.
    RequestSense { descriptor: bool, allocation_length: u32 },
    /// SPC-4 6.6; `page` with EVPD.
    Inquiry { page: Option<u8>, allocation_length: u32 },
    /// SPC-4 6.33.
    ReportLuns { select_report: u8, allocation_length: u32 },
    /// SPC-4 6.35.
    ReportSupportedOperationCodes { rctd: bool, options: u8, opcode: u8, service_action: u16, allocation_length: u32 },
    /// SPC-4 6.36.
    ReportSupportedTaskManagementFunctions { repd: bool, allocation_length: u32 },
    /// SPC-4 6.15.
    PersistentReserveIn { action: ReserveIn, allocation_length: u32 },
    /// SPC-4 6.16. SCOPE and TYPE as they stand in the CDB: some service actions ignore them.
    PersistentReserveOut { action: ReserveOut, scope: u8, kind: u8, parameter_list_length: u32 },
    /// RESERVE(6) and RESERVE(10) (SPC-2 7.21, 7.22) of the whole unit for the nexus itself.
    Reserve,
    /// RELEASE(6) and RELEASE(10) (SPC-2 7.16, 7.17) likewise.
    Release,
    /// SPC-4 6.37; `extended` asks for the header that tells more.
    ReportTargetPortGroups { extended: bool, allocation_length: u32 },
    /// SPC-4 6.45.
    SetTargetPortGroups { parameter_list_length: u32 },
    /// SPC-4 6.7.
    LogSelect { pcr: bool, control: LogControl, page: u8, subpage: u8, parameter_list_length: u16 },
    /// SPC-4 6.8.
    LogSense { control: LogControl, page: u8, subpage: u8, pointer: u16, allocation_length: u32 },
    /// SPC-4 6.42. DEVOFFL and UNITOFFL allow what no self-test here does.
    SendDiagnostic { self_test_code: u8, page_format: bool, self_test: bool, parameter_list_length: u16 },
    /// SPC-4 6.27; `page` with PCV.
    ReceiveDiagnosticResults { page: Option<u8>, allocation_length: u32 },
    /// SPC-4 6.49; every mode, known or not.
    WriteBuffer { mode: u8, buffer_id: u8, offset: u32, parameter_list_length: u32 },
    /// SPC-4 6.18; every mode, known or not.
    ReadBuffer { mode: u8, buffer_id: u8, offset: u32, allocation_length: u32 },
    /// SBC-3 5.17, 5.18.
    ReadDefectData { twelve: bool, plist: bool, glist: bool, format: u8, allocation_length: u32 },
    /// SPC-4 6.32; the type as it stands in the CDB.
    ReportIdentifyingInformation { kind: u8, allocation_length: u32 },
    /// SPC-4 6.43.
    SetIdentifyingInformation { kind: u8, parameter_list_length: u32 },
    /// SPC-4 6.38.
    ReportTimestamp { allocation_length: u32 },
    /// SPC-4 6.46.
    SetTimestamp { parameter_list_length: u32 },
    /// SPC-4 6.5.
    ExtendedCopy { parameter_list_length: u32 },
    /// SPC-4 6.25.
    ReceiveCopyStatus { list: u8, allocation_length: u32 },
    /// SPC-4 6.22.
    ReceiveCopyOperatingParameters { allocation_length: u32 },
    /// SPC-4 6.23.
    ReceiveCopyFailureDetails { list: u8, allocation_length: u32 },
    /// SPC-4 6.11, 6.12.
    ModeSense { ten: bool, llbaa: bool, dbd: bool, control: PageControl, page: u8, subpage: u8, allocation_length: u32 },
    /// SBC-3 5.15.
    ReadCapacity10,
    /// SBC-3 5.16.
    ReadCapacity16 { allocation_length: u32 },
    /// SBC-3 5.4.
    GetLbaStatus { lba: u64, allocation_length: u32 },
    /// SBC-3 5.10–5.14.
    Read(Transfer),
    /// SBC-3 5.39–5.43.
    Write(Transfer),
    /// SBC-3 5.2. `blocks` counts what is compared, and written; the Data-Out buffer holds both, twice as many.
    CompareAndWrite(Transfer),
    /// SBC-3 5.5.
    Orwrite(Transfer),
    /// SBC-4 5.48. ATOMIC BOUNDARY in blocks, 0: none.
    WriteAtomic { transfer: Transfer, boundary: u16 },
    /// SBC-3 5.36–5.38.
    Verify { transfer: Transfer, check: ByteCheck },
    /// SBC-3 5.30, 5.31. `blocks` 0 means to the end of the medium.
    SynchronizeCache { transfer: Transfer, immed: bool },
    /// SBC-3 5.6.
    PopulateToken { list_identifier: u32, parameter_list_length: u32 },
    /// SBC-3 5.51.
    WriteUsingToken { list_identifier: u32, parameter_list_length: u32 },
    /// SPC-4 6.3.
    CopyOperationAbort { list_identifier: u32 },
    /// SPC-4 6.24.
    ReceiveCopyStatusLid4 { list_identifier: u32, allocation_length: u32 },
    /// SPC-4 6.26, SBC-3 5.21.
    ReceiveRodTokenInformation { list_identifier: u32, allocation_length: u32 },
    /// SBC-3 5.35.
    Unmap { anchor: bool, parameter_list_length: u16 },
    /// SBC-3 5.48, 5.49. `blocks` 0 means to the end of the medium.
    WriteSame { transfer: Transfer, unmap: bool, anchor: bool, ndob: bool },
    /// SBC-3 5.29.
    StartStopUnit(StartStopFields),
    /// SPC-4 6.15 / SBC-3 5.9; PREVENT field, 0 or 1.
    PreventAllowMediumRemoval { prevent: u8 },
    /// SPC-4 6.9, 6.10.
    ModeSelect { ten: bool, page_format: bool, save: bool, parameter_list_length: u16 },
    /// SBC-3 5.44–5.46. `check` is never [`ByteCheck::OneBlock`].
    WriteAndVerify { transfer: Transfer, check: ByteCheck },
    /// SBC-3 5.7, 5.8. `blocks` 0 means to the end of the medium.
    PreFetch { transfer: Transfer, immed: bool },
}
