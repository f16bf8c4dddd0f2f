//! A file system in this process that logs what is done to it (FUSE), with no libfuse.
//!
//! The kernel hands over what processes do, each as it happens: without a write-back cache (which is off unless asked for) a `write` has
//! arrived here before it returns, whoever called it, io_uring included, and so has an `fsync`. So the log is in the order of what
//! was done, and a sync covers whatever was handed over before it.
//!
//! # Writes that sync themselves
//!
//! A write with `RWF_DSYNC` comes with `O_DSYNC` among its flags, and the kernel sends an fsync of the whole file after it. A file
//! system of the kernel's would have synced the bytes of that write only, so that is what is logged: the fsync of the same thread
//! that follows such a write is taken for a part of it. Whether this kernel sends one is found out first, see [`Mounted::new`].
#![allow(unsafe_code, reason = "one system call that std does not have")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{NameChange, Record, WriteLog};

/// How long the kernel may believe what it was told of a file: nobody but the kernel changes one.
const FOREVER: Duration = Duration::from_secs(3600);

/// The root directory.
pub const ROOT: u64 = 1;

enum Content {
    Directory(BTreeMap<String, u64>),
    File(Vec<u8>),
}

struct Node {
    content: Content,
    mode: u16,
}

struct State {
    nodes: HashMap<u64, Node>,
    next: u64,
    /// Threads whose last write synced itself.
    synced: HashSet<u32>,
    /// Whether an fsync follows such a write.
    followed: bool,
    /// Of the probe: what came.
    dsync_seen: bool,
    fsync_seen: bool,
}

impl State {
    fn add(&mut self, content: Content, mode: u16) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, Node { content, mode });
        number
    }

    fn directory(&mut self, number: u64) -> Result<&mut BTreeMap<String, u64>, Errno> {
        match &mut self.nodes.get_mut(&number).ok_or(Errno::ENOENT)?.content {
            Content::Directory(names) => Ok(names),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn file(&mut self, number: u64) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.nodes.get_mut(&number).ok_or(Errno::ENOENT)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Directory(_) => Err(Errno::EISDIR),
        }
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        let node = self.nodes.get(&number).ok_or(Errno::ENOENT)?;
        let (kind, size, nlink) = match &node.content {
            Content::Directory(_) => (FileType::Directory, 0, 2),
            Content::File(bytes) => (FileType::RegularFile, bytes.len() as u64, 1),
        };
        let then = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: then,
            mtime: then,
            ctime: then,
            crtime: then,
            kind,
            perm: node.mode,
            nlink,
            // SAFETY: no arguments, no memory.
            uid: unsafe { libc::geteuid() },
            // SAFETY: as above.
            gid: unsafe { libc::getegid() },
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

#[derive(Clone)]
struct Recorder {
    state: Arc<Mutex<State>>,
    log: WriteLog,
}

fn name_of(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

/// Resizes a file; memory that is not touched costs nothing.
fn resized(bytes: &mut Vec<u8>, len: usize) {
    if bytes.is_empty() {
        *bytes = vec![0; len];
    } else {
        bytes.resize(len, 0);
    }
}

impl Recorder {
    fn new_name(&self, parent: u64, name: &OsStr, content: Content, mode: u32) -> Result<FileAttr, Errno> {
        let mut state = self.state.lock().unwrap();
        let name = name_of(name);
        if state.directory(parent)?.contains_key(&name) {
            return Err(Errno::EEXIST);
        }
        let number = state.add(content, (mode & 0o777) as u16);
        state.directory(parent)?.insert(name.clone(), number);
        self.log.push(Record::Name { directory: parent, change: NameChange::Add { name, file: number } });
        state.attributes(number)
    }

    fn remove(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap();
        let name = name_of(name);
        // The node stays: it may be open.
        state.directory(parent)?.remove(&name).ok_or(Errno::ENOENT)?;
        self.log.push(Record::Name { directory: parent, change: NameChange::Remove { name } });
        Ok(())
    }

    fn write_at(&self, file: u64, offset: u64, data: &[u8], synced: bool, thread: u32) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap();
        if synced {
            state.dsync_seen = true;
            if state.followed {
                state.synced.insert(thread);
            }
        }
        let bytes = state.file(file)?;
        let (from, to) = (offset as usize, offset as usize + data.len());
        if bytes.len() < to {
            resized(bytes, to);
        }
        bytes[from..to].copy_from_slice(data);
        self.log.push(Record::Write { file, offset, data: data.to_vec(), synced, atomic: false });
        Ok(())
    }

    fn sync(&self, file: u64, thread: u32) {
        let mut state = self.state.lock().unwrap();
        state.fsync_seen = true;
        if !state.synced.remove(&thread) {
            let covers = self.log.len();
            self.log.push(Record::Sync { file, covers });
        }
    }

    fn clear(&self, file: u64, offset: u64, len: u64, mode: i32) -> Result<(), Errno> {
        let known =
            [libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE].map(|kind| kind | libc::FALLOC_FL_KEEP_SIZE);
        if !known.contains(&mode) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock().unwrap();
        let bytes = state.file(file)?;
        let end = bytes.len() as u64;
        let (from, to) = (offset.min(end), (offset + len).min(end));
        bytes[from as usize..to as usize].fill(0);
        if from < to {
            self.log.push(Record::Clear { file, offset: from, len: to - from });
        }
        Ok(())
    }
}

impl Filesystem for Recorder {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state.lock().unwrap();
        let found = state.directory(parent.0).and_then(|names| names.get(&name_of(name)).copied().ok_or(Errno::ENOENT));
        match found.and_then(|number| state.attributes(number)) {
            Ok(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
            Err(e) => reply.error(e),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.state.lock().unwrap().attributes(ino.0) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state.lock().unwrap();
        if let Some(size) = size {
            match state.file(ino.0) {
                Ok(bytes) => resized(bytes, size as usize),
                Err(e) => return reply.error(e),
            }
        }
        if let (Some(mode), Some(node)) = (mode, state.nodes.get_mut(&ino.0)) {
            node.mode = (mode & 0o777) as u16;
        }
        match state.attributes(ino.0) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(e) => reply.error(e),
        }
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        match self.new_name(parent.0, name, Content::Directory(BTreeMap::new()), mode & !umask) {
            Ok(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
            Err(e) => reply.error(e),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.new_name(parent.0, name, Content::File(Vec::new()), mode & !umask) {
            Ok(attributes) => {
                reply.created(&FOREVER, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(e) => reply.error(e),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.remove(parent.0, name) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != new_parent || !flags.is_empty() {
            return reply.error(Errno::EXDEV);
        }
        let mut state = self.state.lock().unwrap();
        let (from, to) = (name_of(name), name_of(new_name));
        let renamed = state.directory(parent.0).and_then(|names| {
            let number = names.remove(&from).ok_or(Errno::ENOENT)?;
            names.insert(to.clone(), number);
            Ok(())
        });
        match renamed {
            Ok(()) => {
                self.log.push(Record::Name { directory: parent.0, change: NameChange::Rename { from, to } });
                reply.ok();
            }
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
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
        let mut state = self.state.lock().unwrap();
        match state.file(ino.0) {
            Ok(bytes) => {
                let from = bytes.len().min(offset as usize);
                reply.data(&bytes[from..bytes.len().min(from + size as usize)]);
            }
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let synced = flags.0 & libc::O_DSYNC != 0;
        match self.write_at(ino.0, offset, data, synced, req.pid()) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // Every close(2) says this; it promises nothing.
        reply.ok();
    }

    fn fsync(&self, req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(ino.0, req.pid());
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let _state = self.state.lock().unwrap();
        let covers = self.log.len();
        self.log.push(Record::SyncNames { directory: ino.0, covers });
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut state = self.state.lock().unwrap();
        let names = match state.directory(ino.0) {
            Ok(names) => names.clone(),
            Err(e) => return reply.error(e),
        };
        for (n, (name, number)) in names.iter().enumerate().skip(offset as usize) {
            let kind = match state.nodes[number].content {
                Content::Directory(_) => FileType::Directory,
                Content::File(_) => FileType::RegularFile,
            };
            if reply.add(INodeNo(*number), n as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        match self.clear(ino.0, offset, length, mode) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }
}

/// A mounted file system with a log. Unmounted when dropped.
pub struct Mounted {
    state: Arc<Mutex<State>>,
    log: WriteLog,
    path: PathBuf,
    session: Option<fuser::BackgroundSession>,
    _dir: tempfile::TempDir,
}

impl Mounted {
    /// Mounts an empty one; an error if this system does not let us.
    pub fn new() -> std::io::Result<Mounted> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("mnt");
        std::fs::create_dir(&path)?;
        let log = WriteLog::new();
        let root = Node { content: Content::Directory(BTreeMap::new()), mode: 0o700 };
        let state = State {
            nodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            synced: HashSet::new(),
            followed: false,
            dsync_seen: false,
            fsync_seen: false,
        };
        let state = Arc::new(Mutex::new(state));
        let recorder = Recorder { state: Arc::clone(&state), log: log.clone() };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("write-log".to_owned())];
        let session = fuser::spawn_mount(recorder, &path, &config)?;
        let mounted = Mounted { state, log, path, session: Some(session), _dir: dir };
        mounted.find_out_about_dsync()?;
        Ok(mounted)
    }

    /// A write that syncs itself: what comes of it here.
    fn find_out_about_dsync(&self) -> std::io::Result<()> {
        let path = self.path.join("probe");
        let file = File::create(&path)?;
        let byte = [7u8; 512];
        let piece = libc::iovec { iov_base: byte.as_ptr() as *mut libc::c_void, iov_len: byte.len() };
        // SAFETY: one piece, which lives through the call and is only read.
        let written = unsafe { libc::pwritev2(file.as_raw_fd(), &piece, 1, 0, libc::RWF_DSYNC) };
        if written != byte.len() as isize {
            return Err(std::io::Error::last_os_error());
        }
        drop(file);
        std::fs::remove_file(&path)?;
        let mut state = self.state.lock().unwrap();
        assert!(
            state.dsync_seen || state.fsync_seen,
            "this kernel's FUSE says nothing of RWF_DSYNC: no log can be right"
        );
        state.followed = state.dsync_seen && state.fsync_seen;
        Ok(())
    }

    /// Makes a file with this content, which is there before the log begins; its number.
    pub fn add_file(&self, name: &str, bytes: Vec<u8>) -> u64 {
        let mut state = self.state.lock().unwrap();
        let number = state.add(Content::File(bytes), 0o600);
        state.directory(ROOT).unwrap_or_else(|_| panic!("a root")).insert(name.to_owned(), number);
        number
    }

    /// The number of a file or directory by its name in a directory.
    pub fn number_of(&self, directory: u64, name: &str) -> Option<u64> {
        self.state.lock().unwrap().directory(directory).ok()?.get(name).copied()
    }

    /// A file's bytes as processes see them.
    pub fn bytes_of(&self, file: u64) -> Vec<u8> {
        self.state.lock().unwrap().file(file).map(|bytes| bytes.clone()).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn log(&self) -> &WriteLog {
        &self.log
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(e) = session.umount_and_join()
        {
            eprintln!("{}: not unmounted: {e}", self.path.display());
        }
    }
}
