//! The vstgt binary: command line → configuration → daemon → exit status.

use std::process::ExitCode;

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
    env_logger::Builder::new().filter_level(cli.log_level()).format_target(false).init();
    match Config::try_from(cli).map_err(daemon::Error::from).and_then(daemon::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vstgt: {e}");
            ExitCode::FAILURE
        }
    }
}
