//! One command at a time to `/dev/sg*`, by `SG_IO` (the kernel's `scsi/sg.h`, version 3 of its interface).

#![allow(unsafe_code, reason = "an ioctl std does not wrap; its block argues for itself")]

use super::outcome::Outcome;
use super::stream::Transfer;
use crate::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;

/// `SG_IO`.
const SG_IO: libc::c_ulong = 0x2285;

/// Milliseconds a command may take; then the kernel aborts it, which shows as a host status.
const TIMEOUT: u32 = 60_000;

/// No data; to the device; from the device.
const DIRECTIONS: [i32; 3] = [-1, -2, -3];

/// What data-in are preset to, so that bytes that never came do not look like zeros that did.
const PRESET: u8 = 0xA5;

/// `struct sg_io_hdr`.
#[repr(C)]
struct Header {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut u8,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut u8,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

/// A disk, by its generic device.
#[derive(Debug)]
pub struct Disk {
    file: File,
}

impl Disk {
    /// Opens a generic device.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(path: &Path) -> Result<Disk> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Disk { file: file.context(|| format!("open {}", path.display()))? })
    }

    /// Performs a command.
    ///
    /// # Errors
    /// When the kernel does not take it at all.
    pub fn perform(&self, cdb: &[u8], transfer: &Transfer) -> Result<Outcome> {
        let mut sense = [0_u8; 252];
        let (direction, mut data) = match transfer {
            Transfer::None => (DIRECTIONS[0], Vec::new()),
            Transfer::Out(data) => (DIRECTIONS[1], data.clone()),
            Transfer::In(length) => (DIRECTIONS[2], vec![PRESET; *length]),
        };
        let mut header = Header {
            interface_id: i32::from(b'S'),
            dxfer_direction: direction,
            cmd_len: u8::try_from(cdb.len()).context(|| "a CDB's length")?,
            mx_sb_len: 252,
            iovec_count: 0,
            dxfer_len: u32::try_from(data.len()).context(|| "a transfer's length")?,
            dxferp: data.as_mut_ptr(),
            cmdp: cdb.as_ptr(),
            sbp: sense.as_mut_ptr(),
            timeout: TIMEOUT,
            flags: 0,
            pack_id: 0,
            usr_ptr: ptr::null_mut(),
            status: 0,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0,
            host_status: 0,
            driver_status: 0,
            resid: 0,
            duration: 0,
            info: 0,
        };
        // SAFETY: the header's layout is the kernel's; its pointers and lengths are those of buffers that live until the call returns,
        // by which time the kernel is through with them.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), SG_IO, ptr::from_mut(&mut header)) };
        if done != 0 {
            return Err(io::Error::last_os_error()).context(|| format!("SG_IO of {cdb:02X?} with {transfer:?}"));
        }
        let came = data.len().saturating_sub(usize::try_from(header.resid).unwrap_or(0));
        if matches!(transfer, Transfer::In(_)) {
            data.truncate(came);
        } else {
            data.clear();
        }
        Ok(Outcome {
            status: header.status,
            host: header.host_status,
            residual: i64::from(header.resid),
            sense: sense[..usize::from(header.sb_len_wr)].to_vec(),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_as_long_as_the_kernels() {
        assert_eq!(size_of::<Header>(), 88);
        assert_eq!(std::mem::offset_of!(Header, status), 64);
        assert_eq!(std::mem::offset_of!(Header, resid), 72);
    }
}
