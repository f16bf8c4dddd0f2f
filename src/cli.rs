//! The command line as it is typed. What it means, and whether it makes sense, is [`crate::config`]'s business.

use std::path::PathBuf;

use clap::Parser;

/// What `--print-capabilities` prints: the answer the vhost-user back-end conventions ask for. The schema has no features for
/// type `scsi`.
pub const CAPABILITIES: &str = "{\n  \"type\": \"scsi\"\n}";

/// Serves SCSI disks to virtual machines over vhost-user, each connection its own I_T nexus.
#[derive(Parser, Debug, Default)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// Socket to listen on, one for each guest. Keys: initiator=NAME, the initiator port's name, by default made from the socket's
    /// path; target-port=NAME, by default the first; mode=, group= and allow-uid=, as --socket-mode, --socket-group and --allow-uid
    /// are for all. Commas in values are doubled.
    #[arg(long = "socket-path", value_name = "PATH[,KEY=VALUE]...")]
    pub socket_path: Vec<String>,

    /// An open socket, listening or connected, in place of --socket-path: a number, or the name that systemd gave it
    /// (FileDescriptorName=), and the same keys but mode= and group=.
    #[arg(long = "fd", value_name = "N|NAME[,KEY=VALUE]...", conflicts_with = "socket_path")]
    pub fd: Vec<String>,

    /// Permissions of the socket files, in octal; by default 0600, or 0660 if there is --socket-group.
    #[arg(long = "socket-mode", value_name = "OCTAL", conflicts_with = "fd")]
    pub socket_mode: Option<String>,

    /// The group of the socket files.
    #[arg(long = "socket-group", value_name = "NAME|GID", conflicts_with = "fd")]
    pub socket_group: Option<String>,

    /// Serve only front-ends that run as this user; it repeats. By default whoever can open the socket.
    #[arg(long = "allow-uid", value_name = "NAME|UID")]
    pub allow_uid: Vec<String>,

    /// A target port, one way to the disks. Keys: name=NAME, id=N, group=N, state=active, active-nonoptimized, standby,
    /// unavailable or offline. By default there is one, named vstgt.
    #[arg(long = "target-port", value_name = "name=NAME[,KEY=VALUE]...")]
    pub target_port: Vec<String>,

    /// A disk image or block device to serve as target 0, LUN 0.
    #[arg(long = "blk-file", value_name = "FILE")]
    pub blk_file: Option<PathBuf>,

    /// Logical units, as they are typed.
    #[arg(
        long = "lun",
        value_name = "file=PATH[,KEY=VALUE]...",
        help = "A logical unit: file=PATH[,lun=N][,target=N][,read-only=on|off][,removable=on|off][,block-size=512|4096]\
                [,physical-block-size=BYTES][,lowest-aligned-lba=N][,rotation-rate=RPM][,provisioning=thin|full][,threshold=PERCENT|off][,cache=writeback|writethrough|none|directsync|unsafe][,write-cache=on|off]\
                [,sense-format=fixed|descriptor][,serial=S][,naa=0xHEX][,eui=0xHEX][,uuid=UUID][,vendor=V][,product=P][,revision=R]\
                [,initiator=NAME]...[,target-port=NAME]... With initiator= (it repeats) only those initiators see it, with \
                target-port= (it repeats) only by those target ports"
    )]
    pub lun: Vec<String>,

    /// Serve every logical unit read-only.
    #[arg(long = "read-only")]
    pub read_only: bool,

    /// Request queues that a guest may use, 1 to 254.
    #[arg(long = "num-queues", value_name = "N", default_value_t = 254)]
    pub num_queues: u16,

    /// Reactor threads; by default one for each CPU.
    #[arg(long = "reactors", value_name = "N")]
    pub reactors: Option<u8>,

    /// How long a reactor that has run out of work looks for more before it sleeps, at most, in microseconds. How long it really does follows
    /// what has paid lately: with idle guests it does not. 0: it always sleeps at once.
    #[arg(long = "poll-us", value_name = "MICROSECONDS", default_value_t = 20)]
    pub poll_us: u64,

    /// How long after its connection was lost a nexus is kept for its initiator to come back.
    #[arg(long = "nexus-loss-timeout", value_name = "SECONDS", default_value_t = 10)]
    pub nexus_loss_timeout: u64,

    /// Where reservations, registrations, mode parameters and pending unit attentions are kept, so that they survive a restart;
    /// `none` keeps nothing. By default vstgt in XDG_RUNTIME_DIR or /run, if that can be written. A directory that is named here,
    /// and is not in memory, also survives a loss of power (APTPL).
    #[arg(long = "state-dir", value_name = "DIR|none")]
    pub state_dir: Option<PathBuf>,

    /// Socket for planned restarts: a process that is started with the same one takes over from the one that runs, with its listening
    /// sockets, so that no guest that connects is refused.
    #[arg(long = "handover", value_name = "PATH")]
    pub handover: Option<PathBuf>,

    /// Let go of images and state when all guests have left by migration, so that another vstgt can take them, and take them again when
    /// a guest comes back. Needs --state-dir.
    #[arg(long = "outgoing")]
    pub outgoing: bool,

    /// Wait for guests that migrate here: images and state are opened when the first of them runs. Includes --outgoing.
    #[arg(long = "incoming")]
    pub incoming: bool,

    /// How reactors do I/O on images: auto probes each image. mmap and inline (preadv, pwritev) do it on the reactor itself, and are
    /// only for images on tmpfs.
    #[arg(long = "engine", value_name = "auto|io_uring|threads|mmap|inline", default_value = "auto")]
    pub engine: String,

    /// Register so much guest memory with the kernel (like 4G), as far as the limit of locked memory allows: I/O then costs less, and all of that memory
    /// is taken from the host at once and stays. Not for guests that give memory back while they run (balloon, free page reporting, virtio-mem).
    #[arg(long = "register-memory", value_name = "SIZE")]
    pub register_memory: Option<String>,

    /// How reactors wait: auto takes io_uring where the system allows it.
    #[arg(long = "wait", value_name = "auto|io_uring|epoll", default_value = "auto")]
    pub wait: String,

    /// Fence the running process in: no privileges, no files but its own, only the system calls that it needs.
    #[arg(long = "sandbox", value_name = "on|off", default_value = "on")]
    pub sandbox: String,

    /// A directory that stays open to the fenced process, for images that are served later; it repeats.
    #[arg(long = "image-dir", value_name = "DIR")]
    pub image_dir: Vec<PathBuf>,

    /// Let the process leave a core file if it crashes, within the limit that it was started with. Guests' data may be in it.
    #[arg(long = "core-dumps")]
    pub core_dumps: bool,

    /// Print what this back-end can do as JSON and exit.
    #[arg(long = "print-capabilities")]
    pub print_capabilities: bool,

    /// Say more: once for events of note, twice for every tgt event, thrice for everything.
    #[arg(short = 'v', long = "verbose", action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Cli {
    /// The log level that `-v` asks for.
    pub fn log_level(&self) -> log::LevelFilter {
        match self.verbose {
            0 => log::LevelFilter::Warn,
            1 => log::LevelFilter::Info,
            2 => log::LevelFilter::Debug,
            _ => log::LevelFilter::Trace,
        }
    }

    /// Whether every tgt event is logged.
    pub fn traces_events(&self) -> bool {
        self.verbose >= 2
    }
}
