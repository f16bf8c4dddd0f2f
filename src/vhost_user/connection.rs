//! One connection's thread: takes messages, lets the session handle them, and says why it ended.
//!
//! The `vhost` crate reads, checks and answers messages. One thing is done before it sees them: SET_VRING_ENABLE is taken out
//! of the stream while VHOST_USER_F_PROTOCOL_FEATURES is not acknowledged, because the crate would end the connection
//! over it. The session remembers it, and it holds when the features come.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error as VhostError, VhostUserBackendReqHandlerMut};

use super::session::Session;
use super::{Device, Hangup};
use crate::sys::rate_limit::RateLimit;
use crate::sys::unix_socket;

/// Bytes of a message header, and of the payload of SET_VRING_ENABLE and of an answer.
const HEADER: usize = 12;
const PAYLOAD: usize = 8;

/// Header flags: protocol version 1, "this is an answer", "an answer is wanted".
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// How often and how long to look for the rest of a message that is taken out of the stream.
const PATIENCE: (u32, Duration) = (1000, Duration::from_millis(1));

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// The front-end closed it between two messages.
    Closed,
    /// A message was bad or could not be served.
    Failed(Message, VhostError),
    /// The socket failed between two messages.
    Socket(io::Error),
}

/// A message's name, for the log.
#[derive(Clone, Copy, Debug)]
struct Message(u32);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match FrontendReq::try_from(self.0) {
            Ok(known) => write!(f, "{known:?}"),
            Err(_) => write!(f, "message {}", self.0),
        }
    }
}

/// Serves a connection until it ends, for whatever reason. The device has been told when this returns, and the
/// stream is closed for the front-end.
pub(super) fn serve(name: &str, hangup: &Hangup, mut device: Box<dyn Device>, limit: &RateLimit) {
    device.connected(hangup.clone());
    let session = Arc::new(Mutex::new(Session::new(name.to_owned(), device)));
    let end = match hangup.stream().try_clone() {
        Ok(stream) => run(hangup, &session, BackendReqHandler::from_stream(stream, Arc::clone(&session))),
        Err(error) => End::Socket(error),
    };
    lock(&session).disconnected();
    hangup.shut_down();
    match (hangup.reason(), end) {
        (Some(reason), _) => limit.warn(format_args!("{name}: connection ended: {reason}")),
        (None, End::Closed) => limit.log(log::Level::Info, format_args!("{name}: front-end disconnected")),
        (None, End::Socket(error)) => limit.warn(format_args!("{name}: connection lost: {error}")),
        (None, End::Failed(message, VhostError::ReqHandlerError(why))) => {
            limit.warn(format_args!("{name}: connection ended: {message} refused: {why}"));
        }
        (None, End::Failed(_, VhostError::PartialMessage)) => {
            limit.warn(format_args!("{name}: connection ended in the middle of a message"));
        }
        (None, End::Failed(message, VhostError::InvalidMessage)) => {
            limit.warn(format_args!("{name}: connection ended: {message} is malformed or not supported"));
        }
        (None, End::Failed(message, why)) => limit.warn(format_args!("{name}: connection ended: {message}: {why}")),
    }
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(hangup: &Hangup, session: &Mutex<Session>, mut handler: BackendReqHandler<Mutex<Session>>) -> End {
    let stream = hangup.stream();
    let mut head = [0u8; HEADER + PAYLOAD];
    loop {
        let n = match unix_socket::peek(stream, &mut head) {
            Ok(0) => return End::Closed,
            Ok(n) => n,
            Err(error) => return End::Socket(error),
        };
        // A header that has not come whole is for the crate to wait for; it then has no name in the log.
        let message = Message(if n >= HEADER { word(&head, 0) } else { 0 });
        let early_enable = n >= HEADER
            && message.0 == u32::from(FrontendReq::SET_VRING_ENABLE)
            && word(&head, 4) & !NEED_REPLY == VERSION
            && word(&head, 8) as usize == PAYLOAD
            && !lock(session).protocol_features_acked();
        let result = if early_enable { enable(stream, session) } else { handler.handle_request() };
        match result {
            Ok(()) if message.0 == u32::from(FrontendReq::SET_FEATURES) => hangup.establish(),
            Ok(()) => {}
            Err(VhostError::Disconnected) => return End::Closed,
            Err(error) => return End::Failed(message, error),
        }
    }
}

/// Takes SET_VRING_ENABLE out of the stream, handles it, and answers as the crate would.
fn enable(mut stream: &UnixStream, session: &Mutex<Session>) -> Result<(), VhostError> {
    let mut message = [0u8; HEADER + PAYLOAD];
    let (looks, pause) = PATIENCE;
    for _ in 0..looks {
        match unix_socket::peek(stream, &mut message).map_err(VhostError::SocketError)? {
            n if n == message.len() => break,
            _ => std::thread::sleep(pause),
        }
    }
    let n = stream.read(&mut message).map_err(VhostError::SocketError)?;
    if n != message.len() {
        return Err(VhostError::PartialMessage);
    }
    let mut session = lock(session);
    let result = match word(&message, HEADER + 4) {
        on @ (0 | 1) => session.set_vring_enable(word(&message, HEADER), on == 1),
        _ => Err(VhostError::InvalidParam),
    };
    if session.reply_ack() && word(&message, 4) & NEED_REPLY != 0 {
        let code = u32::from(FrontendReq::SET_VRING_ENABLE);
        let mut reply = Vec::with_capacity(HEADER + PAYLOAD);
        for field in [code, VERSION | REPLY, PAYLOAD as u32] {
            reply.extend_from_slice(&field.to_ne_bytes());
        }
        reply.extend_from_slice(&u64::from(result.is_err()).to_ne_bytes());
        stream.write_all(&reply).map_err(VhostError::SocketError)?;
    }
    result
}

/// The 32-bit field at this offset, in the host's byte order; 0 where there is none.
fn word(bytes: &[u8], offset: usize) -> u32 {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk::<4>());
    field.map_or(0, |field| u32::from_ne_bytes(*field))
}
