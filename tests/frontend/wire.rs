//! vhost-user messages as bytes, for what a well-behaved front-end library cannot send, or not in this order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

pub const NEED_REPLY: u32 = 8;
pub const VERSION: u32 = 1;

/// VHOST_USER_F_PROTOCOL_FEATURES.
pub const PROTOCOL: u64 = 1 << 30;
pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
/// VHOST_F_LOG_ALL.
pub const LOG_ALL: u64 = 1 << 26;
/// MQ, LOG_SHMFD, REPLY_ACK, RESET_DEVICE, CONFIGURE_MEM_SLOTS.
pub const PROTOCOL_BITS: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 13 | 1 << 15;

/// One region of a memory table, as on the wire.
#[derive(Clone, Copy, Debug)]
pub struct WireRegion {
    pub guest: u64,
    pub size: u64,
    pub user: u64,
    pub offset: u64,
}

impl WireRegion {
    fn bytes(&self) -> Vec<u8> {
        [self.guest, self.size, self.user, self.offset].iter().flat_map(|field| field.to_ne_bytes()).collect()
    }
}

/// The front-end's end of a connection.
pub struct Wire(pub UnixStream);

impl Wire {
    pub fn new(stream: UnixStream) -> Wire {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Wire(stream)
    }

    /// Sends a message; an error means that the other side has closed.
    pub fn try_send(&self, code: u32, flags: u32, body: &[u8], fds: &[RawFd]) -> Result<(), ()> {
        let mut message = Vec::new();
        for field in [code, flags, body.len() as u32] {
            message.extend_from_slice(&field.to_ne_bytes());
        }
        message.extend_from_slice(body);
        let sent = self.0.send_with_fds(&[message.as_slice()], fds).map_err(|_| ())?;
        if sent == message.len() { Ok(()) } else { Err(()) }
    }

    pub fn send(&self, request: FrontendReq, body: &[u8], fds: &[RawFd]) {
        self.try_send(request as u32, VERSION, body, fds).expect("connection is open");
    }

    /// Sends a message that asks for an acknowledgement, and returns it: 0 is success.
    pub fn acked(&self, request: FrontendReq, body: &[u8], fds: &[RawFd]) -> u64 {
        self.try_send(request as u32, VERSION | NEED_REPLY, body, fds).expect("connection is open");
        self.reply_u64(request)
    }

    pub fn reply(&self, request: FrontendReq) -> Vec<u8> {
        let mut header = [0u8; 12];
        (&self.0).read_exact(&mut header).expect("an answer");
        let field = |i: usize| u32::from_ne_bytes(header[4 * i..4 * i + 4].try_into().unwrap());
        assert_eq!(field(0), request as u32);
        assert_eq!(field(1) & 7, VERSION | 4, "flags of an answer");
        let mut body = vec![0u8; field(2) as usize];
        (&self.0).read_exact(&mut body).expect("an answer's payload");
        body
    }

    pub fn reply_u64(&self, request: FrontendReq) -> u64 {
        u64::from_ne_bytes(self.reply(request).try_into().unwrap())
    }

    pub fn get(&self, request: FrontendReq) -> u64 {
        self.send(request, &[], &[]);
        self.reply_u64(request)
    }

    /// GET_FEATURES used as a barrier: everything sent before has been handled when it returns.
    pub fn barrier(&self) {
        self.get(FrontendReq::GET_FEATURES);
    }

    pub fn set_u64(&self, request: FrontendReq, value: u64) {
        self.send(request, &value.to_ne_bytes(), &[]);
    }

    pub fn state(index: u32, num: u32) -> [u8; 8] {
        let mut body = [0u8; 8];
        body[..4].copy_from_slice(&index.to_ne_bytes());
        body[4..].copy_from_slice(&num.to_ne_bytes());
        body
    }

    pub fn set_state(&self, request: FrontendReq, index: u32, num: u32) {
        self.send(request, &Wire::state(index, num), &[]);
    }

    pub fn addr(index: u32, flags: u32, desc: u64, used: u64, avail: u64) -> Vec<u8> {
        Wire::addr_logged(index, flags, desc, used, avail, 0)
    }

    /// With the address at which the used ring is logged.
    pub fn addr_logged(index: u32, flags: u32, desc: u64, used: u64, avail: u64, log: u64) -> Vec<u8> {
        let mut body = [index.to_ne_bytes(), flags.to_ne_bytes()].concat();
        for field in [desc, used, avail, log] {
            body.extend_from_slice(&field.to_ne_bytes());
        }
        body
    }

    /// SET_LOG_BASE: so many bytes of the file from the offset on; waits for the answer.
    pub fn set_log_base(&self, size: u64, offset: u64, fd: RawFd) {
        let body = [size.to_ne_bytes(), offset.to_ne_bytes()].concat();
        self.send(FrontendReq::SET_LOG_BASE, &body, &[fd]);
        self.reply(FrontendReq::SET_LOG_BASE);
    }

    /// SET_VRING_KICK, _CALL or _ERR.
    pub fn event(&self, request: FrontendReq, index: u8, fd: Option<&dyn AsRawFd>) {
        let fds: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let value = u64::from(index) | if fds.is_empty() { 0x100 } else { 0 };
        self.send(request, &value.to_ne_bytes(), &fds);
    }

    pub fn get_base(&self, index: u32) -> u32 {
        self.send(FrontendReq::GET_VRING_BASE, &Wire::state(index, 0), &[]);
        let body = self.reply(FrontendReq::GET_VRING_BASE);
        u32::from_ne_bytes(body[4..8].try_into().unwrap())
    }

    pub fn table(regions: &[WireRegion]) -> Vec<u8> {
        let mut body = (regions.len() as u64).to_ne_bytes().to_vec();
        regions.iter().for_each(|region| body.extend(region.bytes()));
        body
    }

    pub fn single(region: &WireRegion) -> Vec<u8> {
        [0u64.to_ne_bytes().to_vec(), region.bytes()].concat()
    }

    /// Waits until the other side has closed the connection; whatever it still sends is dropped.
    pub fn assert_closed(&self) {
        let mut buf = [0u8; 256];
        loop {
            match (&self.0).read(&mut buf) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return,
                Err(e) => panic!("the connection was not closed: {e}"),
            }
        }
    }
}
