//! Who may use a socket: its file's mode and group, the users whose processes may connect.

use super::key_value::Options;
use super::{ConfigError, value};
use crate::cli::Cli;
use crate::sys::accounts;
use crate::vhost_user::Peers;

/// The mode of a socket file that has a group of its own, and otherwise.
const MODE_FOR_GROUP: u32 = 0o660;
const MODE_FOR_OWNER: u32 = 0o600;

const MODE: &str = "must be an octal number of at most 777 that lets somebody write: who may not write cannot connect";
const GROUP: &str = "must be the name or number of a group";
const USER: &str = "must be the name or number of a user";

/// Who may use a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permissions of the socket file.
    pub mode: u32,
    /// Its group; `None`: that of the process.
    pub group: Option<u32>,
    /// Whose processes may connect.
    pub peers: Peers,
}

impl Default for SocketAccess {
    fn default() -> SocketAccess {
        SocketAccess { mode: MODE_FOR_OWNER, group: None, peers: Peers::Anybody }
    }
}

/// What was said of all sockets.
pub(super) struct General {
    mode: Option<u32>,
    group: Option<u32>,
    users: Vec<u32>,
}

impl General {
    pub(super) fn of(cli: &Cli) -> Result<General, ConfigError> {
        Ok(General {
            mode: cli.socket_mode.as_deref().map(|text| mode("--socket-mode", text)).transpose()?,
            group: cli.socket_group.as_deref().map(|text| group_id("--socket-group", text)).transpose()?,
            users: cli.allow_uid.iter().map(|text| user("--allow-uid", text)).collect::<Result<_, _>>()?,
        })
    }

    /// Takes the keys out that say something of one socket's file; what they do not say is as for all.
    pub(super) fn of_file(&self, text: &str, options: &mut Options) -> Result<SocketAccess, ConfigError> {
        let syntax = |source| ConfigError::Syntax { option: "--socket-path", text: text.to_owned(), source };
        let own_mode = options.optional("mode").map_err(syntax)?;
        let own_mode = own_mode.map(|text| mode("--socket-path mode", &text)).transpose()?;
        let own_group = options.optional("group").map_err(syntax)?;
        let own_group = own_group.map(|text| group_id("--socket-path group", &text)).transpose()?;
        let group = own_group.or(self.group);
        let default = if group.is_some() { MODE_FOR_GROUP } else { MODE_FOR_OWNER };
        let peers = self.peers("--socket-path allow-uid", options)?;
        Ok(SocketAccess { mode: own_mode.or(self.mode).unwrap_or(default), group, peers })
    }

    /// Takes the keys out that say who may connect.
    pub(super) fn peers(&self, option: &'static str, options: &mut Options) -> Result<Peers, ConfigError> {
        let own = options.repeated("allow-uid");
        let own = own.iter().map(|text| user(option, text)).collect::<Result<Vec<_>, _>>()?;
        let users = if own.is_empty() { self.users.clone() } else { own };
        Ok(if users.is_empty() { Peers::Anybody } else { Peers::Users(users) })
    }
}

fn mode(option: &'static str, text: &str) -> Result<u32, ConfigError> {
    let octal = Some(text).filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
    let mode = octal.and_then(|text| u32::from_str_radix(text, 8).ok());
    mode.filter(|mode| *mode <= 0o777 && mode & 0o222 != 0).ok_or_else(|| value(option, text, MODE))
}

fn group_id(option: &'static str, text: &str) -> Result<u32, ConfigError> {
    number_or(text, accounts::group).ok_or_else(|| value(option, text, GROUP))
}

fn user(option: &'static str, text: &str) -> Result<u32, ConfigError> {
    number_or(text, accounts::user).ok_or_else(|| value(option, text, USER))
}

/// A number, or what a name stands for. The largest number stands for none in the system's calls.
fn number_or(text: &str, name: impl Fn(&str) -> std::io::Result<Option<u32>>) -> Option<u32> {
    if text.bytes().all(|digit| digit.is_ascii_digit()) {
        return text.parse().ok().filter(|number| *number != u32::MAX);
    }
    name(text).unwrap_or_else(|e| {
        log::error!("{text}: {e}");
        None
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Config;

    fn access(words: &str) -> Result<Vec<SocketAccess>, String> {
        let words = ["vstgt", "--blk-file", "/dev/null"].into_iter().chain(words.split(' '));
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        let config = Config::try_from(cli).map_err(|e| e.to_string())?;
        Ok(config.endpoints.into_iter().map(|endpoint| endpoint.access).collect())
    }

    #[test]
    fn the_owner_only_unless_told_otherwise() {
        assert_eq!(access("--socket-path /tmp/a").unwrap(), [SocketAccess::default()]);
        assert_eq!(SocketAccess::default(), SocketAccess { mode: 0o600, group: None, peers: Peers::Anybody });
    }

    #[test]
    fn a_group_may_connect_that_is_named() {
        let of = |words| access(words).unwrap().remove(0);
        let group = |mode| SocketAccess { mode, group: Some(0), peers: Peers::Anybody };
        assert_eq!(of("--socket-path /tmp/a --socket-group root"), group(0o660));
        assert_eq!(of("--socket-path /tmp/a,group=0"), group(0o660));
        assert_eq!(of("--socket-path /tmp/a --socket-group root --socket-mode 0620"), group(0o620));
    }

    #[test]
    fn what_is_said_of_one_socket_goes_before_what_is_said_of_all() {
        let words = "--socket-path /tmp/a,mode=606,group=7,allow-uid=1,allow-uid=root --socket-path /tmp/b \
                     --socket-mode 0666 --allow-uid 5 --allow-uid 6";
        let sockets = access(&words.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
        let first = SocketAccess { mode: 0o606, group: Some(7), peers: Peers::Users(vec![1, 0]) };
        let second = SocketAccess { mode: 0o666, group: None, peers: Peers::Users(vec![5, 6]) };
        assert_eq!(sockets, [first, second]);
        let inherited = access("--fd 7,allow-uid=9 --fd 8").unwrap();
        let inherited: Vec<_> = inherited.into_iter().map(|access| access.peers).collect();
        assert_eq!(inherited, [Peers::Users(vec![9]), Peers::Anybody]);
    }

    #[test]
    fn nonsense_is_named() {
        for (words, named) in [
            ("--socket-path /tmp/a --socket-mode 0800", "--socket-mode 0800: must be an octal"),
            ("--socket-path /tmp/a --socket-mode 1777", "--socket-mode 1777: must be an octal"),
            ("--socket-path /tmp/a --socket-mode +660", "--socket-mode +660: must be an octal"),
            ("--socket-path /tmp/a,mode=0444", "--socket-path mode 0444: must be an octal"),
            ("--socket-path /tmp/a --socket-group no-such-group", "--socket-group no-such-group: must be the name"),
            ("--socket-path /tmp/a,group=4294967295", "--socket-path group 4294967295: must be"),
            ("--socket-path /tmp/a --allow-uid no-such-user", "--allow-uid no-such-user: must be the name"),
            ("--fd 7,allow-uid=-1", "--fd allow-uid -1: must be the name"),
            ("--fd 7,mode=0600", "unknown key 'mode'"),
            ("--fd 7 --socket-mode 0600", "cannot be used with"),
        ] {
            let said = access(words).unwrap_err();
            assert!(said.contains(named), "{words}: {said}");
        }
    }
}
