//! Running a host command to its end: bounded in time, and an error that says what it said.

use crate::process::{Process, last_lines};
use crate::workdir::WorkDir;
use crate::{Context, Error, Result};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Runs `program` with `arguments`; returns its standard output.
///
/// # Errors
/// When it cannot be started, does not end within `bound` (it is killed then) or ends with another status than 0. The
/// message holds the command line and the end of what it printed.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S], bound: Duration) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, bound)
}

/// [`run`] for a command with an environment or a working directory of its own. Its standard input is empty.
///
/// # Errors
/// As [`run`].
pub fn run_command(mut command: Command, bound: Duration) -> Result<String> {
    let line = command_line(&command);
    let dir = WorkDir::new("tool")?;
    let log = dir.path("output.log");
    // Standard output is kept apart from what is only for people.
    let out = dir.path("stdout");
    let program = command.get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"out=$1; shift; exec "$@" > "$out""#, "sh"]).arg(&out).arg(&program).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    if let Some(place) = command.get_current_dir() {
        shell.current_dir(place);
    }
    command = shell;
    let mut process = Process::start(&program.to_string_lossy(), command, &log)?;
    let ended = process.wait(bound).context(|| format!("run `{line}`"));
    let text = String::from_utf8_lossy(&fs::read(&out).unwrap_or_default()).into_owned();
    let told = process.output();
    dir.finish();
    let status = ended?;
    if status.success() {
        return Ok(text);
    }
    let said = [last_lines(&text), last_lines(&told)].join("\n");
    Err(Error::new(format!("`{line}` ended with {status}\n{}", said.trim())))
}

/// Runs a command on the caller's own terminal and waits for its end without a bound: for what a person watches.
///
/// # Errors
/// When it cannot be started or ends with another status than 0.
pub fn run_visible(mut command: Command) -> Result<()> {
    let line = command_line(&command);
    let status = command.status().context(|| format!("start `{line}`"))?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("`{line}` ended with {status}"))) }
}

/// Where a program is, looked for in `$PATH` and then in the system administrator's folders, which an ordinary user's
/// `$PATH` lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// A command as one would type it, near enough to read.
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    #[test]
    fn standard_output_comes_back_alone() {
        assert_eq!(run("sh", &["-c", "echo a b; echo noise >&2"], BOUND).unwrap(), "a b\n");
    }

    #[test]
    fn a_failure_shows_command_status_and_words() {
        let error = run("sh", &["-c", "echo why >&2; exit 4"], BOUND).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("exit status: 4") && error.contains("why"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run("no-such-program", &["x"], BOUND).unwrap_err().to_string();
        assert!(error.contains("no-such-program"), "{error}");
    }

    #[test]
    fn the_bound_holds() {
        let start = std::time::Instant::now();
        let error = run("sleep", &["60"], Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("did not end within"), "{error}");
        assert!(start.elapsed() < BOUND);
    }

    #[test]
    fn programs_are_found_outside_the_path_too() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program"), None);
    }
}
