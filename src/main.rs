//! The vstgt binary: command line → configuration → daemon → exit status.

use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use vstgt::cli::Cli;
use vstgt::config::Config;
use vstgt::daemon;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.print_capabilities {
        println!("{}", vstgt::cli::CAPABILITIES);
        return ExitCode::SUCCESS;
    }
    start_log(cli.log_level());
    match Config::try_from(cli).map_err(daemon::Error::from).and_then(daemon::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vstgt: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to standard error: seconds since the epoch, level, text.
fn start_log(level: log::LevelFilter) {
    env_logger::Builder::new()
        .filter_level(level)
        .format(|out, record| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            writeln!(out, "{}.{:03} {} {}", now.as_secs(), now.subsec_millis(), record.level(), record.args())
        })
        .init();
}
