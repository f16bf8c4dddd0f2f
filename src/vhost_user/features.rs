//! Feature bits: what is offered, and what a front-end may acknowledge.
//!
//! QEMU hands a guest bits that the back-end never offered (for vhost-user-scsi it masks only a few), so an
//! acknowledged bit that was not offered is no error by itself. Refused are those that change what the rings or the
//! requests look like, or that ask for something only we could do; the message names the option that takes them away.

use vhost::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};

use super::{dirty_log, inflight};

/// VHOST_USER_F_PROTOCOL_FEATURES: there are protocol features, and rings begin disabled.
pub(super) const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
/// VHOST_F_LOG_ALL: log every write to guest memory.
pub(super) const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
/// VIRTIO_RING_F_EVENT_IDX.
pub(super) const EVENT_IDX: u64 = 1 << 29;

/// Bits of the transport: never the device's concern.
pub(super) const TRANSPORT: u64 = PROTOCOL_FEATURES | LOG_ALL;

/// What is refused unless it was offered: bit, its name, and how to be rid of it.
const REFUSED: [(u32, &str, &str); 4] = [
    (3, "VIRTIO_SCSI_F_T10_PI", "t10_pi=off"),
    (33, "VIRTIO_F_ACCESS_PLATFORM", "iommu_platform=off"),
    (34, "VIRTIO_F_RING_PACKED", "packed=off"),
    (35, "VIRTIO_F_IN_ORDER", "in_order=off"),
];

/// The virtio features offered over a device that offers `device`.
pub(super) fn offered(device: u64) -> u64 {
    device | PROTOCOL_FEATURES | dirty_log::FEATURES
}

/// Checks what the front-end acknowledged; says what is wrong and which QEMU option helps.
pub(super) fn check(acked: u64, offered: u64) -> Result<(), String> {
    for (bit, name, cure) in REFUSED {
        if acked & !offered & (1 << bit) != 0 {
            return Err(format!("feature {name} (bit {bit}) is not supported; in QEMU: {cure}"));
        }
    }
    Ok(())
}

/// The protocol features offered.
///
/// BACKEND_REQ is not: there is nothing to ask the front-end for. Neither is CONFIG (QEMU keeps the configuration space
/// of this device itself and warns), nor STATUS (QEMU never says DRIVER_OK or 0 to this device).
pub(super) fn protocol_offered() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | dirty_log::PROTOCOL_FEATURES
        | inflight::PROTOCOL_FEATURES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_bits_that_were_not_offered_pass() {
        let offered = offered(1 << 32 | 1 << 28 | 1 << 29);
        // HOTPLUG, CHANGE, ANY_LAYOUT, NOTIFY_ON_EMPTY, RING_RESET, NOTIFICATION_DATA, and no VERSION_1 (OVMF).
        for bit in [1, 2, 27, 24, 40, 38] {
            check(PROTOCOL_FEATURES | 1 << bit, offered).unwrap();
        }
        check(0, offered).unwrap();
    }

    #[test]
    fn bits_that_change_the_format_are_refused_with_their_cure() {
        for (bit, cure) in [(3, "t10_pi=off"), (33, "iommu_platform=off"), (34, "packed=off"), (35, "in_order=off")] {
            let text = check(PROTOCOL_FEATURES | 1 << bit, offered(1 << 32)).unwrap_err();
            assert!(text.contains(cure), "{text}");
        }
        check(LOG_ALL, offered(0)).unwrap();
    }

    #[test]
    fn an_offered_bit_is_never_refused() {
        check(1 << 35, offered(1 << 35)).unwrap();
    }
}
