//! A guest: a connection, memory, rings, and SCSI commands on them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::FrontendReq::*;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use super::queue::{Buffer, Queue};
use super::ram::Ram;
use super::wire::{EVENT_IDX, PROTOCOL, VERSION_1, Wire};
use super::{BOUND, eventually};

/// HOTPLUG, CHANGE, INDIRECT_DESC, EVENT_IDX, VERSION_1: what Linux acknowledges.
pub const LINUX_FEATURES: u64 = 1 << 1 | 1 << 2 | 1 << 28 | EVENT_IDX | VERSION_1 | PROTOCOL;

/// Bytes of a command's header and of its response, with the sizes that QEMU always has.
pub const HEADER: u32 = 51;
pub const RESPONSE: u32 = 108;

/// The first request queue.
pub const REQUESTS: u16 = 2;

/// A command's response, taken apart (virtio 1.2 5.6.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub response: u8,
    pub status: u8,
    pub residual: u32,
    pub sense: Vec<u8>,
    /// Bytes written, as the used ring says.
    pub used_len: u32,
}

impl Response {
    pub fn good(&self) -> bool {
        self.response == 0 && self.status == 0
    }

    /// Sense key, additional sense code and qualifier, of fixed or descriptor format.
    pub fn sense_code(&self) -> Option<(u8, u8, u8)> {
        match self.sense.first()? & 0x7f {
            0x70 | 0x71 => Some((self.sense[2] & 0xf, self.sense[12], self.sense[13])),
            _ => Some((self.sense[1] & 0xf, self.sense[2], self.sense[3])),
        }
    }
}

/// One connection with its memory and rings.
pub struct Guest {
    pub frontend: Frontend,
    /// The same socket, for raw messages.
    pub wire: Wire,
    pub ram: Ram,
    pub features: u64,
    pub queues: Vec<Queue>,
    /// What is kept for the back-end: INFLIGHT_SHMFD.
    pub inflight: Option<(VhostUserInflight, File)>,
}

/// Connects, trying again while the socket is not there yet.
pub fn connect(path: &Path) -> UnixStream {
    let mut stream = None;
    eventually("the socket accepts", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    stream.unwrap()
}

pub fn lun(target: u8, lun: u16) -> [u8; 8] {
    [1, target, 0x40 | (lun >> 8) as u8, lun as u8, 0, 0, 0, 0]
}

impl Guest {
    /// Connected, nothing negotiated.
    pub fn connect(path: &Path, ram: Ram) -> Guest {
        Guest::over(connect(path), ram)
    }

    pub fn over(stream: UnixStream, ram: Ram) -> Guest {
        let wire = Wire::new(stream.try_clone().unwrap());
        let frontend = Frontend::from_stream(stream, 256);
        Guest { frontend, wire, ram, features: 0, queues: Vec::new(), inflight: None }
    }

    /// A guest as it usually is: 16 MiB, all three rings, attached.
    pub fn attached(path: &Path) -> Guest {
        let mut guest = Guest::connect(path, Ram::new(16 << 20));
        guest.negotiate();
        guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
        guest.clear_attentions();
        guest
    }

    /// The handshake at the beginning of a connection.
    pub fn negotiate(&mut self) {
        self.negotiate_with(VhostUserProtocolFeatures::empty());
    }

    /// The same with more protocol features.
    pub fn negotiate_with(&mut self, more: VhostUserProtocolFeatures) {
        let offered = self.frontend.get_features().unwrap();
        assert_ne!(offered & PROTOCOL, 0);
        let protocol = self.frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | more;
        assert!(protocol.contains(wanted), "{protocol:?}");
        self.frontend.set_protocol_features(wanted).unwrap();
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(self.frontend.get_queue_num().unwrap(), 254);
        self.frontend.set_owner().unwrap();
    }

    /// As [`attached`](Self::attached), over these rings, with a buffer for what is in flight.
    pub fn attached_tracked(path: &Path, ram: Ram, rings: &[u16], size: u16) -> Guest {
        let mut guest = Guest::connect(path, ram);
        guest.negotiate_with(VhostUserProtocolFeatures::INFLIGHT_SHMFD);
        guest.set_features(LINUX_FEATURES);
        let wanted = VhostUserInflight::new(0, 0, rings.len() as u16, size);
        let (inflight, file) = guest.frontend.get_inflight_fd(&wanted).unwrap();
        // A copy is closed in processes that are started meanwhile; what comes by a socket is not.
        guest.inflight = Some((inflight, file.try_clone().unwrap()));
        guest.send_inflight();
        (0..guest.ram.regions.len()).for_each(|index| guest.add_region(index));
        guest.start_rings(rings, size);
        guest
    }

    /// SET_INFLIGHT_FD with what is kept.
    pub fn send_inflight(&mut self) {
        if let Some((inflight, file)) = &self.inflight {
            self.frontend.set_inflight_fd(inflight, file.as_raw_fd()).unwrap();
        }
    }

    /// Clears what it keeps of what is in flight: its buffer is as one that was just made.
    pub fn forget_inflight(&self) {
        let Some((inflight, file)) = &self.inflight else { return };
        let region = (16 + 16 * u64::from(inflight.queue_size)).next_multiple_of(64);
        let regions = vec![0; (region * u64::from(inflight.num_queues)) as usize];
        std::os::unix::fs::FileExt::write_all_at(file, &regions, inflight.mmap_offset).unwrap();
    }

    /// Connects anew after the back-end was killed, as QEMU does: with the rings as they are in memory, from used.idx on, and with the buffer for
    /// what is in flight. False if the new one is gone, too, before all is said.
    pub fn reconnect(&mut self, path: &Path) -> bool {
        let Ok(stream) = UnixStream::connect(path) else { return false };
        let fresh = Guest::over(stream, self.ram.clone());
        (self.frontend, self.wire) = (fresh.frontend, fresh.wire);
        self.say_all().is_ok()
    }

    fn say_all(&mut self) -> vhost::Result<()> {
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        self.frontend.get_features()?;
        self.frontend.get_protocol_features()?;
        self.frontend.set_protocol_features(wanted)?;
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        self.frontend.set_owner()?;
        self.frontend.set_features(self.features)?;
        if let Some((inflight, file)) = &self.inflight {
            self.frontend.set_inflight_fd(inflight, file.as_raw_fd())?;
        }
        for index in 0..self.ram.regions.len() {
            self.frontend.add_mem_region(&self.region_info(index))?;
        }
        for queue in &self.queues {
            let index = usize::from(queue.index);
            self.frontend.set_vring_num(index, queue.size)?;
            self.frontend.set_vring_base(index, queue.published())?;
            self.frontend.set_vring_addr(index, &self.addresses(queue, 0))?;
            self.frontend.set_vring_kick(index, &queue.kick)?;
        }
        for queue in &self.queues {
            self.frontend.set_vring_enable(queue.index.into(), true)?;
        }
        for queue in &self.queues {
            self.frontend.set_vring_call(queue.index.into(), &queue.call)?;
            self.frontend.set_vring_err(queue.index.into(), &queue.err)?;
        }
        Ok(())
    }

    fn region_info(&self, index: usize) -> VhostUserMemoryRegionInfo {
        let region = self.ram.regions[index];
        VhostUserMemoryRegionInfo {
            guest_phys_addr: region.guest,
            memory_size: region.size,
            userspace_addr: region.user,
            mmap_offset: region.offset,
            mmap_handle: self.ram.fds()[index],
        }
    }

    pub fn add_region(&mut self, index: usize) {
        let info = self.region_info(index);
        self.frontend.add_mem_region(&info).unwrap();
    }

    pub fn remove_region(&mut self, index: usize) {
        let info = self.region_info(index);
        self.frontend.remove_mem_region(&info).unwrap();
    }

    pub fn set_table(&self) {
        let infos: Vec<_> = (0..self.ram.regions.len()).map(|index| self.region_info(index)).collect();
        self.frontend.set_mem_table(&infos).unwrap();
    }

    /// Features, memory, rings, enable: as QEMU does when a driver says DRIVER_OK.
    pub fn start(&mut self, features: u64, rings: &[u16], size: u16) {
        self.set_features(features);
        (0..self.ram.regions.len()).for_each(|index| self.add_region(index));
        self.start_rings(rings, size);
    }

    pub fn set_features(&mut self, features: u64) {
        self.features = features;
        self.frontend.set_features(features).unwrap();
    }

    pub fn make_queue(&self, index: u16, size: u16) -> Queue {
        Queue::new(&self.ram, index, size, self.features & EVENT_IDX != 0)
    }

    pub fn start_rings(&mut self, rings: &[u16], size: u16) {
        for &index in rings {
            let queue = self.make_queue(index, size);
            self.set_up(&queue);
            self.frontend.set_vring_kick(index.into(), &queue.kick).unwrap();
            self.queues.push(queue);
        }
        for &index in rings {
            self.frontend.set_vring_enable(index.into(), true).unwrap();
        }
        for queue in &self.queues {
            self.frontend.set_vring_call(queue.index.into(), &queue.call).unwrap();
            self.frontend.set_vring_err(queue.index.into(), &queue.err).unwrap();
        }
    }

    /// SET_VRING_NUM, _BASE, _ADDR.
    pub fn set_up(&self, queue: &Queue) {
        self.set_up_at(queue, 0);
    }

    pub fn set_up_at(&self, queue: &Queue, base: u16) {
        let index = usize::from(queue.index);
        self.frontend.set_vring_num(index, queue.size).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        self.frontend.set_vring_addr(index, &self.addresses(queue, 0)).unwrap();
    }

    pub fn addresses(&self, queue: &Queue, flags: u32) -> VringConfigData {
        VringConfigData {
            queue_max_size: 1024,
            queue_size: queue.size,
            flags,
            desc_table_addr: self.ram.user(queue.desc),
            used_ring_addr: self.ram.user(queue.used),
            avail_ring_addr: self.ram.user(queue.avail),
            log_addr: None,
        }
    }

    /// The body of SET_VRING_ADDR for raw messages.
    pub fn wire_addresses(&self, queue: &Queue) -> Vec<u8> {
        let user = |guest| self.ram.user(guest);
        Wire::addr(queue.index.into(), 0, user(queue.desc), user(queue.used), user(queue.avail))
    }

    /// As QEMU stops: all disabled, then each ring's base fetched.
    pub fn stop(&mut self) -> Vec<u32> {
        for queue in &self.queues {
            self.frontend.set_vring_enable(queue.index.into(), false).unwrap();
        }
        self.queues.iter().map(|queue| self.frontend.get_vring_base(queue.index.into()).unwrap()).collect()
    }

    /// As QEMU goes on after [`stop`](Self::stop) with the same rings.
    pub fn go_on(&mut self, bases: &[u32]) {
        for (queue, base) in self.queues.iter().zip(bases) {
            self.set_up_at(queue, *base as u16);
            self.frontend.set_vring_kick(queue.index.into(), &queue.kick).unwrap();
        }
        for queue in &self.queues {
            self.frontend.set_vring_enable(queue.index.into(), true).unwrap();
            self.frontend.set_vring_call(queue.index.into(), &queue.call).unwrap();
        }
    }

    pub fn queue(&mut self, index: u16) -> &mut Queue {
        self.queues.iter_mut().find(|queue| queue.index == index).expect("the ring is set up")
    }

    /// The header of a command request.
    pub fn header(lun: [u8; 8], cdb: &[u8]) -> [u8; HEADER as usize] {
        let mut header = [0; HEADER as usize];
        header[..8].copy_from_slice(&lun);
        header[8..16].copy_from_slice(&7u64.to_le_bytes());
        header[19..19 + cdb.len()].copy_from_slice(cdb);
        header
    }

    /// A response area as the device left it.
    pub fn parse_response(&self, at: u64, used_len: u32) -> Response {
        let bytes = self.ram.read(at, RESPONSE as usize);
        let u32_at = |i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().unwrap());
        let sense_len = u32_at(0).min(96) as usize;
        Response {
            response: bytes[11],
            status: bytes[10],
            residual: u32_at(4),
            sense: bytes[12..12 + sense_len].to_vec(),
            used_len,
        }
    }

    /// Puts a command on a ring and kicks; returns where its response will be.
    pub fn submit(&mut self, ring: u16, cdb: &[u8], out: &[Buffer], input: &[Buffer]) -> (u16, u64) {
        let (header, response) = (self.ram.alloc(HEADER.into()), self.ram.alloc(RESPONSE.into()));
        self.submit_at(ring, header, response, cdb, out, input)
    }

    pub fn submit_at(
        &mut self,
        ring: u16,
        header: u64,
        response: u64,
        cdb: &[u8],
        out: &[Buffer],
        input: &[Buffer],
    ) -> (u16, u64) {
        self.ram.write(header, &Guest::header(lun(0, 0), cdb));
        self.ram.write(response, &[0xff; RESPONSE as usize]);
        let mut chain = vec![Buffer::out(header, HEADER)];
        chain.extend(out);
        chain.push(Buffer::input(response, RESPONSE));
        chain.extend(input);
        let queue = self.queue(ring);
        let head = queue.push(&chain);
        queue.kick();
        (head, response)
    }

    /// A command on the first request queue; the response, or `None` if none came in time.
    pub fn try_command(&mut self, cdb: &[u8], out: &[Buffer], input: &[Buffer]) -> Option<Response> {
        self.try_command_on(REQUESTS, cdb, out, input)
    }

    pub fn try_command_on(&mut self, ring: u16, cdb: &[u8], out: &[Buffer], input: &[Buffer]) -> Option<Response> {
        let mark = self.ram.mark();
        let (head, response) = self.submit(ring, cdb, out, input);
        let (used_head, len) = self.queue(ring).wait_used(BOUND)?;
        assert_eq!(used_head, head);
        let answer = self.parse_response(response, len);
        self.ram.release(mark);
        Some(answer)
    }

    pub fn command(&mut self, cdb: &[u8], out: &[Buffer], input: &[Buffer]) -> Response {
        self.try_command(cdb, out, input).expect("an answer in time")
    }

    pub fn test_unit_ready(&mut self) -> Response {
        self.command(&[0; 6], &[], &[])
    }

    /// Takes all pending unit attentions, as a driver that attaches does; returns what they were.
    pub fn clear_attentions(&mut self) -> Vec<(u8, u8, u8)> {
        let mut seen = Vec::new();
        for _ in 0..8 {
            let answer = self.test_unit_ready();
            if answer.good() {
                return seen;
            }
            let code = answer.sense_code().expect("sense data");
            assert_eq!(code.0, 6, "UNIT ATTENTION: {answer:?}");
            seen.push(code);
        }
        panic!("unit attentions do not end: {seen:?}");
    }

    pub fn write_blocks(&mut self, lba: u32, data: &[u8]) {
        let mark = self.ram.mark();
        let at = self.ram.alloc(data.len() as u64);
        self.ram.write(at, data);
        let answer = self.command(&rw10(0x2a, lba, data.len()), &[Buffer::out(at, data.len() as u32)], &[]);
        assert!(answer.good(), "{answer:?}");
        self.ram.release(mark);
    }

    pub fn read_blocks(&mut self, lba: u32, len: usize) -> Vec<u8> {
        let mark = self.ram.mark();
        let at = self.ram.alloc(len as u64);
        let answer = self.command(&rw10(0x28, lba, len), &[], &[Buffer::input(at, len as u32)]);
        assert!(answer.good(), "{answer:?}");
        assert_eq!(answer.residual, 0);
        self.ram.release(mark);
        self.ram.read(at, len)
    }

    /// Writes a pattern and reads it back.
    pub fn check_io(&mut self, seed: u64) {
        let lba = (seed % 100) as u32 * 16;
        let data = pattern(seed, 4096);
        self.write_blocks(lba, &data);
        assert_eq!(self.read_blocks(lba, 4096), data);
    }
}

/// READ(10) or WRITE(10) of `len` bytes in blocks of 512.
pub fn rw10(opcode: u8, lba: u32, len: usize) -> [u8; 10] {
    let l = lba.to_be_bytes();
    let n = ((len / 512) as u16).to_be_bytes();
    [opcode, 0, l[0], l[1], l[2], l[3], 0, n[0], n[1], 0]
}

/// Bytes that differ from block to block and from seed to seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A guest whose verified writes and reads run on a thread of its own, several at once, while the test does something to
/// somebody else.
pub struct VerifiedIo {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    /// The longest that a batch of commands took, in µs: since it was last taken, and ever.
    longest: Arc<[AtomicU64; 2]>,
    thread: Option<JoinHandle<Guest>>,
}

impl VerifiedIo {
    /// On blocks that nobody else uses: from 32 MiB on.
    pub fn start(mut guest: Guest) -> VerifiedIo {
        const FIRST_LBA: u32 = 65536;
        const DEPTH: usize = 8;
        const LEN: usize = 8192;
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&rounds));
        let longest: Arc<[AtomicU64; 2]> = Arc::default();
        let slowest = Arc::clone(&longest);
        let thread = std::thread::spawn(move || {
            let slots: Vec<[u64; 3]> = (0..DEPTH)
                .map(|_| {
                    [guest.ram.alloc(HEADER.into()), guest.ram.alloc(RESPONSE.into()), guest.ram.alloc(LEN as u64)]
                })
                .collect();
            while !stopped.load(Ordering::Relaxed) {
                let round = counter.load(Ordering::Relaxed);
                for opcode in [0x2a, 0x28] {
                    let start = Instant::now();
                    for (i, &[header, response, data]) in slots.iter().enumerate() {
                        let lba = FIRST_LBA + i as u32 * 64;
                        let cdb = rw10(opcode, lba, LEN);
                        if opcode == 0x2a {
                            guest.ram.write(data, &pattern(round * 100 + i as u64, LEN));
                            guest.submit_at(REQUESTS, header, response, &cdb, &[Buffer::out(data, LEN as u32)], &[]);
                        } else {
                            guest.ram.write(data, &[0; LEN]);
                            guest.submit_at(REQUESTS, header, response, &cdb, &[], &[Buffer::input(data, LEN as u32)]);
                        }
                    }
                    for _ in 0..DEPTH {
                        guest.queue(REQUESTS).wait_used(BOUND).expect("the other guest's command is answered");
                    }
                    let took = start.elapsed().as_micros() as u64;
                    for longest in slowest.iter() {
                        longest.fetch_max(took, Ordering::Relaxed);
                    }
                    for (i, &[_, response, data]) in slots.iter().enumerate() {
                        let answer = guest.parse_response(response, 0);
                        assert!(answer.good(), "round {round}, slot {i}: {answer:?}");
                        let expected = pattern(round * 100 + i as u64, LEN);
                        assert!(guest.ram.read(data, LEN) == expected, "round {round}, slot {i}: wrong data");
                    }
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
            guest
        });
        VerifiedIo { stop, rounds, longest, thread: Some(thread) }
    }

    /// Waits until at least one more round that began after this call has been verified: I/O goes on.
    pub fn assert_goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        eventually("the other guest's I/O goes on", || {
            assert!(!self.thread.as_ref().is_some_and(JoinHandle::is_finished), "the other guest's I/O failed");
            self.rounds.load(Ordering::Relaxed) >= before + 2
        });
    }

    /// The longest that commands took since this was called last.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest[0].swap(0, Ordering::Relaxed))
    }

    /// The longest that commands ever took.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest[1].load(Ordering::Relaxed))
    }

    pub fn finish(mut self) -> Guest {
        self.assert_goes_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("the other guest's I/O was undisturbed")
    }
}

/// Raw set-up in place of the crate's front-end, for orders that it does not allow.
pub fn raw(path: &Path, ram: &Ram) -> Guest {
    let guest = Guest::connect(path, ram.clone());
    guest.wire.barrier();
    guest
}

/// Waits for an acknowledgement that says failure, or for the end of the connection.
pub fn assert_refused(guest: &Guest, request: vhost::vhost_user::message::FrontendReq, body: &[u8], fds: &[i32]) {
    assert_eq!(guest.wire.acked(request, body, fds), 1, "{request:?} is refused");
    guest.wire.assert_closed();
}

/// A moment for things that must not happen.
pub const A_MOMENT: Duration = Duration::from_millis(150);

pub use vhost::vhost_user::message::FrontendReq;
