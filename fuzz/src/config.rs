//! `config`: the command line, from words to a validated configuration.
//!
//! The input is the words after the program's name, each ended by a zero byte. What is accepted must be what its documentation says of
//! it; nothing is opened.

use clap::Parser;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use vstgt::cli::Cli;
use vstgt::config::{Config, SocketConfig};

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == 0).take(64).map(OsStr::from_bytes);
    let Ok(cli) = Cli::try_parse_from(std::iter::once(OsStr::new("vstgt")).chain(words)) else { return };
    match Config::try_from(cli) {
        Ok(config) => check(&config),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check(config: &Config) {
    assert!((1..=254).contains(&config.num_queues) && (1..=64).contains(&config.reactors));
    assert!(!config.endpoints.is_empty() && !config.units.is_empty() && !config.target_ports.is_empty());
    let mut relative = HashSet::new();
    for port in &config.target_ports {
        assert!(port.relative != 0 && relative.insert(port.relative), "{port:?}");
        assert!(!port.name.is_empty());
    }
    let ports: HashSet<_> = config.target_ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(ports.len(), config.target_ports.len());
    let (mut nexuses, mut sockets) = (HashSet::new(), HashSet::new());
    for endpoint in &config.endpoints {
        assert!(!endpoint.initiator.is_empty() && ports.contains(endpoint.target_port.as_str()), "{endpoint:?}");
        assert!(nexuses.insert((&endpoint.initiator, &endpoint.target_port)), "{endpoint:?}");
        match &endpoint.socket {
            SocketConfig::Path(path) => assert!(sockets.insert(path.clone()), "{endpoint:?}"),
            SocketConfig::Fd(fd) => assert!(*fd > 2),
            SocketConfig::Named(name) => assert!(!name.is_empty()),
        }
    }
    for unit in &config.units {
        assert!(matches!(unit.block_size, 512 | 4096), "{unit:?}");
        assert!(unit.physical_exponent() <= 7, "{unit:?}");
        assert!(u32::from(unit.lowest_aligned) < 1 << unit.physical_exponent(), "{unit:?}");
        assert!(unit.target_ports.iter().all(|port| ports.contains(port.as_str())), "{unit:?}");
        let initiators: HashSet<_> = config.endpoints.iter().map(|endpoint| &endpoint.initiator).collect();
        assert!(unit.initiators.iter().all(|name| initiators.contains(name)), "{unit:?}");
    }
}
