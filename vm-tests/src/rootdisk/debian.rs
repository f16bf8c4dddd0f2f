//! A guest that runs from the root disk, and a shell at its serial console.
//!
//! Nothing in it is prepared for being driven: whoever is here sees what a person at a terminal would, and types.

use crate::port::Port;
use crate::{Context, Error, Result};
use std::time::Duration;

/// How long a guest may take from its start to its login prompt, on KVM.
pub const BOOT: Duration = Duration::from_secs(45);

/// How long it may take to log in, or to answer a short command, on KVM.
const ANSWER: Duration = Duration::from_secs(10);

/// What a command's output is framed by.
const BEGIN: &str = "@@ begin";
const END: &str = "@@ end";

/// Turns the login shell into one without line editing, at a terminal that does not repeat what is typed. The sum is
/// there because the answer must not be found in the question, which is still repeated.
const PLAIN: &str = "exec env TERM=dumb PS1= PS2= sh -c 'stty -echo; echo ready $((40 + 2)); exec sh'\n";

/// Waits for the login prompt; `slowness` stretches every bound (see [`Accel`](crate::accel::Accel::slowness)).
///
/// # Errors
/// When it does not come; the message holds the console's end.
pub fn wait_for_login(console: &mut Port, slowness: u32) -> Result<()> {
    console.expect("login: ", BOOT * slowness).map(drop).context(|| "boot Debian")
}

/// A shell of root's at a console.
#[derive(Debug)]
pub struct Shell<'a> {
    console: &'a mut Port,
    slowness: u32,
    next: u32,
}

impl<'a> Shell<'a> {
    /// Logs in at the prompt [`wait_for_login`] has seen.
    ///
    /// # Errors
    /// When no shell answers.
    pub fn log_in(console: &'a mut Port, slowness: u32) -> Result<Shell<'a>> {
        console.send("root\n")?;
        console.expect("# ", ANSWER * slowness).context(|| "log in as root, without a password")?;
        console.send(PLAIN)?;
        console.expect("ready 42", ANSWER * slowness)?;
        Ok(Shell { console, slowness, next: 1 })
    }

    /// Runs a command, which may have several lines, and returns what it printed.
    ///
    /// # Errors
    /// When it ends with another status than 0, or does not end; the message holds what it printed.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let id = self.next;
        self.next += 1;
        self.console.send(&format!("echo {} {id}; {{ {command}\n}} 2>&1; echo {} {id} $?\n", BEGIN, END))?;
        let bound = ANSWER * self.slowness;
        let what = || format!("in the guest: {command}");
        self.console.expect(&format!("{} {id}", BEGIN), bound).context(what)?;
        self.console.expect("\n", bound).context(what)?;
        let end = format!("{} {id} ", END);
        let text = self.console.expect(&end, bound).context(what)?;
        let status = self.console.line(bound).context(what)?;
        let text = text.strip_suffix(&end).unwrap_or(&text).replace('\r', "");
        match status.trim() {
            "0" => Ok(text),
            status => Err(Error::new(format!("{} ended with {status}\n{text}", what()))),
        }
    }

    /// Asks systemd to power the guest off.
    ///
    /// # Errors
    /// When the guest has gone.
    pub fn power_off(self) -> Result<()> {
        self.console.send("poweroff\n")
    }
}
