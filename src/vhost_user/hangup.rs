//! Ending a connection from outside its session.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Ends one connection: whoever finds that it cannot go on (a guest's memory that went away) says so here, and the
/// session sees its socket closed. Cloned freely; a clone keeps the socket's descriptor open, not the connection.
#[derive(Clone, Debug)]
pub struct Hangup {
    stream: Arc<UnixStream>,
}

impl Hangup {
    /// For the connection of which `stream` is a duplicate.
    pub fn new(stream: UnixStream) -> Hangup {
        Hangup { stream: Arc::new(stream) }
    }

    /// Ends the connection. Doing it again does nothing.
    pub fn hang_up(&self) {
        if let Err(e) = self.stream.shutdown(Shutdown::Both) {
            log::debug!("the connection was over already: {e}");
        }
    }
}
