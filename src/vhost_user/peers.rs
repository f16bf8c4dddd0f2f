//! Who may connect: the users whose processes are served.

use std::os::unix::net::UnixStream;

use crate::sys::unix_socket;

/// Whose processes may connect. A socket's permissions say who can; this holds also where those are not ours to set (descriptors that we were started
/// with), and for who was given a descriptor of the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peers {
    /// Whoever can.
    #[default]
    Anybody,
    /// Processes of these users, by number. Root is no exception.
    Users(Vec<u32>),
}

impl Peers {
    /// Says why the process at the other end may not be served. Asked before anything is read from it: the kernel knows whose it was when it
    /// connected (`SO_PEERCRED`).
    pub(super) fn refuse(&self, stream: &UnixStream) -> Option<String> {
        let Peers::Users(users) = self else { return None };
        match unix_socket::peer_user(stream) {
            Ok(user) if users.contains(&user) => None,
            Ok(user) => Some(format!("user {user} may not connect (see --allow-uid)")),
            Err(error) => Some(format!("it is not known who connects: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_served_who_is_listed() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let user = unix_socket::peer_user(&ours).unwrap();
        assert_eq!(Peers::Anybody.refuse(&ours), None);
        assert_eq!(Peers::Users(vec![user + 1, user]).refuse(&ours), None);
        let why = Peers::Users(vec![user + 1, user + 2]).refuse(&ours).unwrap();
        assert!(why.contains(&format!("user {user} ")), "{why}");
    }
}
