//! Deeds done by a child process that has put up the sandbox around itself.
#![allow(unsafe_code, reason = "forks, and makes system calls by their numbers")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;

use vstgt::sandbox::{Fence, confine};

/// How a deed ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It was done, or refused with this error (0: done).
    Errno(i32),
    /// A signal ended the process.
    Signal(i32),
}

/// How far the child goes before the deed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Confined,
    Sealed,
}

/// Does a deed in a fenced child. What it wrote to standard error comes, too.
pub fn fenced(fence: &Fence, until: Until, deed: impl FnOnce() -> i32) -> (End, String) {
    let mut said = tempfile::tempfile().unwrap();
    // SAFETY: the child does not return from here, and the C library's allocator works in it.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: descriptors by number.
        unsafe { libc::dup2(said.as_raw_fd(), 2) };
        let put_up = confine(fence).and_then(|confined| match until {
            Until::Confined => {
                drop(confined);
                Ok(())
            }
            Until::Sealed => confined.seal(),
        });
        let code = match put_up {
            Ok(()) => deed(),
            Err(e) => {
                // Not by eprintln: the test harness would keep it.
                writeln!(std::io::stderr(), "{e}").unwrap();
                255
            }
        };
        // SAFETY: nothing of the parent's is run at the end of its copy.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: a live place for the status of a child of ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    let end = if libc::WIFEXITED(status) {
        End::Errno(libc::WEXITSTATUS(status))
    } else {
        End::Signal(libc::WTERMSIG(status))
    };
    (end, text(&mut said))
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A system call by its number; gives back its error, 0 for none.
pub fn call(number: i64, arguments: [u64; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: whoever asks passes arguments that the kernel may use, in a child of its own.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

/// The same with fewer arguments.
pub fn call3(number: i64, first: u64, second: u64, third: u64) -> i32 {
    call(number, [first, second, third, 0, 0, 0])
}

/// The error of something that the standard library does, 0 for none.
pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.map_or_else(|e| e.raw_os_error().unwrap_or(254), |_| 0)
}
