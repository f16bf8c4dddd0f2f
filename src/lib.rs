//! vstgt: SCSI disks for many virtual machines, served over vhost-user by one unprivileged process.
//!
//! To every guest it is the target side of IBM's virtual SCSI: it plays ibmvstgt, an SRP target, runs the Linux tgt
//! event flow inside itself, and makes **each guest connection its own I_T nexus**.
//!
//! # A command's straight line
//!
//! ```text
//! QEMU ⇄ vhost_user → virtio_scsi → srp → tgt → target → device_server → lu → backing ⇄ image
//!        session,     wire structs,  IUs,  events, nexuses, SPC / SBC,    unit,  raw files,
//!        memory,      chain rules    login rings   LUN map, command →     gate   engines
//!        vrings                      credit        task set plan
//! ```
//!
//! kick → pop a descriptor chain ([`virtio_scsi`]) → an SRP_CMD information unit whose data-buffer descriptors *are* the
//! guest's descriptors ([`srp`]) → `CMD_REQ` on the reactor's tx ring ([`tgt`]) → the target finds the nexus (`itn_id`)
//! and the LUN ([`target`]) → admission and decoding ([`device_server`], [`scsi`], [`lu`]) → a
//! [`Plan`](device_server::Plan) → an engine reads or writes guest memory directly ([`backing`], [`mem`]) → `CMD_RSP`
//! on the rx ring → SRP_RSP (status, residuals, sense, credit) → virtio-scsi response → used ring → `CMD_DONE`.
//!
//! [`hba`] is the reactor that moves all of it: it plays ibmvstgt, the low-level driver. [`daemon`] builds the pieces
//! from a validated [`config`].
//!
//! # Rooms
//!
//! | room | holds | knows nothing of |
//! |---|---|---|
//! | [`cli`] [`config`] [`daemon`] | command line → validated config → target, units, sockets, reactors; ordered shutdown | SCSI bytes |
//! | [`scsi`] | T10 vocabulary: LUNs, status, sense, CDBs, the opcode table, parameter data | I/O, virtio, threads |
//! | [`srp`] | information units, data-buffer descriptors, the target port | virtio |
//! | [`tgt`] | the seven events, the event rings, hosts | virtio, SCSI commands |
//! | [`virtio_scsi`] | wire structs, the split ring, descriptor-chain rules, control and event queue formats | the target |
//! | [`vhost_user`] | the session with one front-end: handshake, memory, vrings, what is in flight (`inflight`), what a migration wants logged (`dirty_log`), drain | SCSI |
//! | [`hba`] | the reactor: chains → IUs → events, answers → used rings | SPC, SBC |
//! | [`target`] | targets, nexus table, LUN map, tasks, task management | virtio, SRP |
//! | [`device_server`] | command × unit × nexus → plan; the one place where a backing error becomes sense | threads, virtio |
//! | [`lu`] | a logical unit: identity, geometry, I_T_L gates, unit attentions, mode state | targets |
//! | [`state_dir`] | what of a unit outlives the process: its file and who writes it, and what COMPARE AND WRITE was about to write (`intents`) | targets |
//! | [`sandbox`] | what the running process may still do: privileges, files, system calls | everything else |
//! | [`backing`] | images and engines behind one trait | SCSI |
//! | [`mem`] | guest memory: maps, snapshots, pinned I/O buffers, the dirty log that every write to it is marked in; image files that are mapped | everything above |
//! | [`sys`] | mailboxes, the wait set, io_uring, file locks | everything above |
//!
//! Dependencies run one way; the `layering` test reads the `use` edges and holds them to a table.
//!
//! # Threads
//!
//! A few **reactors** (one per CPU by default, fixed in number) own all virtqueues: each virtqueue belongs to one
//! reactor, and a reactor never enters a call that can wait for a device. One **session** thread per front-end
//! connection reads vhost-user messages and talks to reactors by mail. Blocking work runs on I/O threads that mail
//! their result back. There is no lock and no shared read-modify-write on a command's way, with one exception: where a unit that
//! several initiators reach cannot be opened for direct I/O (tmpfs), its commands take a striped range latch, so that no block is
//! seen half old, half new.

pub mod backing;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod device_server;
#[cfg(test)]
mod fault_table;
pub mod hba;
#[cfg(test)]
mod layering;
pub mod lu;
pub mod mem;
pub mod sandbox;
pub mod scsi;
pub mod srp;
pub mod state_dir;
pub mod sys;
pub mod target;
pub mod tgt;
pub mod vhost_user;
pub mod virtio_scsi;
