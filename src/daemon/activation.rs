//! Sockets that the service manager opened before it started this process (`sd_listen_fds(3)`).
//!
//! # Contract
//!
//! * Descriptors 3 and up are ours if `LISTEN_PID` is this process; `LISTEN_FDS` says how many, `LISTEN_FDNAMES` how they are called.
//! * A `--socket-path` takes the socket that is bound to its path; `--fd NAME` the one of that name, `--fd N` the one of that number.
//!   One that nothing takes is an error: front-ends would connect to it and wait for ever.
//! * Their socket files are the service manager's, and stay when the process ends.

use std::env;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::handover::key;
use crate::sys::{fd, unix_socket};

/// The first descriptor that is passed.
const FIRST: RawFd = 3;

/// Why what was passed cannot be used, in one line for the person who configured it.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// The variables make no sense.
    #[error("LISTEN_FDS={count}: {what}")]
    Variables {
        /// `LISTEN_FDS`.
        count: String,
        /// What is wrong.
        what: String,
    },
    /// A descriptor is not there, or no socket.
    #[error("LISTEN_FDS: descriptor {number} ({name}): {what}")]
    Descriptor {
        /// Its number.
        number: RawFd,
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Nothing takes it.
    #[error(
        "LISTEN_FDS: descriptor {number} ({name}{bound}) was passed, and no --socket-path has its path, and no --fd its name or number"
    )]
    Unused {
        /// Its number.
        number: RawFd,
        /// Its name.
        name: String,
        /// Where it is bound.
        bound: String,
    },
    /// A name that no descriptor has.
    #[error("--fd {name}: the service manager passed no socket of this name{others}")]
    Missing {
        /// The name.
        name: String,
        /// Those that it passed.
        others: String,
    },
}

/// A socket that was passed.
#[derive(Debug)]
struct Passed {
    number: RawFd,
    name: String,
    /// Its [`key`].
    path: Option<PathBuf>,
    socket: OwnedFd,
}

/// The sockets that were passed and nothing has taken yet.
#[derive(Debug, Default)]
pub(super) struct Activation(Vec<Passed>);

impl Activation {
    /// Takes what was passed to this process. To be called before it opens descriptors.
    ///
    /// # Errors
    ///
    /// The variables make no sense, or a descriptor is not as they say.
    pub(super) fn from_environment() -> Result<Activation, ActivationError> {
        let variable = |name| env::var(name).ok();
        let names = names(
            variable("LISTEN_PID").as_deref(),
            variable("LISTEN_FDS").as_deref(),
            variable("LISTEN_FDNAMES").as_deref(),
            std::process::id(),
        )?;
        let passed = (FIRST..).zip(names).map(|(number, name)| {
            let wrong =
                |e: std::io::Error| ActivationError::Descriptor { number, name: name.clone(), what: e.to_string() };
            let socket = fd::take_inherited(number).map_err(wrong)?;
            let path = unix_socket::bound_path(&socket).map_err(wrong)?.map(|path| key(&path));
            Ok(Passed { number, name, path, socket })
        });
        passed.collect::<Result<_, _>>().map(Activation)
    }

    /// The socket that is bound to this path.
    pub(super) fn by_path(&mut self, path: &Path) -> Option<OwnedFd> {
        let path = key(path);
        self.take(|passed| passed.path.as_ref() == Some(&path))
    }

    /// The one with this number.
    pub(super) fn by_number(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.take(|passed| passed.number == number)
    }

    /// The one of this name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn by_name(&mut self, name: &str) -> Result<OwnedFd, ActivationError> {
        let others: Vec<_> = self.0.iter().map(|passed| passed.name.clone()).collect();
        let others = if others.is_empty() { String::new() } else { format!(" (but: {})", others.join(", ")) };
        let missing = || ActivationError::Missing { name: name.to_owned(), others };
        self.take(|passed| passed.name == name).ok_or_else(missing)
    }

    fn take(&mut self, is_it: impl Fn(&Passed) -> bool) -> Option<OwnedFd> {
        let at = self.0.iter().position(is_it)?;
        Some(self.0.remove(at).socket)
    }

    /// Everything was taken.
    ///
    /// # Errors
    ///
    /// Something was not.
    pub(super) fn finish(self) -> Result<(), ActivationError> {
        let Some(Passed { number, name, path, .. }) = self.0.into_iter().next() else { return Ok(()) };
        let bound = path.map_or_else(String::new, |path| format!(", {}", path.display()));
        Err(ActivationError::Unused { number, name, bound })
    }
}

/// The names of the descriptors, in their order; none if they are another process's.
fn names(pid: Option<&str>, count: Option<&str>, names: Option<&str>, us: u32) -> Result<Vec<String>, ActivationError> {
    let Some(text) = count else { return Ok(Vec::new()) };
    // Inherited from somebody they were meant for.
    if pid.and_then(|pid| pid.parse().ok()) != Some(us) {
        return Ok(Vec::new());
    }
    let wrong = |what: String| ActivationError::Variables { count: text.to_owned(), what };
    let count = text.parse::<u16>().map_err(|_| wrong("must be a number of descriptors".into()))?;
    let names: Vec<&str> = names.map(|names| names.split(':').collect()).unwrap_or_default();
    if !names.is_empty() && names.len() != usize::from(count) {
        return Err(wrong(format!("LISTEN_FDNAMES has {} names", names.len())));
    }
    let name = |at: usize| names.get(at).copied().unwrap_or("unknown").to_owned();
    Ok((0..usize::from(count)).map(name).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn variables_of_others_are_not_ours() {
        let none: Vec<String> = Vec::new();
        assert_eq!(names(Some("5"), None, None, 5).unwrap(), none);
        assert_eq!(names(Some("6"), Some("2"), Some("a:b"), 5).unwrap(), none);
        assert_eq!(names(None, Some("2"), Some("a:b"), 5).unwrap(), none);
        assert_eq!(names(Some("5"), Some("2"), Some("a:b"), 5).unwrap(), ["a", "b"]);
        assert_eq!(names(Some("5"), Some("2"), None, 5).unwrap(), ["unknown", "unknown"]);
        let error = |count, given| names(Some("5"), Some(count), Some(given), 5).unwrap_err().to_string();
        assert_eq!(error("2", "a"), "LISTEN_FDS=2: LISTEN_FDNAMES has 1 names");
        assert_eq!(error("-1", "a"), "LISTEN_FDS=-1: must be a number of descriptors");
    }

    fn passed(number: RawFd, name: &str, path: &Path) -> Passed {
        let socket = OwnedFd::from(UnixListener::bind(path).unwrap());
        let bound = unix_socket::bound_path(&socket).unwrap().map(|path| key(&path));
        Passed { number, name: name.into(), path: bound, socket }
    }

    #[test]
    fn sockets_go_to_whom_they_are_meant_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        let [a, b, c, d] = ["a", "b", "c", "d"].map(path);
        let all = vec![passed(3, "x", &a), passed(4, "y", &b), passed(5, "y", &c), passed(6, "z", &d)];
        let mut activation = Activation(all);
        // By another way to the same directory.
        assert!(activation.by_path(&dir.path().join(".").join("a")).is_some());
        assert!(activation.by_path(&a).is_none());
        let bound = |socket: OwnedFd| unix_socket::bound_path(&socket).unwrap().unwrap();
        assert_eq!(bound(activation.by_name("y").unwrap()), b);
        assert_eq!(bound(activation.by_number(5).unwrap()), c);
        let missing = activation.by_name("w").unwrap_err().to_string();
        assert_eq!(missing, "--fd w: the service manager passed no socket of this name (but: z)");
        let unused = activation.finish().unwrap_err().to_string();
        assert!(unused.contains("descriptor 6 (z, ") && unused.contains("/d) was passed"), "{unused}");
        assert!(Activation::default().finish().is_ok());
    }
}
