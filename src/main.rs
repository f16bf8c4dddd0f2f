//! The vstgt binary: logger, command line, daemon, exit code.
fn main() {}
