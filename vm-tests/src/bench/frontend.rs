//! Getting a vhost-user back-end to serve rings, as a machine monitor whose guest's driver has just started does.

use super::device::Device;
use super::memory::Memory;
use super::ring::Ring;
use crate::process::wait_until;
use crate::{Context, Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

/// VIRTIO_F_INDIRECT_DESC.
const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
const EVENT_IDX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;

/// Descriptors of a ring. QEMU's default for both devices; every back-end has as many.
pub const RING_SIZE: u16 = 128;

/// How long a back-end may take to open its socket, and to answer a message.
const BOUND: Duration = Duration::from_secs(20);

/// A connection with rings started. Dropping it ends the connection.
pub struct Session {
    /// Kept for the connection.
    _frontend: Frontend,
    /// The request queues.
    pub queues: Vec<Ring>,
}

/// Connects and starts `queues` request queues (and, for virtio-scsi, the two others) over `memory`.
///
/// # Errors
/// When the back-end refuses something or lacks what the generator needs.
pub fn start(socket: &Path, device: Device, memory: &Arc<Memory>, queues: u16) -> Result<Session> {
    let stream = wait_until(BOUND, || Ok(UnixStream::connect(socket).ok()))?;
    let stream = stream.context(|| format!("nobody listens at {}", socket.display()))?;
    stream.set_read_timeout(Some(BOUND)).context(|| "bound the back-end's answers")?;
    let mut frontend = Frontend::from_stream(stream, 256);
    let features = negotiate(&mut frontend, device, queues)?;
    frontend.set_mem_table(&[whole(memory)]).context(|| "share the guest's memory")?;
    let mut rings = Vec::new();
    for index in 0..usize::from(device.other_queues() + queues) {
        let ring = Ring::new(memory, RING_SIZE, features & EVENT_IDX != 0)?;
        start_ring(&frontend, memory, index, &ring).context(|| format!("start ring {index}"))?;
        rings.push(ring);
    }
    for index in 0..rings.len() {
        frontend.set_vring_enable(index, true).context(|| format!("enable ring {index}"))?;
    }
    // A question with an answer: everything before it has been dealt with.
    frontend.get_features().context(|| "ask again for the features")?;
    // The other queues' eventfds have been sent; the generator has no use for their rings.
    let queues = rings.split_off(usize::from(device.other_queues()));
    Ok(Session { _frontend: frontend, queues })
}

fn negotiate(frontend: &mut Frontend, device: Device, queues: u16) -> Result<u64> {
    let offered = frontend.get_features().context(|| "ask for features")?;
    let needed = INDIRECT_DESC | PROTOCOL | VERSION_1;
    if offered & needed != needed {
        return Err(Error::new(format!("features {offered:#x} lack some of {needed:#x}")));
    }
    let protocol = frontend.get_protocol_features().context(|| "ask for protocol features")?;
    let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
    frontend.set_protocol_features(protocol & wanted).context(|| "set protocol features")?;
    if protocol.contains(VhostUserProtocolFeatures::MQ) {
        let there = frontend.get_queue_num().context(|| "ask for the number of queues")?;
        if there < u64::from(device.other_queues() + queues) {
            return Err(Error::new(format!("it has no {queues} request queues: {there} in all")));
        }
    }
    frontend.set_owner().context(|| "set the owner")?;
    let features = offered & (needed | EVENT_IDX | device.features());
    frontend.set_features(features).context(|| "set features")?;
    Ok(features)
}

fn whole(memory: &Memory) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: memory.len() as u64,
        userspace_addr: memory.user(0),
        mmap_offset: 0,
        mmap_handle: memory.file().as_raw_fd(),
    }
}

fn start_ring(frontend: &Frontend, memory: &Memory, index: usize, ring: &Ring) -> Result<(), vhost::Error> {
    let layout = ring.layout();
    frontend.set_vring_num(index, layout.size)?;
    frontend.set_vring_base(index, 0)?;
    frontend.set_vring_addr(
        index,
        &VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: memory.user(layout.desc),
            used_ring_addr: memory.user(layout.used),
            avail_ring_addr: memory.user(layout.avail),
            log_addr: None,
        },
    )?;
    frontend.set_vring_call(index, &ring.call)?;
    frontend.set_vring_kick(index, &ring.kick)
}
