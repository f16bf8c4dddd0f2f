use super::*;
use crate::backing::{OpenOptions, open};

/// Two opens of one image in one process: locks are the open file's, so that they exclude each other as two processes would.
fn options(path: &Path, read_only: bool) -> OpenOptions {
    OpenOptions { read_only, patience: Duration::ZERO, ..OpenOptions::new(path) }
}

fn image() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    file
}

/// The bytes, of those that matter, that others have locked.
fn locked(path: &Path) -> Vec<u64> {
    let file = File::open(path).unwrap();
    let bytes = (USED..USED + 8).chain(UNSHARED..UNSHARED + 8);
    bytes.filter(|byte| file::locked_elsewhere(&file, &[*byte]).unwrap().is_some()).collect()
}

#[test]
fn the_bytes_are_those_of_qemus_disks() {
    let file = image();
    let writable = open(&options(file.path(), false)).unwrap();
    assert_eq!(locked(file.path()), [100, 101, 201]);
    drop(writable);
    assert_eq!(locked(file.path()), [0; 0]);
    let read_only = open(&options(file.path(), true)).unwrap();
    assert_eq!(locked(file.path()), [100, 201]);
    drop(read_only);
    let off = open(&OpenOptions { locking: Locking::Off, ..options(file.path(), false) }).unwrap();
    assert_eq!(locked(file.path()), [0; 0]);
    drop(off);
}

#[test]
fn a_writer_is_alone_and_readers_share() {
    let file = image();
    let refused = |read_only| {
        let error = open(&options(file.path(), read_only)).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        error.to_string()
    };
    let writer = open(&options(file.path(), false)).unwrap();
    refused(false);
    assert!(refused(true).contains("another program writes it"));
    drop(writer);
    let readers = [(); 3].map(|()| open(&options(file.path(), true)).unwrap());
    assert!(refused(false).contains("does not let it be written"));
    // Who was refused left no locks behind.
    assert_eq!(locked(file.path()), [100, 201]);
    drop(readers);
    open(&options(file.path(), false)).unwrap();
}

#[test]
fn whoever_is_refused_gives_back_what_it_took() {
    let file = image();
    let writer = open(&options(file.path(), false)).unwrap();
    let second = File::options().read(true).write(true).open(file.path()).unwrap();
    assert_eq!(Lock::new(false).take(&second).unwrap(), Taken::InUse(Use::Writes));
    drop(writer);
    assert_eq!(locked(file.path()), [0; 0]);
    assert_eq!(Lock::new(false).take(&second).unwrap(), Taken::Yes);
    assert_eq!(locked(file.path()), [100, 101, 201]);
    Lock::new(false).release(&second).unwrap();
    assert_eq!(locked(file.path()), [0; 0]);
}

/// Somebody who reads, shares all (QEMU's `file.locking` with `share-rw`), or keeps others from a permission that is not used here.
#[test]
fn locks_that_do_not_concern_a_unit_do_not_stop_it() {
    let file = image();
    let other = File::open(file.path()).unwrap();
    for (bytes, writable, readable) in [
        (vec![USED + CONSISTENT_READ], true, true),
        (vec![USED + 2, UNSHARED + 3], true, true),
        (vec![UNSHARED + WRITE], false, true),
        (vec![USED + WRITE], false, false),
        (vec![UNSHARED + CONSISTENT_READ], false, false),
    ] {
        assert!(file::lock_bytes_shared(&other, &bytes).unwrap());
        assert_eq!(open(&options(file.path(), false)).is_ok(), writable, "{bytes:?}");
        assert_eq!(open(&options(file.path(), true)).is_ok(), readable, "{bytes:?}");
        Lock::new(false).release(&other).unwrap();
    }
}

#[test]
fn it_waits_for_whoever_goes_in_time() {
    let file = image();
    let writer = open(&options(file.path(), false)).unwrap();
    let (started, patience) = (Instant::now(), Duration::from_millis(100));
    let impatient = OpenOptions { patience, ..options(file.path(), false) };
    open(&impatient).unwrap_err();
    assert!(started.elapsed() >= patience);
    let last = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(writer);
    });
    open(&OpenOptions { patience: Duration::from_secs(60), ..options(file.path(), false) }).unwrap();
    last.join().unwrap();
}

#[test]
fn locks_of_a_descriptor_are_recognized() {
    let line = "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:10051672 100 101";
    assert!(is_lock_of(line, 10_051_672));
    assert!(!is_lock_of(line, 672));
    assert!(is_lock_of("lock:\t2: OFDLCK ADVISORY  READ -1 fe:00:7 201 201", 7));
    // Whole files are locked to and fro by all sorts of programs, and other bytes by libvirt.
    for other in [
        "lock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:00:7 0 EOF",
        "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:7 0 0",
        "pos:\t100",
        "lock:",
    ] {
        assert!(!is_lock_of(other, 7), "{other}");
    }
}

#[test]
fn whoever_can_be_named_is_named() {
    assert_eq!(Who(Vec::new()).to_string(), "another program");
    let who = Who(vec!["qemu-system-x86 (process 12)".into(), "vstgt (process 13)".into()]);
    assert_eq!(who.to_string(), "qemu-system-x86 (process 12), vstgt (process 13)");
    // This very process holds the lock, and is not who is looked for.
    let file = image();
    let _writer = open(&options(file.path(), false)).unwrap();
    assert_eq!(holders(file.as_file()), Vec::<String>::new());
    assert!(has_locked(std::process::id(), file.as_file().metadata().unwrap().ino()));
}

#[test]
fn file_systems_without_locks() {
    for errno in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL] {
        assert!(cannot(&io::Error::from_raw_os_error(errno)));
    }
    assert!(!cannot(&io::Error::from_raw_os_error(libc::EIO)));
}
