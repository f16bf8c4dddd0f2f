//! Logical units: `--lun` and `--blk-file`, each by itself and all together.

use std::collections::HashMap;
use std::path::PathBuf;

use super::key_value::{Options, OptionsError};
use super::{ConfigError, EndpointConfig, TargetPortConfig};
use crate::backing::{CacheMode, Locking};
use crate::cli::Cli;
use crate::lu::{self, MAX_SERIAL, Provisioning, SoftThreshold};

/// The largest LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT that disks have.
const MAX_PHYSICAL_EXPONENT: u32 = 7;

/// One logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitConfig {
    /// Its image.
    pub file: PathBuf,
    /// SCSI target number, 0–255.
    pub target: u8,
    /// Logical unit number, 0–16383.
    pub lun: u16,
    /// Serve it read-only.
    pub read_only: bool,
    /// RMB: guests can eject and load its medium.
    pub removable: bool,
    /// Logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    /// Physical block size in bytes: `block_size` times a power of two up to 128.
    pub physical_block_size: u32,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS: less than the logical blocks in a physical one.
    pub lowest_aligned: u16,
    /// MEDIUM ROTATION RATE (SBC-3 6.6.2): 0 not reported, 1 non-rotating, else revolutions a minute, 1025–65534.
    pub rotation_rate: u16,
    /// Start although writes were lost in a former process.
    pub accept_lost_writes: bool,
    /// Whether it is locked against other programs.
    pub locking: Locking,
    /// Whether blocks can be deallocated.
    pub provisioning: Provisioning,
    /// When its initiators hear that space runs low.
    pub threshold: SoftThreshold,
    /// How the host caches it.
    pub cache: CacheMode,
    /// The default of WCE.
    pub write_cache: bool,
    /// The default of D_SENSE.
    pub descriptor_sense: bool,
    /// Unit serial number; by default made from the image's canonical path.
    pub serial: Option<String>,
    /// NAA designator: type 2h, 3h or 5h, eight bytes. By default made from the serial number or the path.
    pub naa: Option<u64>,
    /// EUI-64 based designator: 8, 12 or 16 bytes.
    pub eui: Option<Vec<u8>>,
    /// UUID designator.
    pub uuid: Option<[u8; 16]>,
    /// T10 vendor identification, at most 8 characters.
    pub vendor: Option<String>,
    /// Product identification, at most 16 characters.
    pub product: Option<String>,
    /// Product revision level, at most 4 characters.
    pub revision: Option<String>,
    /// The initiators that see it; empty: all.
    pub initiators: Vec<String>,
    /// The target ports by which it is seen; empty: all.
    pub target_ports: Vec<String>,
}

impl UnitConfig {
    /// Whether more than one nexus can reach it, by these sockets.
    pub fn shared_by(&self, endpoints: &[EndpointConfig]) -> bool {
        endpoints.iter().filter(|e| self.is_seen_by(e)).count() > 1
    }

    /// Whether a socket's nexus sees it.
    fn is_seen_by(&self, endpoint: &EndpointConfig) -> bool {
        let one_of = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        one_of(&self.initiators, &endpoint.initiator) && one_of(&self.target_ports, &endpoint.target_port)
    }

    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, 0–7.
    pub fn physical_exponent(&self) -> u8 {
        (self.physical_block_size / self.block_size.max(1)).checked_ilog2().unwrap_or(0) as u8
    }
}

/// All units, checked against each other and against the ports there are.
pub(super) fn units(
    cli: &Cli,
    ports: &[TargetPortConfig],
    endpoints: &[EndpointConfig],
) -> Result<Vec<UnitConfig>, ConfigError> {
    let mut units = Vec::new();
    if let Some(file) = &cli.blk_file {
        let syntax = |source| ConfigError::Syntax { option: "--blk-file", text: file.display().to_string(), source };
        units.push(unit(file.clone(), Options::default(), cli.read_only).map_err(syntax)?);
    }
    for text in &cli.lun {
        let syntax = |source| ConfigError::Syntax { option: "--lun", text: text.clone(), source };
        let mut options = Options::parse(text).map_err(syntax)?;
        let file = PathBuf::from(options.required("file").map_err(syntax)?);
        units.push(unit(file, options, cli.read_only).map_err(syntax)?);
    }
    if units.is_empty() {
        return Err(ConfigError::NoUnit);
    }
    let mut places: HashMap<(u8, u16), Vec<&UnitConfig>> = HashMap::new();
    let mut images: HashMap<PathBuf, &UnitConfig> = HashMap::new();
    for u in &units {
        let there = places.entry((u.target, u.lun)).or_default();
        if let Some(first) = there.iter().find(|first| overlap(first, u)) {
            let (first, second) = (first.file.clone(), u.file.clone());
            return Err(ConfigError::DuplicateUnit { target: u.target, lun: u.lun, first, second });
        }
        there.push(u);
        if let Some(first) = images.insert(canonical(u), u)
            && !(first.read_only && u.read_only)
        {
            return Err(ConfigError::DuplicateImage(u.file.clone()));
        }
        if let Some(name) = u.initiators.iter().find(|n| endpoints.iter().all(|e| e.initiator != **n)) {
            return Err(ConfigError::UnknownInitiator { file: u.file.clone(), name: name.clone() });
        }
        if let Some(name) = u.target_ports.iter().find(|n| ports.iter().all(|p| p.name != **n)) {
            return Err(ConfigError::UnknownPort { option: format!("--lun {}", u.file.display()), name: name.clone() });
        }
        if !endpoints.iter().any(|e| u.is_seen_by(e)) {
            return Err(ConfigError::Unreachable(u.file.clone()));
        }
    }
    identities(&units)?;
    Ok(units)
}

fn canonical(unit: &UnitConfig) -> PathBuf {
    unit.file.canonicalize().unwrap_or_else(|_| unit.file.clone())
}

/// Two units may have one number only if no nexus sees both.
fn overlap(a: &UnitConfig, b: &UnitConfig) -> bool {
    let overlap = |a: &[String], b: &[String]| a.is_empty() || b.is_empty() || a.iter().any(|n| b.contains(n));
    overlap(&a.initiators, &b.initiators) && overlap(&a.target_ports, &b.target_ports)
}

/// Serial numbers and designators are one unit's, whoever sees it: what finds two of a kind takes them for two paths to one
/// disk, and writes to either.
fn identities(units: &[UnitConfig]) -> Result<(), ConfigError> {
    let mut named: HashMap<String, (PathBuf, &UnitConfig)> = HashMap::new();
    for u in units {
        let path = canonical(u);
        let (naa, serial) = lu::derive(&path, u.serial.as_deref(), u.naa);
        let mut names = vec![format!("serial number '{serial}'"), format!("NAA designator 0x{naa:016x}")];
        names.extend(u.eui.as_ref().map(|eui| format!("EUI-64 designator 0x{}", hex(eui))));
        names.extend(u.uuid.map(|uuid| format!("UUID {}", hex(&uuid))));
        for what in names {
            let (image, first) = named.entry(what.clone()).or_insert_with(|| (path.clone(), u));
            if *image != path {
                let (first, second) = (first.file.clone(), u.file.clone());
                return Err(ConfigError::DuplicateIdentity { first, second, what });
            }
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One unit from what was said of it, but for its file.
fn unit(file: PathBuf, mut o: Options, all_read_only: bool) -> Result<UnitConfig, OptionsError> {
    let lun = o.number("lun", 0, 0..=16383)?;
    let target = o.number("target", 0, 0..=255)?;
    let read_only = o.switch("read-only", false)?;
    let block_size = o.choice("block-size", 512, &[512, 4096])?;
    let physical: Vec<u32> = (0..=MAX_PHYSICAL_EXPONENT).map(|exponent| block_size << exponent).collect();
    let physical_block_size = o.choice("physical-block-size", block_size, &physical)?;
    let cache = o.parsed("cache", "writeback, writethrough, none, directsync or unsafe", CacheMode::from_name)?;
    let cache = cache.unwrap_or_default();
    let unit = UnitConfig {
        file,
        target: target as u8,
        lun: lun as u16,
        read_only: read_only || all_read_only,
        removable: o.switch("removable", false)?,
        block_size,
        physical_block_size,
        lowest_aligned: o.number("lowest-aligned-lba", 0, 0..=physical_block_size / block_size - 1)? as u16,
        rotation_rate: o.parsed("rotation-rate", "0, 1 or 1025 to 65534", rotation_rate)?.unwrap_or(1),
        accept_lost_writes: o.parsed("lost-writes", "refuse or accept", lost_writes)?.unwrap_or(false),
        locking: o.parsed("locking", "on, off or auto", locking)?.unwrap_or_default(),
        provisioning: o.parsed("provisioning", "thin or full", provisioning)?.unwrap_or_default(),
        threshold: o.parsed("threshold", "a percentage from 1 to 100, or off", threshold)?.unwrap_or_default(),
        cache,
        write_cache: o.switch("write-cache", cache.write_cache())?,
        descriptor_sense: o.parsed("sense-format", "fixed or descriptor", sense_format)?.unwrap_or(false),
        serial: o.text("serial", 1, MAX_SERIAL)?,
        naa: o.parsed("naa", "0x and 16 hexadecimal digits, the first of them 2, 3 or 5", naa)?,
        eui: o.parsed("eui", "0x and 16, 24 or 32 hexadecimal digits, not all of them 0", eui)?,
        uuid: o.parsed("uuid", "a UUID, as in 123e4567-e89b-42d3-a456-426614174000, that is not nil", uuid)?,
        vendor: o.text("vendor", 1, 8)?,
        product: o.text("product", 1, 16)?,
        revision: o.text("revision", 1, 4)?,
        initiators: o.repeated("initiator"),
        target_ports: o.repeated("target-port"),
    };
    o.finish()?;
    Ok(unit)
}

/// The values that are not reserved (SBC-3 table 171).
fn rotation_rate(text: &str) -> Option<u16> {
    text.parse().ok().filter(|rate| matches!(rate, 0 | 1 | 0x0401..=0xfffe))
}

/// Whether they are accepted.
fn lost_writes(text: &str) -> Option<bool> {
    match text {
        "refuse" => Some(false),
        "accept" => Some(true),
        _ => None,
    }
}

fn locking(text: &str) -> Option<Locking> {
    match text {
        "auto" => Some(Locking::Auto),
        "on" => Some(Locking::On),
        "off" => Some(Locking::Off),
        _ => None,
    }
}

fn provisioning(text: &str) -> Option<Provisioning> {
    match text {
        "thin" => Some(Provisioning::Thin),
        "full" => Some(Provisioning::Full),
        _ => None,
    }
}

fn threshold(text: &str) -> Option<SoftThreshold> {
    match text {
        "off" => Some(SoftThreshold::Off),
        _ => text.parse().ok().filter(|percent| matches!(percent, 1..=100)).map(SoftThreshold::Percent),
    }
}

/// Whether it is descriptor format.
fn sense_format(text: &str) -> Option<bool> {
    match text {
        "fixed" => Some(false),
        "descriptor" => Some(true),
        _ => None,
    }
}

/// The NAA types of eight bytes (SPC-4 7.8.6.6): 2h IEEE Extended, 3h Locally Assigned, 5h IEEE Registered.
fn naa(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").filter(|d| d.len() == 16 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok().filter(|naa| matches!(naa >> 60, 2 | 3 | 5))
}

/// The lengths of EUI-64 based designators (SPC-4 7.8.6.5).
fn eui(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").filter(|digits| matches!(digits.len(), 16 | 24 | 32))?;
    bytes(digits)
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if lengths != [8, 4, 4, 4, 12] {
        return None;
    }
    bytes(&groups.concat())?.try_into().ok()
}

/// Hexadecimal digits as bytes; a name of nothing but zeros is none.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: char| digit.to_digit(16).map(|value| value as u8);
    let digits: Vec<u8> = digits.chars().map(value).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}
