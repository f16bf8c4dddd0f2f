//! Mode pages and MODE SENSE parameter data (SPC-4 7.5, 6.11; SBC-3 6.5).

use crate::scsi::{AdditionalSense, FieldPointer, PageControl, ParameterData, Sense, be_bytes};

/// The mode parameters that can differ between units or be changed by MODE SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeState {
    /// D_SENSE: sense data in descriptor format.
    pub d_sense: bool,
    /// SWP: the unit is write protected by software.
    pub swp: bool,
    /// WCE: the write-back cache is enabled. Without it every write must be durable before it ends.
    pub wce: bool,
    /// TST (SPC-4 table 388): 0, one task set for all I_T nexuses; 1, one for each.
    pub tst: u8,
    /// QERR (SPC-4 table 390): 0, 1 or 3.
    pub qerr: u8,
    /// UA_INTLCK_CTRL (SPC-4 table 391): 0, 2 or 3.
    pub ua_intlck: u8,
    /// TAS: tasks that another nexus ends are answered with TASK ABORTED.
    pub tas: bool,
    /// LBPERE: that a logical block provisioning threshold was reached is reported.
    pub lbpere: bool,
    /// The threshold of available LBA mapping resources.
    pub threshold: ModeThreshold,
}

/// A threshold descriptor of the Logical Block Provisioning mode page (SBC-3 6.5.9): of available LBA mapping resources, armed as they
/// decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeThreshold {
    /// ENABLED.
    pub enabled: bool,
    /// THRESHOLD COUNT, in threshold sets.
    pub count: u32,
}

impl Default for ModeState {
    fn default() -> ModeState {
        ModeState::DEFAULT
    }
}

impl ModeState {
    /// What a unit starts with unless it is configured otherwise.
    pub const DEFAULT: ModeState = ModeState {
        d_sense: false,
        swp: false,
        wce: true,
        tst: 1,
        qerr: 0,
        ua_intlck: 0,
        tas: false,
        lbpere: false,
        threshold: ModeThreshold { enabled: false, count: 0 },
    };
    /// One extreme: every bit that MODE SELECT can change is 0.
    const ALL_CLEAR: ModeState = ModeState { wce: false, tst: 0, ..ModeState::DEFAULT };
    /// The other.
    const ALL_SET: ModeState = ModeState {
        d_sense: true,
        swp: true,
        wce: true,
        tst: 1,
        qerr: 3,
        ua_intlck: 3,
        tas: true,
        lbpere: true,
        threshold: ModeThreshold { enabled: true, count: u32::MAX },
    };
}

/// What MODE SENSE says of a unit besides its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeUnit {
    /// The current parameters.
    pub current: ModeState,
    /// What the unit starts with.
    pub default: ModeState,
    /// What MODE SELECT with SP saved, else the defaults; `None` if this unit saves no parameters at all.
    pub saved: Option<ModeState>,
    /// Thresholds of logical block provisioning are supported.
    pub thresholds: bool,
    /// EXTENDED SELF-TEST COMPLETION TIME in seconds; FFFFh is that, or more.
    pub self_test_seconds: u16,
    /// WP: the unit cannot be written, for whatever reason (SWP included).
    pub write_protected: bool,
    /// DPOFUA: DPO and FUA are supported.
    pub dpo_fua: bool,
    /// Number of logical blocks.
    pub blocks: u64,
    /// Bytes in one.
    pub block_length: u32,
}

/// The fields of MODE SENSE that choose what it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSenseFields {
    /// MODE SENSE(10) rather than (6).
    pub ten: bool,
    /// LLBAA: a long LBA block descriptor may be returned.
    pub llbaa: bool,
    /// DBD: no block descriptor.
    pub dbd: bool,
    /// PC.
    pub control: PageControl,
    /// PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
}

/// PAGE CODE for all pages.
const ALL_PAGES: u8 = 0x3f;
/// SUBPAGE CODE for all subpages.
const ALL_SUBPAGES: u8 = 0xff;

/// A field with a value that is reserved: its byte within the mode parameters after the page length, and its first bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) byte: usize,
    pub(super) bit: u8,
}

/// One mode page. Its changeable bits are those in which its images for the two extreme states differ.
pub(super) struct ModePage {
    /// PAGE CODE.
    pub(super) page: u8,
    /// SUBPAGE CODE; 0 is the page_0 format.
    pub(super) subpage: u8,
    /// The mode parameters after the page length, for a state of a unit.
    image: fn(ModeState, &ModeUnit) -> Vec<u8>,
    /// Takes a state's bits out of mode parameters in which only changeable bits differ from those of the state.
    pub(super) take: fn(&[u8], &mut ModeState) -> Result<(), Reserved>,
}

/// By ascending page and subpage code.
const PAGES: [ModePage; 7] = [
    // Read-Write Error Recovery (SBC-3 6.5.8): AWRE and ARRE, for the host reassigns blocks; LBPERE.
    ModePage {
        page: 0x01,
        subpage: 0x00,
        image: |state, _| {
            let mut bytes = with_byte(10, 0, 0xc0);
            bytes[5] = u8::from(state.lbpere) << 7;
            bytes
        },
        take: |bytes, state| {
            state.lbpere = bit(bytes, 5, 7);
            Ok(())
        },
    },
    // Caching (SBC-3 6.5.6): WCE.
    ModePage {
        page: 0x08,
        subpage: 0x00,
        image: |state, _| with_byte(18, 0, u8::from(state.wce) << 2),
        take: |bytes, state| {
            state.wce = bit(bytes, 0, 2);
            Ok(())
        },
    },
    // Control (SPC-4 7.5.10).
    ModePage { page: 0x0a, subpage: 0x00, image: control, take: take_control },
    // Control Extension (SPC-4 7.5.11): TCMOS and SCSIP, for the clock is the host's until SET TIMESTAMP sets it.
    ModePage { page: 0x0a, subpage: 0x01, image: |_, _| with_byte(28, 0, 0x06), take: |_, _| Ok(()) },
    // Power Condition (SPC-4 7.5.15): no timers.
    ModePage { page: 0x1a, subpage: 0x00, image: |_, _| vec![0; 38], take: |_, _| Ok(()) },
    // Informational Exceptions Control (SBC-3 6.5.7): DEXCPT, none are reported.
    ModePage { page: 0x1c, subpage: 0x00, image: |_, _| with_byte(10, 0, 0x08), take: |_, _| Ok(()) },
    // Logical Block Provisioning (SBC-3 6.5.9).
    ModePage { page: 0x1c, subpage: 0x02, image: thresholds, take: take_thresholds },
];

/// SITUA 0 (all nexuses are told); one threshold descriptor: ENABLED, a soft threshold, armed as the resource decreases, that resource
/// (the available LBA mapping resource count, parameter 0001h of the log page), and the count.
fn thresholds(state: ModeState, _: &ModeUnit) -> Vec<u8> {
    let ModeThreshold { enabled, count } = state.threshold;
    let mut bytes = vec![0; 12];
    bytes.extend([u8::from(enabled) << 7, 0x01, 0, 0]);
    bytes.extend(count.to_be_bytes());
    bytes
}

fn take_thresholds(bytes: &[u8], state: &mut ModeState) -> Result<(), Reserved> {
    state.threshold.enabled = bit(bytes, 12, 7);
    state.threshold.count = u32::from_be_bytes(be_bytes(bytes, 16).unwrap_or_default());
    Ok(())
}

/// TST, D_SENSE, GLTSD (no log parameters are saved); QUEUE ALGORITHM MODIFIER 1h (unrestricted reordering), QERR; UA_INTLCK_CTRL,
/// SWP; TAS; EXTENDED SELF-TEST COMPLETION TIME.
fn control(state: ModeState, unit: &ModeUnit) -> Vec<u8> {
    let mut bytes = vec![0; 10];
    bytes[8..].copy_from_slice(&unit.self_test_seconds.to_be_bytes());
    bytes[0] = (state.tst & 0b111) << 5 | u8::from(state.d_sense) << 2 | 0x02;
    bytes[1] = 0x1 << 4 | (state.qerr & 0b11) << 1;
    bytes[2] = (state.ua_intlck & 0b11) << 4 | u8::from(state.swp) << 3;
    bytes[3] = u8::from(state.tas) << 6;
    bytes
}

/// Of TST only the lowest bit is changeable, so that every value it can get here is one that there is; QERR 10b and UA_INTLCK_CTRL 01b
/// are reserved (SPC-4 tables 390 and 391).
fn take_control(bytes: &[u8], state: &mut ModeState) -> Result<(), Reserved> {
    let two_bits = |at: usize, low: u8| bytes.get(at).map_or(0, |byte| byte >> low & 0b11);
    let (qerr, ua_intlck) = (two_bits(1, 1), two_bits(2, 4));
    if qerr == 0b10 {
        return Err(Reserved { byte: 1, bit: 2 });
    }
    if ua_intlck == 0b01 {
        return Err(Reserved { byte: 2, bit: 5 });
    }
    state.tst = u8::from(bit(bytes, 0, 5));
    state.d_sense = bit(bytes, 0, 2);
    state.qerr = qerr;
    state.ua_intlck = ua_intlck;
    state.swp = bit(bytes, 2, 3);
    state.tas = bit(bytes, 3, 6);
    Ok(())
}

fn with_byte(length: usize, at: usize, value: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[at] = value;
    bytes
}

fn bit(bytes: &[u8], at: usize, bit: u8) -> bool {
    bytes.get(at).is_some_and(|byte| byte >> bit & 1 == 1)
}

impl ModePage {
    /// The page with these codes, if the unit has it.
    pub(super) fn find(page: u8, subpage: u8, unit: &ModeUnit) -> Option<&'static ModePage> {
        ModePage::of(unit).find(|each| (each.page, each.subpage) == (page, subpage))
    }

    /// Whether there is any subpage of a page.
    pub(super) fn any(page: u8) -> bool {
        PAGES.iter().any(|each| each.page == page)
    }

    /// The pages of a unit.
    fn of(unit: &ModeUnit) -> impl Iterator<Item = &'static ModePage> {
        let thresholds = unit.thresholds;
        PAGES.iter().filter(move |each| thresholds || (each.page, each.subpage) != (0x1c, 0x02))
    }

    /// The mode parameters after the page length.
    pub(super) fn image(&self, state: ModeState, unit: &ModeUnit) -> Vec<u8> {
        (self.image)(state, unit)
    }

    /// A one for every bit that MODE SELECT can change.
    pub(super) fn changeable(&self, unit: &ModeUnit) -> Vec<u8> {
        let greatest = ModeState { lbpere: unit.thresholds, ..ModeState::ALL_SET };
        let (clear, set) = (self.image(ModeState::ALL_CLEAR, unit), self.image(greatest, unit));
        clear.iter().zip(set).map(|(clear, set)| clear ^ set).collect()
    }

    /// The whole page with its header; PS says whether the parameters can be saved.
    fn write(&self, unit: &ModeUnit, control: PageControl, data: &mut ParameterData) {
        let parameters = match control {
            PageControl::Current => self.image(unit.current, unit),
            PageControl::Changeable => self.changeable(unit),
            PageControl::Default => self.image(unit.default, unit),
            PageControl::Saved => self.image(unit.saved.unwrap_or(unit.default), unit),
        };
        let ps = u8::from(unit.saved.is_some()) << 7;
        let write = |data: &mut ParameterData| {
            data.raw(&parameters);
        };
        match self.subpage {
            0 => data.u8(ps | self.page).counted_u8(write),
            subpage => data.u8(ps | 0x40 | self.page).u8(subpage).counted_u16(write),
        };
    }
}

/// The pages that PAGE CODE and SUBPAGE CODE ask for (SPC-4 table 174).
fn selected(page: u8, subpage: u8, unit: &ModeUnit) -> Result<Vec<&'static ModePage>, Sense> {
    let pages: Vec<_> = ModePage::of(unit)
        .filter(|each| page == ALL_PAGES || each.page == page)
        .filter(|each| subpage == ALL_SUBPAGES || each.subpage == subpage)
        .collect();
    match (page, subpage) {
        (ALL_PAGES, 0x01..=0xfe) => Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(3, 7))),
        _ if !pages.is_empty() => Ok(pages),
        _ if ModePage::any(page) => Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(3, 7))),
        _ => Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 5))),
    }
}

/// The parameter data of MODE SENSE(6) and MODE SENSE(10): mode parameter header, block descriptor, pages.
///
/// # Errors
///
/// SAVING PARAMETERS NOT SUPPORTED for saved values of a unit that saves none; INVALID FIELD IN CDB pointing at a page
/// or subpage code that is not supported.
pub fn mode_sense(fields: &ModeSenseFields, unit: &ModeUnit) -> Result<ParameterData, Sense> {
    let pages = selected(fields.page, fields.subpage, unit)?;
    if fields.control == PageControl::Saved && unit.saved.is_none() {
        return Err(Sense::illegal_request(AdditionalSense::SAVING_PARAMETERS_NOT_SUPPORTED));
    }
    let device_specific = u8::from(unit.write_protected) << 7 | u8::from(unit.dpo_fua) << 4;
    let long = fields.ten && fields.llbaa && !fields.dbd;
    let descriptor = |data: &mut ParameterData| match (fields.dbd, long) {
        (true, _) => (),
        (false, false) => {
            data.u32(u32::try_from(unit.blocks).unwrap_or(u32::MAX)).u8(0).u24(unit.block_length);
        }
        (false, true) => {
            data.u64(unit.blocks).zeros(4).u32(unit.block_length);
        }
    };
    let write_pages = |data: &mut ParameterData| {
        pages.iter().for_each(|page| page.write(unit, fields.control, data));
    };
    let mut data = ParameterData::new();
    // MODE DATA LENGTH, MEDIUM TYPE 0, DEVICE-SPECIFIC PARAMETER, BLOCK DESCRIPTOR LENGTH.
    match fields.ten {
        false => data.counted_u8(|data| {
            data.u8(0).u8(device_specific).counted_u8(descriptor);
            write_pages(data);
        }),
        true => data.counted_u16(|data| {
            data.u8(0).u8(device_specific).u8(u8::from(long)).u8(0).counted_u16(descriptor);
            write_pages(data);
        }),
    };
    Ok(data)
}

#[cfg(test)]
#[path = "mode_tests.rs"]
mod tests;
