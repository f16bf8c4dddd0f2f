//! Primary commands (SPC-4).

use super::transfer::{needs, parameter_data};
use super::{NO_MEDIUM, Planned, STOPPED, Task, access, ports, third_party_copy};
use crate::lu::{Attention, DEFAULT_VENDOR, GateBits, Itl, Lu, PowerCondition};
use crate::mem::{Direction, IoBuf};
use crate::scsi::opcode::Row;
use crate::scsi::sbc::{
    AtomicWrites, BlockDeviceCharacteristics, BlockLimits, LogicalBlockProvisioning, ProvisioningType,
};
use crate::scsi::spc::{self as data, Designator, ExtendedInquiry, Peripheral, StandardInquiry, vpd_page};
use crate::scsi::{AdditionalSense, FieldPointer, ParameterData, Sense, SenseFormat, SenseKey, TaskManagementFunction};

/// NO SENSE.
pub(super) const NO_SENSE: Sense = Sense::new(SenseKey::NoSense, AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION);

/// The VPD pages of a unit, ascending, as [`vpd`] knows them.
const VPD_PAGES: [u8; 10] = [
    vpd_page::SUPPORTED_PAGES,
    vpd_page::UNIT_SERIAL_NUMBER,
    vpd_page::DEVICE_IDENTIFICATION,
    vpd_page::EXTENDED_INQUIRY_DATA,
    vpd_page::MODE_PAGE_POLICY,
    vpd_page::SCSI_PORTS,
    vpd_page::THIRD_PARTY_COPY,
    vpd_page::BLOCK_LIMITS,
    vpd_page::BLOCK_DEVICE_CHARACTERISTICS,
    vpd_page::LOGICAL_BLOCK_PROVISIONING,
];

/// REQUEST SENSE (SPC-4 6.39): a pending unit attention as data, which clears it; else what keeps the unit from being
/// ready; else NO SENSE. The sense data of a command that failed went out with its status.
pub(super) fn request_sense<'a>(task: Task<'a, '_>, descriptor: bool, allocation_length: u32) -> Planned<'a> {
    // What cannot be told must not be cleared: sense data of a unit attention is this long.
    let length = if descriptor { 8 } else { 18 };
    needs(task.buf, Direction::In, u64::from(allocation_length.min(length)))?;
    let gate = task.itl.gate();
    let attention = if allocation_length == 0 { None } else { gate.take_attention() };
    let sense = match attention {
        Some(attention) => attention.sense(),
        None => not_ready(task.itl.lu(), gate.bits()).unwrap_or_else(|| power_condition(task.itl.lu())),
    };
    sense_data(task.buf, sense, descriptor, allocation_length)
}

/// What keeps a unit from which this gate leads from being ready.
fn not_ready(lu: &Lu, gate: GateBits) -> Option<Sense> {
    if let Some(sense) = gate.access_state().and_then(access::inaccessible) {
        return Some(sense);
    }
    if gate.intersects(GateBits::OCCUPIED) {
        return Some(lu.occupied_sense());
    }
    if gate.intersects(GateBits::NO_MEDIUM) {
        return Some(NO_MEDIUM);
    }
    gate.intersects(GateBits::STOPPED).then_some(STOPPED)
}

/// What REQUEST SENSE tells of the power condition of a unit that is ready (SPC-4 5.6).
fn power_condition(lu: &Lu) -> Sense {
    match lu.power_condition() {
        PowerCondition::Active => NO_SENSE,
        PowerCondition::Idle => Sense::new(SenseKey::NoSense, AdditionalSense::IDLE_CONDITION_ACTIVATED_BY_COMMAND),
        PowerCondition::Standby => {
            Sense::new(SenseKey::NoSense, AdditionalSense::STANDBY_CONDITION_ACTIVATED_BY_COMMAND)
        }
    }
}

/// Ends a command with sense data as its parameter data.
pub(super) fn sense_data(buf: &mut IoBuf, sense: Sense, descriptor: bool, allocation_length: u32) -> Planned<'static> {
    let mut data = ParameterData::new();
    data.raw(&sense.encode(SenseFormat::from_bit(descriptor), usize::MAX));
    parameter_data(buf, data, allocation_length)
}

/// INQUIRY (SPC-4 6.6) with its VPD pages (SPC-4 7.8, SBC-3 6.6).
pub(super) fn inquiry<'a>(task: Task<'a, '_>, page: Option<u8>, allocation_length: u32) -> Planned<'a> {
    let data = match page {
        None => standard_inquiry(task.itl),
        Some(page) => vpd(task.itl, page)?,
    };
    parameter_data(task.buf, data, allocation_length)
}

fn standard_inquiry(itl: &Itl) -> ParameterData {
    let identity = itl.lu().identity();
    let location = if identity.vendor == DEFAULT_VENDOR { ports::location(itl) } else { None };
    StandardInquiry {
        peripheral: Peripheral::DISK,
        removable: itl.lu().removable(),
        normal_aca: true,
        multi_port: itl.ports().several(),
        third_party_copy: true,
        target_port_groups: ports::TPGS,
        vendor: &identity.vendor,
        product: &identity.product,
        revision: &identity.revision,
        vendor_specific: location.as_deref().unwrap_or_default(),
    }
    .data()
}

fn vpd(itl: &Itl, page: u8) -> Result<ParameterData, Sense> {
    let lu = itl.lu();
    Ok(match page {
        vpd_page::SUPPORTED_PAGES => data::supported_vpd_pages(Peripheral::DISK, &VPD_PAGES),
        vpd_page::UNIT_SERIAL_NUMBER => data::unit_serial_number(Peripheral::DISK, &lu.identity().serial),
        vpd_page::DEVICE_IDENTIFICATION => data::device_identification(Peripheral::DISK, &designators(itl)),
        vpd_page::EXTENDED_INQUIRY_DATA => extended_inquiry().data(Peripheral::DISK),
        vpd_page::MODE_PAGE_POLICY => data::mode_page_policy(Peripheral::DISK),
        vpd_page::SCSI_PORTS => data::scsi_ports(Peripheral::DISK, &ports::scsi_ports(itl.ports())),
        vpd_page::THIRD_PARTY_COPY => third_party_copy::page(lu),
        vpd_page::BLOCK_LIMITS => block_limits(lu).data(Peripheral::DISK),
        vpd_page::BLOCK_DEVICE_CHARACTERISTICS => characteristics(lu).data(Peripheral::DISK),
        vpd_page::LOGICAL_BLOCK_PROVISIONING => provisioning(lu).data(Peripheral::DISK),
        _ => return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7))),
    })
}

/// The unit's names: NAA first, then EUI-64 and UUID, if it has them, then vendor, product and serial number as SPC-4 7.8.6.4
/// recommends; after them its port's.
pub(super) fn designators(itl: &Itl) -> Vec<Designator> {
    let identity = itl.lu().identity();
    let identifier = format!("{:16}{}", identity.product, identity.serial);
    let mut designators = vec![Designator::Naa8(identity.naa.to_be_bytes())];
    designators.extend(identity.eui.clone().map(Designator::Eui64));
    designators.extend(identity.uuid.map(Designator::Uuid));
    designators.push(Designator::T10VendorId { vendor: identity.vendor.clone(), identifier });
    designators.extend(ports::designators(itl.ports()));
    designators
}

/// V_SUP does not tell whether WCE is one, but that it may become one. UASK_SUP is zero: the only sense-key specific data of a unit
/// attention says that some were lost, and none are; each condition has a place of its own.
fn extended_inquiry() -> ExtendedInquiry {
    ExtendedInquiry {
        simple: true,
        ordered: true,
        grouping: true,
        head_of_queue: true,
        volatile_cache: true,
        ..ExtendedInquiry::default()
    }
}

fn block_limits(lu: &Lu) -> BlockLimits {
    let limits = lu.limits();
    let exponent = lu.geometry().physical_exponent;
    BlockLimits {
        // A physical block, where that is more than a logical one.
        optimal_granularity: if exponent == 0 { 0 } else { 1 << exponent },
        maximum_compare_and_write: limits.compare_and_write_blocks,
        maximum_transfer: limits.transfer_blocks,
        maximum_unmap_blocks: limits.unmap_blocks,
        maximum_unmap_descriptors: limits.unmap_descriptors,
        unmap_granularity: limits.unmap_granularity,
        unmap_alignment: lu.thin().then_some(0),
        atomic: lu.atomic_limits().map_or(AtomicWrites::default(), |atomic| AtomicWrites {
            maximum: atomic.maximum,
            alignment: atomic.granularity,
            granularity: atomic.granularity,
            maximum_with_boundary: atomic.maximum,
            maximum_boundary: atomic.maximum,
        }),
        ..BlockLimits::default()
    }
}

/// FUAB: what is durable may be in a cache of the host's disk that does not lose it, which SBC-2 would not have allowed. VBULS: what is
/// unmapped is compared as the zeros that it reads as.
fn characteristics(lu: &Lu) -> BlockDeviceCharacteristics {
    BlockDeviceCharacteristics {
        rotation_rate: lu.rotation_rate(),
        form_factor: 0,
        fuab: true,
        verifies_unmapped: lu.thin(),
    }
}

fn provisioning(lu: &Lu) -> LogicalBlockProvisioning {
    let thin = lu.thin();
    LogicalBlockProvisioning {
        unmap: thin,
        write_same16: thin,
        write_same10: thin,
        lbprz: thin,
        anchor: false,
        provisioning: if thin { ProvisioningType::Thin } else { ProvisioningType::NotReported },
    }
}

/// REPORT LUNS (SPC-4 6.33), which also settles that the inventory changed (SAM-5 5.14).
pub(super) fn report_luns<'a>(task: Task<'a, '_>, select_report: u8, allocation_length: u32) -> Planned<'a> {
    let plan = parameter_data(task.buf, data::report_luns(select_report, task.luns)?, allocation_length)?;
    task.itl.gate().clear_attention(Attention::ReportedLunsChanged);
    Ok(plan)
}

/// REPORT SUPPORTED OPERATION CODES (SPC-4 6.35).
pub(super) fn report_supported_operation_codes<'a>(
    task: Task<'a, '_>,
    rctd: bool,
    options: u8,
    opcode: u8,
    service_action: u16,
    allocation_length: u32,
) -> Planned<'a> {
    let supported = |row: &Row| supported(task.itl.lu(), row);
    let data = data::report_operation_codes(rctd, options, opcode, service_action, supported)?;
    parameter_data(task.buf, data, allocation_length)
}

/// Whether a unit has a command: some depend on what its image can do.
pub(super) fn supported(lu: &Lu, row: &Row) -> bool {
    const UNMAP: u8 = 0x42;
    const WRITE_ATOMIC: u8 = 0x9c;
    match row.opcode {
        UNMAP => lu.thin(),
        WRITE_ATOMIC => lu.atomic_limits().is_some(),
        _ => true,
    }
}

/// The functions that the target performs.
const TASK_MANAGEMENT: [TaskManagementFunction; 8] = [
    TaskManagementFunction::AbortTask,
    TaskManagementFunction::AbortTaskSet,
    TaskManagementFunction::ClearAca,
    TaskManagementFunction::ClearTaskSet,
    TaskManagementFunction::LogicalUnitReset,
    TaskManagementFunction::ItNexusReset,
    TaskManagementFunction::QueryTask,
    TaskManagementFunction::QueryTaskSet,
];

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36).
pub(super) fn report_supported_task_management_functions<'a>(
    task: Task<'a, '_>,
    repd: bool,
    allocation_length: u32,
) -> Planned<'a> {
    parameter_data(task.buf, data::report_task_management_functions(repd, &TASK_MANAGEMENT), allocation_length)
}
