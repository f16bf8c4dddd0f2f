//! What INQUIRY tells of target ports (SPC-4 7.8).

use crate::lu::{Itl, Ports, TargetPort};
use crate::scsi::spc::{Association, Designator, TargetPortGroupSupport, vscsi_location};

/// Access states may be configured, and SET TARGET PORT GROUPS changes them.
pub(super) const TPGS: TargetPortGroupSupport = TargetPortGroupSupport::ImplicitAndExplicit;

/// The names of the port that the command came by.
pub(super) fn designators(ports: Ports<'_>) -> Vec<Designator> {
    let Some(port) = ports.own() else { return Vec::new() };
    vec![name(port), Designator::RelativeTargetPort(port.relative), Designator::TargetPortGroup(port.group)]
}

/// What the SCSI Ports page says of each port.
pub(super) fn scsi_ports(ports: Ports<'_>) -> Vec<(u16, Vec<Designator>)> {
    ports.all.iter().map(|port| (port.relative, vec![name(port)])).collect()
}

/// Where the unit is, as IBM's virtual SCSI target says it: a virtual adapter of the one partition that there is, numbered like the target
/// port; bus 0, target, LUN. It is what follows IBM's name in standard INQUIRY data, and says nothing of any other vendor's.
pub(super) fn location(itl: &Itl) -> Option<String> {
    const PARTITION: u32 = 1;
    const FIRST_ADAPTER: u32 = 0x3000_0000;
    let (target, lun) = itl.address()?;
    let adapter = FIRST_ADAPTER | u32::from(itl.nexus().port);
    Some(vscsi_location(env!("CARGO_PKG_NAME"), PARTITION, adapter, target, lun))
}

fn name(port: &TargetPort) -> Designator {
    Designator::srp_port_name(Association::TargetPort, port.id)
}
