//! The operating system, wrapped: mailboxes with a wake-up, the wait set of a reactor, the io_uring instance, file locks.
//!
//! # Contract
//!
//! Nothing in here knows what it is used for. The unsafe code is in [`ring`] (io_uring), [`wait`], [`mod@file`], [`mod@event`] and others (system calls),
//! each with its argument.

pub mod accounts;
pub mod background;
pub mod clock;
pub mod drowse;
pub mod event;
pub mod fair;
pub mod fd;
pub mod file;
pub mod limits;
pub mod mailbox;
pub mod pool;
pub mod random;
pub mod rate_limit;
pub mod ring;
pub mod signals;
pub mod sync;
pub mod turns;
pub mod unix_socket;
pub mod wait;
