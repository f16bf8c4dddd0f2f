//! Real guests under QEMU against vstgt: the harness its guest tests are written with, and what `cargo xtask` runs.
//!
//! ```text
//! provision ─► cache ─► kernel ─► initramfs ─┐
//!                  ├──► guestroot, packageroot ┤
//!                  └──► rootdisk ────────────┤
//!                                            ├─► qemu ─► guest     (one virtual machine, one shell in it)
//! workdir ─────────────► vstgt ──────────────┘
//! ```
//!
//! * [`provision`] makes the host able to run guests: packages, nothing else.
//! * [`cache`] keeps what is expensive to make (kernels, file systems) outside the repository, keyed by recipe.
//! * [`kernel`], [`initramfs`], [`guestroot`], [`packageroot`] and [`rootdisk`] make what a guest boots.
//! * [`vstgt`] runs the program under test; [`qemu`] a virtual machine, [`guest`] a shell inside it.
//! * [`cluster`] is several such machines on one disk.
//! * [`mod@bench`] loads vstgt and its peers without a guest and compares them.
//! * [`differential`] compares two disks a guest has, command by command.
//! * [`said`] checks what tools printed.
//! * [`process`], [`tools`] and [`workdir`] own what a test leaves behind: processes, and files.
//!
//! Three promises hold everywhere: every wait is bounded; every process started ends with the value that owns it;
//! and an error carries the end of the logs that explain it.

pub mod accel;
pub mod bench;
pub mod cache;
pub mod cluster;
mod cpio;
pub mod demo;
pub mod differential;
pub mod error;
pub mod fuzz;
pub mod guest;
pub mod guestroot;
pub mod host;
pub mod initramfs;
pub mod json;
pub mod kernel;
pub mod libiscsi;
pub mod migration;
pub mod packageroot;
pub mod paths;
pub mod port;
pub mod process;
pub mod provision;
pub mod qemu;
pub mod qmp;
pub mod rootdisk;
pub mod said;
pub mod sys;
pub mod tools;
pub mod vstgt;
pub mod workdir;

pub use error::{Context, Error, Result};

/// Environment variable by which guest tests are told to take their time.
pub const VSTGT_SOAK: &str = "VSTGT_SOAK";

/// How many times guest tests do what they repeat: once, or as often as finds what a short run does not.
pub fn effort() -> u32 {
    if std::env::var_os(VSTGT_SOAK).is_some() { 10 } else { 1 }
}
