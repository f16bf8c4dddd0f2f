//! Who can connect to the sockets of a real `vstgt`: their files' mode and group, and the users that are let in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]
#![allow(unsafe_code, reason = "threads that become other users")]

mod frontend;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use frontend::{BOUND, Vstgt, eventually};

/// Users and a group that need not exist.
const ALICE: u32 = 64_001;
const BOB: u32 = 64_002;
const GROUP: u32 = 64_003;

fn us() -> u32 {
    // SAFETY: a query without memory.
    unsafe { libc::geteuid() }
}

/// Does something as another user, on a thread that becomes that user: the system call itself, unlike the C library's function, changes the
/// calling thread only.
fn as_user<T: Send>(user: u32, group: u32, deed: impl FnOnce() -> T + Send) -> T {
    let become_other = move || {
        if user != us() {
            // SAFETY: integers, and an empty list of groups.
            let results = unsafe {
                [
                    libc::syscall(libc::SYS_setgroups, 0, 0),
                    libc::syscall(libc::SYS_setresgid, group, group, group),
                    libc::syscall(libc::SYS_setresuid, user, user, user),
                ]
            };
            assert_eq!(results, [0; 3]);
        }
        deed()
    };
    std::thread::scope(|scope| scope.spawn(become_other).join().unwrap())
}

/// A thread that becomes another user takes the whole test with it if that user may not open what it needs.
fn open_to_all(vstgt: &Vstgt) {
    fs::set_permissions(vstgt.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether GET_FEATURES is answered on this connection; false: it was closed.
fn is_served(mut stream: UnixStream) -> bool {
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let request: Vec<u8> = [1u32, 1, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut reply = [0; 20];
    let answered = stream.write_all(&request).and_then(|()| stream.read_exact(&mut reply));
    match answered.map_err(|e| e.kind()) {
        Ok(()) => true,
        Err(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => false,
        Err(e) => panic!("neither served nor closed: {e}"),
    }
}

/// Mode, group and owner of a socket file.
fn of_file(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.permissions().mode() & 0o7777, meta.gid(), meta.uid())
}

/// With a umask that takes nothing away.
fn bare(command: &mut Command) -> &mut Command {
    // SAFETY: umask is async-signal-safe and takes an integer.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0);
            Ok(())
        })
    }
}

#[test]
fn sockets_are_their_owners_only() {
    let vstgt = Vstgt::start_with(2, |command| {
        bare(command);
    });
    open_to_all(&vstgt);
    for socket in [vstgt.socket(0), vstgt.socket(1)] {
        let (mode, _, owner) = of_file(socket);
        assert_eq!((mode, owner), (0o600, us()));
    }
    if us() == 0 {
        let socket = vstgt.socket(0);
        let refused = as_user(ALICE, GROUP, || UnixStream::connect(socket)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
    assert!(is_served(UnixStream::connect(vstgt.socket(0)).unwrap()));
    vstgt.stop();
}

#[test]
fn mode_and_group_are_those_asked_for() {
    let group = if us() == 0 { GROUP } else { fs::metadata("/proc/self").unwrap().gid() };
    let vstgt = Vstgt::start_with(1, |command| {
        bare(command).args(["--socket-group", &group.to_string()]);
        let own = frontend::process::socket_path(Path::new(command_dir(command)), 1);
        command.arg("--socket-path").arg(format!("{},mode=0622", own.display()));
    });
    open_to_all(&vstgt);
    let second = frontend::process::socket_path(vstgt.dir.path(), 1);
    assert_eq!(of_file(vstgt.socket(0)), (0o660, group, us()));
    eventually("the second socket is there", || second.exists());
    assert_eq!(of_file(&second), (0o622, group, us()));
    if us() == 0 {
        let (first, second) = (vstgt.socket(0), second.as_path());
        let connect = |user, group, socket: &Path| as_user(user, group, || UnixStream::connect(socket).map(is_served));
        assert!(connect(ALICE, GROUP, first).unwrap());
        assert_eq!(connect(ALICE, BOB, first).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(connect(ALICE, BOB, second).unwrap());
    }
    vstgt.stop();
}

/// The directory of the image that a command names.
fn command_dir(command: &Command) -> &str {
    let image = command.get_args().find(|word| word.to_string_lossy().ends_with("disk.img")).unwrap();
    Path::new(image).parent().unwrap().to_str().unwrap()
}

/// A mode that the umask takes something from is given all the same, at the time the socket listens.
#[test]
fn the_umask_does_not_narrow_it() {
    let vstgt = Vstgt::start_with(1, |command| {
        // SAFETY: umask is async-signal-safe and takes an integer.
        unsafe {
            command.pre_exec(|| {
                libc::umask(0o077);
                Ok(())
            })
        };
        command.args(["--socket-mode", "0666"]);
    });
    assert_eq!(of_file(vstgt.socket(0)).0, 0o666);
    vstgt.stop();
}

#[test]
fn users_that_are_not_listed_are_closed() {
    let other = us() + 1;
    let vstgt = Vstgt::start_with(1, |command| {
        command.args(["--socket-mode", "0666", "--allow-uid", &other.to_string(), "--allow-uid", &ALICE.to_string()]);
    });
    open_to_all(&vstgt);
    let socket = vstgt.socket(0);
    for _ in 0..50 {
        assert!(!is_served(UnixStream::connect(socket).unwrap()));
    }
    let log = vstgt.log();
    let said = log.lines().filter(|line| line.contains(&format!("user {} may not connect", us()))).count();
    assert!((1..=10).contains(&said), "said, and not fifty times: {log}");
    if us() == 0 {
        assert!(as_user(ALICE, GROUP, || is_served(UnixStream::connect(socket).unwrap())));
        assert!(!as_user(BOB, GROUP, || is_served(UnixStream::connect(socket).unwrap())));
        // Whoever made the connection counts, not who uses it.
        let of_alice = as_user(ALICE, GROUP, || UnixStream::connect(socket).unwrap());
        assert!(is_served(of_alice));
    }
    vstgt.stop();
}

#[test]
fn so_are_those_on_sockets_that_were_inherited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listening.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let number = listener.as_raw_fd();
    let start = |users: String| {
        Vstgt::start_with(0, |command| {
            // SAFETY: dup2 is async-signal-safe and takes integers.
            unsafe {
                command.pre_exec(move || match libc::dup2(number, 501) {
                    501 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                })
            };
            command.arg("--fd").arg(format!("501{users}"));
        })
    };
    let vstgt = start(format!(",allow-uid={}", us() + 1));
    assert!(!is_served(UnixStream::connect(&path).unwrap()));
    vstgt.stop();
    let vstgt = start(format!(",allow-uid={},allow-uid={}", us() + 1, us()));
    assert!(is_served(UnixStream::connect(&path).unwrap()));
    vstgt.stop();
}

/// A connection that somebody else made before is no way in.
#[test]
fn so_is_a_connection_that_was_inherited() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let number = theirs.as_raw_fd();
    let vstgt = Vstgt::start_with(0, |command| {
        // SAFETY: dup2 is async-signal-safe and takes integers.
        unsafe {
            command.pre_exec(move || match libc::dup2(number, 501) {
                501 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        };
        command.arg("--fd").arg(format!("501,allow-uid={}", us() + 1));
    });
    drop(theirs);
    assert!(!is_served(ours));
    let (status, dir) = vstgt.wait();
    assert!(status.success(), "nobody is left to be served: {status}");
    drop(dir);
}
