//! A configuration that makes sense, or a message that names what does not.
//!
//! # Contract
//!
//! [`Config`] is made from a [`Cli`] once, at start, and is not checked again: names are unique, numbers are in range, every
//! logical unit has a place of its own. Whether images can be opened and sockets bound shows when they are.

mod access;
mod key_value;
mod size;
mod target_port;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backing::EngineChoice;
use crate::cli::Cli;
use crate::lu::AccessState;
use crate::state_dir::Place;
pub use access::SocketAccess;
use key_value::{Options, OptionsError};
pub use unit::UnitConfig;

/// Who looks for longer than a millisecond does not sleep any more.
const MAX_POLL_US: u64 = 1000;

/// The longest nexus loss timeout, in seconds: a year.
const MAX_LOSS_TIMEOUT: u64 = 365 * 24 * 3600;

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A `KEY=VALUE` list cannot be read.
    #[error("{option} {text}: {source}")]
    Syntax {
        /// The option.
        option: &'static str,
        /// Its value as given.
        text: String,
        /// What is wrong with it.
        source: OptionsError,
    },
    /// An option's value is out of its range.
    #[error("{option} {value}: {what}")]
    Value {
        /// The option.
        option: &'static str,
        /// Its value as given.
        value: String,
        /// What it has to be.
        what: &'static str,
    },
    /// There is nothing to listen on.
    #[error("no socket: give --socket-path PATH (once for each guest) or --fd N")]
    NoSocket,
    /// There is nothing to serve.
    #[error("no disk: give --blk-file FILE or --lun file=PATH")]
    NoUnit,
    /// There is nothing by which state could go from process to process.
    #[error(
        "{0} needs --state-dir DIR: the directory by which reservations and unit attentions go from process to process"
    )]
    NoState(&'static str),
    /// Two sockets have one path.
    #[error("--socket-path {0}: given twice")]
    DuplicateSocket(PathBuf),
    /// Two sockets are one nexus.
    #[error(
        "initiator name '{initiator}' is used by two sockets on target port '{port}': each socket is a nexus of its own, name the initiators apart or put the sockets on different target ports"
    )]
    DuplicateNexus {
        /// The initiator port's name.
        initiator: String,
        /// The target port's.
        port: String,
    },
    /// Two target ports have one name.
    #[error("--target-port name={0}: given twice")]
    DuplicatePort(String),
    /// Two target ports have one relative identifier.
    #[error("--target-port name={second}: id {relative} is {first}'s")]
    DuplicatePortId {
        /// RELATIVE TARGET PORT IDENTIFIER.
        relative: u16,
        /// The port that has it.
        first: String,
        /// The port that wants it, too.
        second: String,
    },
    /// Two ports of one group are said to be in different access states.
    #[error("--target-port name={port}: the ports of group {group} have one state, and another port says another")]
    GroupState {
        /// TARGET PORT GROUP.
        group: u16,
        /// The port that disagrees.
        port: String,
    },
    /// A target port is named that is not there.
    #[error("{option}: there is no target port '{name}' (--target-port name={name} makes one)")]
    UnknownPort {
        /// What names it.
        option: String,
        /// The name.
        name: String,
    },
    /// A unit is shown to nobody.
    #[error("--lun {0}: no socket of its initiators is on one of its target ports")]
    Unreachable(PathBuf),
    /// Two units have one place.
    #[error("target {target} LUN {lun} is given twice ({first} and {second})")]
    DuplicateUnit {
        /// Target number.
        target: u8,
        /// Logical unit number.
        lun: u16,
        /// The first image.
        first: PathBuf,
        /// The second image.
        second: PathBuf,
    },
    /// One image is served as two units.
    #[error(
        "{0} is given for two logical units, one of them writable: one image is one logical unit; show it to more initiators instead"
    )]
    DuplicateImage(PathBuf),
    /// Two images say that they are one unit.
    #[error(
        "{first} and {second} have one {what}, so guests would take them for two paths to one disk: identify them apart with serial= or naa="
    )]
    DuplicateIdentity {
        /// The first image.
        first: PathBuf,
        /// The second image.
        second: PathBuf,
        /// What they have in common.
        what: String,
    },
    /// A unit is shown to an initiator that has no socket.
    #[error("--lun {file}: initiator '{name}' has no socket")]
    UnknownInitiator {
        /// The unit's image.
        file: PathBuf,
        /// The name that is not there.
        name: String,
    },
}

/// What a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketConfig {
    /// A path to bind.
    Path(PathBuf),
    /// A descriptor that is open already.
    Fd(RawFd),
    /// A descriptor that systemd passed, by its name (`LISTEN_FDNAMES`).
    Named(String),
}

/// A target port: one way to the logical units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortConfig {
    /// Its name.
    pub name: String,
    /// RELATIVE TARGET PORT IDENTIFIER, 1–65535.
    pub relative: u16,
    /// The TARGET PORT GROUP that it is in.
    pub group: u16,
    /// The access state that the group starts in; all ports of a group have the same.
    pub state: AccessState,
}

/// One guest's place: a socket and the two ports behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Where it connects.
    pub socket: SocketConfig,
    /// The initiator port's name.
    pub initiator: String,
    /// The target port's.
    pub target_port: String,
    /// Who may connect.
    pub access: SocketAccess,
}

/// How reactors wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitChoice {
    /// io_uring where it is allowed, else epoll.
    Auto,
    /// io_uring or fail.
    IoUring,
    /// epoll.
    Epoll,
}

/// Everything the daemon needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Target ports, at least one.
    pub target_ports: Vec<TargetPortConfig>,
    /// Sockets, one nexus each.
    pub endpoints: Vec<EndpointConfig>,
    /// Logical units.
    pub units: Vec<UnitConfig>,
    /// Request queues a guest may use.
    pub num_queues: u16,
    /// Reactor threads.
    pub reactors: u8,
    /// How long a reactor looks for work at most, before it sleeps.
    pub poll: Duration,
    /// How long a lost nexus is kept.
    pub nexus_loss_timeout: Duration,
    /// Where state is kept.
    pub state_dir: Place,
    /// Where a successor asks.
    pub handover: Option<PathBuf>,
    /// Whether images and state are let go of when guests migrate.
    pub migration: Migration,
    /// Engine for images.
    pub engine: EngineChoice,
    /// How reactors wait.
    pub wait: WaitChoice,
    /// Whether every tgt event is logged.
    pub trace_events: bool,
    /// Whether the process is fenced in.
    pub sandbox: bool,
    /// How much guest memory, in bytes, may be registered with the kernel; 0: none.
    pub register_memory: u64,
    /// Directories that it reaches all the same.
    pub image_dirs: Vec<PathBuf>,
    /// Whether it may leave a core file.
    pub core_dumps: bool,
}

/// What a process does with images and state when guests migrate between processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    /// It has them as long as it runs.
    #[default]
    Never,
    /// It lets go of them when all guests have left by migration.
    Outgoing,
    /// The same, and it begins without them.
    Incoming,
}

impl TryFrom<Cli> for Config {
    type Error = ConfigError;

    fn try_from(cli: Cli) -> Result<Config, ConfigError> {
        let target_ports = target_port::target_ports(&cli)?;
        let endpoints = endpoints(&cli, &target_ports)?;
        let units = unit::units(&cli, &target_ports, &endpoints)?;
        if !(1..=254).contains(&cli.num_queues) {
            return Err(value("--num-queues", &cli.num_queues.to_string(), "must be 1 to 254"));
        }
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get().min(64)) as u8;
        let reactors = cli.reactors.unwrap_or(cpus);
        if !(1..=64).contains(&reactors) {
            return Err(value("--reactors", &reactors.to_string(), "must be 1 to 64"));
        }
        if cli.poll_us > MAX_POLL_US {
            return Err(value("--poll-us", &cli.poll_us.to_string(), "must be at most 1000"));
        }
        if cli.nexus_loss_timeout > MAX_LOSS_TIMEOUT {
            return Err(value("--nexus-loss-timeout", &cli.nexus_loss_timeout.to_string(), "must be at most 31536000"));
        }
        let migration = match (cli.incoming, cli.outgoing) {
            (true, _) => Migration::Incoming,
            (false, true) => Migration::Outgoing,
            (false, false) => Migration::Never,
        };
        let named = cli.state_dir.as_ref().is_some_and(|path| path.as_os_str() != "none");
        if migration != Migration::Never && !named {
            let option = if cli.incoming { "--incoming" } else { "--outgoing" };
            return Err(ConfigError::NoState(option));
        }
        Ok(Config {
            target_ports,
            units,
            num_queues: cli.num_queues,
            reactors,
            poll: Duration::from_micros(cli.poll_us),
            register_memory: register_memory(&cli)?,
            nexus_loss_timeout: Duration::from_secs(cli.nexus_loss_timeout),
            state_dir: match cli.state_dir.clone() {
                None => Place::Runtime,
                Some(path) if path.as_os_str() == "none" => Place::Nowhere,
                Some(path) => Place::At(path),
            },
            handover: handover(&cli, &endpoints)?,
            migration,
            engine: match cli.engine.as_str() {
                "auto" => EngineChoice::Auto,
                "io_uring" => EngineChoice::IoUring,
                "threads" => EngineChoice::Threads,
                "mmap" => EngineChoice::Mmap,
                "inline" => EngineChoice::Inline,
                other => return Err(value("--engine", other, "must be auto, io_uring, threads, mmap or inline")),
            },
            wait: match cli.wait.as_str() {
                "auto" => WaitChoice::Auto,
                "io_uring" => WaitChoice::IoUring,
                "epoll" => WaitChoice::Epoll,
                other => return Err(value("--wait", other, "must be auto, io_uring or epoll")),
            },
            trace_events: cli.traces_events(),
            sandbox: match cli.sandbox.as_str() {
                "on" => true,
                "off" => false,
                other => return Err(value("--sandbox", other, "must be on or off")),
            },
            image_dirs: cli.image_dir.clone(),
            core_dumps: cli.core_dumps,
            endpoints,
        })
    }
}

/// The handover socket, which is not a guest's.
fn handover(cli: &Cli, endpoints: &[EndpointConfig]) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = &cli.handover else { return Ok(None) };
    let theirs = |e: &EndpointConfig| match &e.socket {
        SocketConfig::Path(p) => canonical_socket_path(p) == canonical_socket_path(path),
        SocketConfig::Fd(_) | SocketConfig::Named(_) => false,
    };
    if endpoints.iter().any(theirs) {
        return Err(value("--handover", &path.to_string_lossy(), "must not be the socket of a guest"));
    }
    Ok(Some(path.clone()))
}

fn value(option: &'static str, value: &str, what: &'static str) -> ConfigError {
    ConfigError::Value { option, value: value.to_owned(), what }
}

fn register_memory(cli: &Cli) -> Result<u64, ConfigError> {
    let Some(text) = &cli.register_memory else { return Ok(0) };
    size::parse(text).ok_or_else(|| value("--register-memory", text, "must be a size like 512M or 4G"))
}

fn endpoints(cli: &Cli, ports: &[TargetPortConfig]) -> Result<Vec<EndpointConfig>, ConfigError> {
    let mut endpoints = Vec::new();
    let general = access::General::of(cli)?;
    for text in &cli.socket_path {
        let syntax = |source| ConfigError::Syntax { option: "--socket-path", text: text.clone(), source };
        let mut options = Options::with_leading_value(text, "path").map_err(syntax)?;
        let path = PathBuf::from(options.required("path").map_err(syntax)?);
        let initiator = options.optional("initiator").map_err(syntax)?;
        let target_port = options.optional("target-port").map_err(syntax)?;
        let access = general.of_file(text, &mut options)?;
        options.finish().map_err(syntax)?;
        let target_port = port_of("--socket-path", text, target_port, ports)?;
        let initiator = match initiator {
            Some(name) => name,
            None => canonical_socket_path(&path).to_string_lossy().into_owned(),
        };
        endpoints.push(EndpointConfig { socket: SocketConfig::Path(path), initiator, target_port, access });
    }
    for text in &cli.fd {
        let syntax = |source| ConfigError::Syntax { option: "--fd", text: text.clone(), source };
        let mut options = Options::with_leading_value(text, "fd").map_err(syntax)?;
        let number = options.required("fd").map_err(syntax)?;
        let initiator = options.optional("initiator").map_err(syntax)?;
        let target_port = options.optional("target-port").map_err(syntax)?;
        let peers = general.peers("--fd allow-uid", &mut options)?;
        options.finish().map_err(syntax)?;
        let target_port = port_of("--fd", text, target_port, ports)?;
        let socket = match number.parse::<RawFd>() {
            Ok(fd) if fd > 2 => SocketConfig::Fd(fd),
            Err(_) if number.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                SocketConfig::Named(number.clone())
            }
            _ => return Err(value("--fd", &number, "must be the number of an open descriptor above 2, or a name")),
        };
        let initiator = initiator.unwrap_or_else(|| format!("fd:{number}"));
        let access = SocketAccess { peers, ..SocketAccess::default() };
        endpoints.push(EndpointConfig { socket, initiator, target_port, access });
    }
    if endpoints.is_empty() {
        return Err(ConfigError::NoSocket);
    }
    let mut paths = HashSet::new();
    let mut nexuses = HashSet::new();
    for e in &endpoints {
        match &e.socket {
            SocketConfig::Path(p) if !paths.insert(canonical_socket_path(p)) => {
                return Err(ConfigError::DuplicateSocket(p.clone()));
            }
            SocketConfig::Fd(fd) if !paths.insert(PathBuf::from(format!("fd:{fd}"))) => {
                return Err(value("--fd", &fd.to_string(), "is given twice"));
            }
            SocketConfig::Named(name) if !paths.insert(PathBuf::from(format!("fd:{name}"))) => {
                return Err(value("--fd", name, "is given twice"));
            }
            SocketConfig::Path(_) | SocketConfig::Fd(_) | SocketConfig::Named(_) => {}
        }
        if e.initiator.is_empty() {
            return Err(value("--socket-path", "initiator=", "an initiator name must not be empty"));
        }
        if !nexuses.insert((e.initiator.as_str(), e.target_port.as_str())) {
            let (initiator, port) = (e.initiator.clone(), e.target_port.clone());
            return Err(ConfigError::DuplicateNexus { initiator, port });
        }
    }
    Ok(endpoints)
}

/// The target port of a socket: the first one if it names none.
fn port_of(option: &str, text: &str, name: Option<String>, ports: &[TargetPortConfig]) -> Result<String, ConfigError> {
    let found = match &name {
        Some(name) => ports.iter().find(|port| port.name == *name),
        None => ports.first(),
    };
    let unknown = || ConfigError::UnknownPort { option: format!("{option} {text}"), name: name.unwrap_or_default() };
    found.map(|port| port.name.clone()).ok_or_else(unknown)
}

/// The socket's path with its directory resolved (the socket itself need not exist yet).
fn canonical_socket_path(path: &Path) -> PathBuf {
    let directory = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    match (directory.canonicalize(), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}
