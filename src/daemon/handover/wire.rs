//! What the two processes say to each other.
//!
//! A message is sixteen bytes of header, the same in all versions, then its payload; numbers are little-endian. A
//! descriptor comes with the header.
//!
//! | bytes | |
//! |---|---|
//! | 0–3 | `vsHO` |
//! | 4–7 | version of the payloads |
//! | 8–11 | which message |
//! | 12–15 | bytes of payload |

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// The version that this program speaks.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 4] = *b"vsHO";
const HEADER: usize = 16;

/// The longest payload: the paths of more sockets than a process has descriptors for.
const MAX_PAYLOAD: usize = 16 << 20;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Successor: offer me the sockets with these paths, and your own.
    Ask(Vec<PathBuf>),
    /// Predecessor: no, and why.
    Refused(String),
    /// Predecessor: a listening socket, its descriptor with it.
    Listener {
        /// Its path.
        path: PathBuf,
        /// Device and inode of its file, if the predecessor would remove it.
        file: Option<(u64, u64)>,
        /// Whether it is the handover socket.
        handover: bool,
    },
    /// Predecessor: these were all; there are others, which were not asked for.
    Offered {
        /// Its process. (What the kernel tells of the other end of a connection is who listened first.)
        pid: u32,
        /// Their paths.
        others: Vec<PathBuf>,
    },
    /// Successor: end now, they are mine.
    Commit,
    /// Predecessor: a connection to the socket with this path that has said nothing yet, its descriptor with it.
    Connection(PathBuf),
    /// Predecessor: everything is written and closed. False: commands of guests have not ended, and may be on their way to
    /// a disk that hangs.
    Ended(bool),
}

/// What was read.
#[derive(Debug)]
pub(super) enum Received {
    /// A message, and a descriptor if one came with it.
    Message(Message, Option<OwnedFd>),
    /// The other end speaks this version.
    Version(u32),
    /// The other end is closed.
    Closed,
}

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Link(UnixStream);

impl Link {
    pub(super) fn new(stream: UnixStream) -> Link {
        Link(stream)
    }

    /// How long the next reads and writes may take, each.
    pub(super) fn set_bound(&self, bound: Duration) -> io::Result<()> {
        // Zero would be for ever.
        let bound = Some(bound.max(Duration::from_millis(1)));
        self.0.set_read_timeout(bound)?;
        self.0.set_write_timeout(bound)
    }

    /// Sends a message.
    pub(super) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_as(VERSION, message, fd)
    }

    /// Sends a message, saying that it is of this version.
    pub(super) fn send_as(&self, version: u32, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let (kind, payload) = encode(message);
        let length = u32::try_from(payload.len()).map_err(|_| invalid("too long"))?;
        let mut header = MAGIC.to_vec();
        [version, kind, length].iter().for_each(|field| header.extend_from_slice(&field.to_le_bytes()));
        header.extend_from_slice(&payload);
        let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        // In one go, so that who waits with a bound finds it whole. A descriptor goes with the first byte.
        let sent = loop {
            match self.0.send_with_fds(&[header.as_slice()], &fds).map_err(|e| io::Error::from_raw_os_error(e.errno()))
            {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                sent => break sent?,
            }
        };
        (&self.0).write_all(header.get(sent..).unwrap_or_default())
    }

    /// Receives a message.
    ///
    /// # Errors
    ///
    /// What came is no message, or came too late ([`ErrorKind::WouldBlock`]).
    pub(super) fn receive(&self) -> io::Result<Received> {
        let mut header = [0u8; HEADER];
        let (got, fd) = loop {
            match self.0.recv_with_fd(&mut header).map_err(|e| io::Error::from_raw_os_error(e.errno())) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // It was closed with something of ours unread.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(Received::Closed),
                received => break received?,
            }
        };
        if got == 0 {
            return Ok(Received::Closed);
        }
        let rest = header.get_mut(got..).unwrap_or_default();
        (&self.0).read_exact(rest)?;
        let field = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b));
        if header.get(..4) != Some(&MAGIC) {
            return Err(invalid("no handover message"));
        }
        let (version, kind, length) = (field(4), field(8), field(12) as usize);
        if length > MAX_PAYLOAD {
            return Err(invalid("a message too long"));
        }
        let mut payload = vec![0; length];
        (&self.0).read_exact(&mut payload)?;
        if version != VERSION {
            return Ok(Received::Version(version));
        }
        let message = decode(kind, &payload).ok_or_else(|| invalid("a message that makes no sense"))?;
        Ok(Received::Message(message, fd.map(OwnedFd::from)))
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn encode(message: &Message) -> (u32, Vec<u8>) {
    match message {
        Message::Ask(paths) => (1, list(paths)),
        Message::Refused(why) => (2, why.as_bytes().to_vec()),
        Message::Listener { path, file, handover } => {
            let (device, inode) = file.unwrap_or_default();
            let mut payload = vec![u8::from(file.is_some()), u8::from(*handover)];
            payload.extend_from_slice(&device.to_le_bytes());
            payload.extend_from_slice(&inode.to_le_bytes());
            payload.extend_from_slice(path.as_os_str().as_bytes());
            (3, payload)
        }
        Message::Offered { pid, others } => (4, [pid.to_le_bytes().to_vec(), list(others)].concat()),
        Message::Commit => (5, Vec::new()),
        Message::Connection(path) => (6, path.as_os_str().as_bytes().to_vec()),
        Message::Ended(drained) => (7, vec![u8::from(*drained)]),
    }
}

fn decode(kind: u32, payload: &[u8]) -> Option<Message> {
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    Some(match kind {
        1 => Message::Ask(unlist(payload)),
        2 => Message::Refused(String::from_utf8_lossy(payload).into_owned()),
        3 => {
            let (&[of_us, handover], rest) = payload.split_first_chunk()?;
            let (device, rest) = rest.split_first_chunk()?;
            let (inode, rest) = rest.split_first_chunk()?;
            let file = (of_us == 1).then(|| (u64::from_le_bytes(*device), u64::from_le_bytes(*inode)));
            Message::Listener { path: path(rest), file, handover: handover == 1 }
        }
        4 => {
            let (pid, others) = payload.split_first_chunk()?;
            Message::Offered { pid: u32::from_le_bytes(*pid), others: unlist(others) }
        }
        5 => Message::Commit,
        6 => Message::Connection(path(payload)),
        7 => Message::Ended(payload.first()? == &1),
        _ => return None,
    })
}

/// Paths, each with a zero byte behind it.
fn list(paths: &[PathBuf]) -> Vec<u8> {
    paths.iter().flat_map(|path: &PathBuf| with_zero(path)).collect()
}

fn with_zero(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn unlist(bytes: &[u8]) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        bytes.split(|byte| *byte == 0).map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))).collect();
    // Behind the last zero there is nothing.
    paths.pop();
    paths
}
