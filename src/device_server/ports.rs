//! What INQUIRY tells of target ports (SPC-4 7.8).

use crate::lu::{Ports, TargetPort};
use crate::scsi::spc::{Association, Designator, TargetPortGroupSupport};

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

fn name(port: &TargetPort) -> Designator {
    Designator::srp_port_name(Association::TargetPort, port.id)
}
