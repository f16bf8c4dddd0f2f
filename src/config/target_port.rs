//! Target ports: `--target-port`.

use std::collections::BTreeMap;

use super::key_value::{Options, OptionsError};
use super::{ConfigError, TargetPortConfig};
use crate::cli::Cli;
use crate::lu::AccessState;

/// The name of the port that is there when none is configured.
const DEFAULT_NAME: &str = "vstgt";

/// RELATIVE TARGET PORT IDENTIFIERs; 0 is reserved (SPC-4 7.8).
const IDENTIFIERS: std::ops::RangeInclusive<u32> = 1..=65535;

/// A port with what was said of it.
struct Said {
    name: String,
    relative: Option<u16>,
    group: Option<u16>,
    state: Option<AccessState>,
}

/// All ports, at least one, in the order in which they are given.
pub(super) fn target_ports(cli: &Cli) -> Result<Vec<TargetPortConfig>, ConfigError> {
    let mut said = Vec::new();
    for text in &cli.target_port {
        let syntax = |source| ConfigError::Syntax { option: "--target-port", text: text.clone(), source };
        said.push(parse(Options::parse(text).map_err(syntax)?).map_err(syntax)?);
    }
    if said.is_empty() {
        said.push(Said { name: DEFAULT_NAME.to_owned(), relative: None, group: None, state: None });
    }
    let ports = number(&said);
    for (i, port) in ports.iter().enumerate() {
        let mut before = ports.iter().take(i);
        if before.clone().any(|other| other.name == port.name) {
            return Err(ConfigError::DuplicatePort(port.name.clone()));
        }
        if let Some(other) = before.find(|other| other.relative == port.relative) {
            let (first, second) = (other.name.clone(), port.name.clone());
            return Err(ConfigError::DuplicatePortId { relative: port.relative, first, second });
        }
    }
    with_states(ports, &said)
}

fn parse(mut o: Options) -> Result<Said, OptionsError> {
    let said = Said {
        name: o.required("name")?,
        relative: number_of(&mut o, "id", IDENTIFIERS)?,
        group: number_of(&mut o, "group", 0..=65535)?,
        state: o.parsed("state", "active, active-nonoptimized, standby, unavailable or offline", access_state)?,
    };
    o.finish()?;
    Ok(said)
}

fn number_of(
    o: &mut Options,
    key: &'static str,
    range: std::ops::RangeInclusive<u32>,
) -> Result<Option<u16>, OptionsError> {
    let what = format!("a number from {} to {}", range.start(), range.end());
    o.parsed(key, &what, |text| text.parse().ok().filter(|n| range.contains(n)).map(|n: u32| n as u16))
}

fn access_state(text: &str) -> Option<AccessState> {
    match text {
        "active" => Some(AccessState::ActiveOptimized),
        "active-nonoptimized" => Some(AccessState::ActiveNonOptimized),
        "standby" => Some(AccessState::Standby),
        "unavailable" => Some(AccessState::Unavailable),
        "offline" => Some(AccessState::Offline),
        _ => None,
    }
}

/// A port without an identifier gets the lowest that is free; one without a group has a group of its own, of the same number.
fn number(said: &[Said]) -> Vec<TargetPortConfig> {
    let mut taken: Vec<u16> = said.iter().filter_map(|port| port.relative).collect();
    said.iter()
        .map(|port| {
            let relative = port.relative.unwrap_or_else(|| {
                // There are fewer ports than numbers: a command line has not room for so many.
                let free = (1..=u16::MAX).find(|n| !taken.contains(n)).unwrap_or(u16::MAX);
                taken.push(free);
                free
            });
            let group = port.group.unwrap_or(relative);
            TargetPortConfig { name: port.name.clone(), relative, group, state: AccessState::default() }
        })
        .collect()
}

/// The state is the group's: said of one of its ports it holds for all of them.
fn with_states(mut ports: Vec<TargetPortConfig>, said: &[Said]) -> Result<Vec<TargetPortConfig>, ConfigError> {
    let mut states: BTreeMap<u16, AccessState> = BTreeMap::new();
    for (port, state) in ports.iter().zip(said).filter_map(|(port, said)| Some((port, said.state?))) {
        if *states.entry(port.group).or_insert(state) != state {
            return Err(ConfigError::GroupState { group: port.group, port: port.name.clone() });
        }
    }
    for port in &mut ports {
        port.state = states.get(&port.group).copied().unwrap_or_default();
    }
    Ok(ports)
}
