//! The vstgt binary: command line → configuration → daemon → exit status.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use vstgt::cli::Cli;
use vstgt::config::Config;
use vstgt::daemon;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.print_capabilities {
        // Whoever asked may have gone: no reason to panic.
        let printed = writeln!(io::stdout(), "{}", vstgt::cli::CAPABILITIES);
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    start_log(&cli);
    match Config::try_from(cli).map_err(daemon::Error::from).and_then(daemon::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Standard error may be closed; the exit status says it too.
            drop(writeln!(io::stderr(), "vstgt: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to standard error: seconds since the epoch, level, text.
fn start_log(cli: &Cli) {
    env_logger::Builder::new()
        .filter_level(cli.log_level())
        .format(|out, record| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            writeln!(out, "{}.{:03} {} {}", now.as_secs(), now.subsec_millis(), record.level(), record.args())
        })
        .init();
}
