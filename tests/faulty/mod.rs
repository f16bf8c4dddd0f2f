//! A file system in this process whose files fail, wait and answer late on command (FUSE). Nothing of it is cached by the kernel: each read and
//! write of `vstgt` comes here.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::ffi::OsStr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};

use crate::frontend::BOUND;

/// Bytes of each file.
pub const SIZE: u64 = 8 << 20;

/// Nothing is remembered by the kernel.
const TTL: Duration = Duration::ZERO;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    /// A write with O_DSYNC.
    DurableWrite,
    Sync,
}

/// What happens to operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Those that reach the bytes are done up to there; one that begins there fails.
    Fail(i32),
    /// The same, but nothing is done of an operation that fails.
    FailWhole(i32),
    /// They wait until they are told how to end.
    Hold,
    /// They are done after this time.
    Delay(Duration),
}

#[derive(Clone, Debug)]
struct Fault {
    file: usize,
    kind: Kind,
    range: Range<u64>,
    then: Then,
}

/// An operation that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub file: usize,
    pub kind: Kind,
    pub offset: u64,
    pub len: u64,
}

enum Reply {
    Read(ReplyData),
    Write(ReplyWrite, Vec<u8>),
    Sync(ReplyEmpty),
}

struct Pending {
    seen: Seen,
    reply: Reply,
}

#[derive(Default)]
struct State {
    files: Vec<Vec<u8>>,
    faults: Vec<Fault>,
    held: Vec<Pending>,
    seen: Vec<Seen>,
}

impl State {
    fn fault(&self, seen: &Seen) -> Option<Fault> {
        let end = seen.offset + seen.len.max(1);
        let hits = |f: &&Fault| {
            f.file == seen.file && f.kind == seen.kind && seen.offset < f.range.end && f.range.start < end
        };
        self.faults.iter().find(hits).cloned()
    }

    /// Does the operation as far as `len` bytes go.
    fn finish(&mut self, pending: Pending, len: u64) {
        let Pending { seen, reply } = pending;
        let file = &mut self.files[seen.file];
        let start = (seen.offset as usize).min(file.len());
        match reply {
            Reply::Read(reply) => {
                let end = (start + len as usize).min(file.len());
                reply.data(&file[start..end]);
            }
            Reply::Write(reply, data) => {
                let data = &data[..len as usize];
                let end = seen.offset as usize + data.len();
                if end > file.len() {
                    file.resize(end, 0);
                }
                file[seen.offset as usize..end].copy_from_slice(data);
                reply.written(data.len() as u32);
            }
            Reply::Sync(reply) => reply.ok(),
        }
    }
}

fn fail(pending: Pending, errno: i32) {
    let errno = Errno::from_i32(errno);
    match pending.reply {
        Reply::Read(reply) => reply.error(errno),
        Reply::Write(reply, _) => reply.error(errno),
        Reply::Sync(reply) => reply.error(errno),
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed must still be able to let everything go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn comes(self: &Arc<Self>, pending: Pending) {
        let mut state = self.lock();
        let seen = pending.seen.clone();
        state.seen.push(seen.clone());
        let Some(fault) = state.fault(&seen) else { return state.finish(pending, seen.len) };
        match fault.then {
            Then::Fail(_) if fault.range.start > seen.offset => {
                state.finish(pending, fault.range.start - seen.offset);
            }
            Then::Fail(errno) | Then::FailWhole(errno) => fail(pending, errno),
            Then::Hold => {
                state.held.push(pending);
                self.changed.notify_all();
            }
            Then::Delay(time) => {
                let shared = Arc::clone(self);
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    shared.lock().finish(pending, seen.len);
                });
            }
        }
    }
}

struct Server(Arc<Shared>);

/// The mounted file system: `0.img`, `1.img` …, each byte of a file its number plus one.
pub struct Faulty {
    shared: Arc<Shared>,
    // Unmounted before the directory is removed.
    _session: BackgroundSession,
    dir: tempfile::TempDir,
}

impl Faulty {
    /// With so many files; `None` where nothing can be mounted, which the test program then says.
    pub fn mount(files: usize) -> Option<Faulty> {
        let dir = tempfile::tempdir().unwrap();
        let state = State { files: (0..files).map(|n| vec![n as u8 + 1; SIZE as usize]).collect(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("vstgt-test".to_owned())];
        match fuser::spawn_mount(Server(Arc::clone(&shared)), dir.path(), &config) {
            Ok(session) => Some(Faulty { shared, _session: session, dir }),
            Err(e) => {
                eprintln!("LEFT OUT: a file system that fails on command cannot be mounted here: {e}");
                None
            }
        }
    }

    pub fn path(&self, file: usize) -> PathBuf {
        self.dir.path().join(format!("{file}.img"))
    }

    /// From now on operations of this kind that touch these bytes of a file (syncs touch all) meet with this.
    pub fn fault(&self, file: usize, kind: Kind, range: Range<u64>, then: Then) {
        self.shared.lock().faults.push(Fault { file, kind, range, then });
    }

    /// The same, wherever.
    pub fn fault_all(&self, file: usize, kind: Kind, then: Then) {
        self.fault(file, kind, 0..u64::MAX, then);
    }

    /// Nothing fails or waits any more that comes from now on.
    pub fn heal(&self) {
        self.shared.lock().faults.clear();
    }

    /// Waits until so many operations are held.
    pub fn wait_held(&self, count: usize) -> Vec<Seen> {
        let few = |state: &mut State| state.held.len() < count;
        let (state, timeout) = self.shared.changed.wait_timeout_while(self.shared.lock(), BOUND, few).unwrap();
        let held: Vec<_> = state.held.iter().map(|pending| pending.seen.clone()).collect();
        assert!(!timeout.timed_out(), "{count} operations should be held: {held:?}");
        held
    }

    /// Ends the operation that has been held longest: does it, or fails it.
    pub fn end_oldest(&self, errno: Option<i32>) {
        let mut state = self.shared.lock();
        let pending = state.held.remove(0);
        end(&mut state, pending, errno);
    }

    /// The same with the youngest.
    pub fn end_youngest(&self, errno: Option<i32>) {
        let mut state = self.shared.lock();
        let pending = state.held.pop().unwrap();
        end(&mut state, pending, errno);
    }

    /// Heals, and does what is held.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        for pending in std::mem::take(&mut state.held) {
            end(&mut state, pending, None);
        }
    }

    /// All that has come so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    pub fn count(&self, file: usize, kind: Kind) -> usize {
        self.shared.lock().seen.iter().filter(|seen| seen.file == file && seen.kind == kind).count()
    }

    pub fn bytes(&self, file: usize, range: Range<usize>) -> Vec<u8> {
        self.shared.lock().files[file][range].to_vec()
    }
}

fn end(state: &mut State, pending: Pending, errno: Option<i32>) {
    match errno {
        Some(errno) => fail(pending, errno),
        None => {
            let len = pending.seen.len;
            state.finish(pending, len);
        }
    }
}

impl Drop for Faulty {
    /// Nobody is left waiting in the kernel, whatever became of the test.
    fn drop(&mut self) {
        self.release();
    }
}

fn attributes(ino: u64, size: Option<u64>) -> FileAttr {
    // SAFETY is not needed: these never fail and the crate's own wrappers are std's.
    let (uid, gid) = {
        use std::os::unix::fs::MetadataExt;
        let me = std::fs::metadata("/proc/self").unwrap();
        (me.uid(), me.gid())
    };
    FileAttr {
        ino: INodeNo(ino),
        size: size.unwrap_or(0),
        blocks: size.unwrap_or(0) / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if size.is_some() { FileType::RegularFile } else { FileType::Directory },
        perm: if size.is_some() { 0o600 } else { 0o700 },
        nlink: 1,
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The root is inode 1, the files come after it.
fn file_of(ino: INodeNo) -> Option<usize> {
    (ino.0 as usize).checked_sub(2)
}

impl Server {
    fn attributes_of(&self, ino: INodeNo) -> Option<FileAttr> {
        match file_of(ino) {
            None => Some(attributes(1, None)),
            Some(file) => self.0.lock().files.get(file).map(|data| attributes(ino.0, Some(data.len() as u64))),
        }
    }

    fn comes(&self, ino: INodeNo, kind: Kind, offset: u64, len: u64, reply: Reply) {
        let file = file_of(ino).unwrap();
        self.0.comes(Pending { seen: Seen { file, kind, offset, len }, reply });
    }
}

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.strip_suffix(".img")).and_then(|number| number.parse().ok());
        match number.and_then(|number: u64| self.attributes_of(INodeNo(number + 2))) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes_of(ino) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.comes(ino, Kind::Read, offset, size.into(), Reply::Read(reply));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kind = if flags.0 & libc::O_DSYNC != 0 { Kind::DurableWrite } else { Kind::Write };
        self.comes(ino, kind, offset, data.len() as u64, Reply::Write(reply, data.to_vec()));
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.comes(ino, Kind::Sync, 0, SIZE, Reply::Sync(reply));
    }
}
