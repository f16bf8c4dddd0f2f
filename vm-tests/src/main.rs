//! `cargo xtask`: what a developer runs, and what the continuous integration runs.

mod huge_pages;
mod stages;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use vm_tests::{bench, demo, fuzz, provision};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Install, demonstrate and test vstgt")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what running guests needs (Debian packages), and nothing else
    Install,
    /// Boot a real Debian guest from a disk that vstgt serves
    Demo {
        /// Stay at the guest's console
        #[arg(long)]
        keep: bool,
    },
    /// Run every check and every test
    Test {
        /// Only what needs no guest
        #[arg(long)]
        quick: bool,
    },
    /// Run the tests that take long, in their long form
    Soak,
    /// Compare vstgt's speed with its peers' on this machine
    Bench(bench::Options),
    /// Run the fuzz targets for a while
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Install => provision::ensure(),
        Task::Demo { keep } => demo::run(keep),
        Task::Test { quick } => stages::test(quick),
        Task::Soak => stages::soak(),
        Task::Bench(options) => stages::bench(options),
        Task::Fuzz(options) => fuzz::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
