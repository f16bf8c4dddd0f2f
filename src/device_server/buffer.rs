//! WRITE BUFFER and READ BUFFER: a data buffer of the unit, and an echo buffer of each nexus.
//!
//! There is no firmware to download; all modes but data, descriptor and echo buffer are refused.

use super::transfer::{needs, parameter_data};
use super::{Answer, Planned, Task};
use crate::lu::DATA_BUFFER_CAPACITY;
use crate::lu::ECHO_BUFFER_CAPACITY;
use crate::mem::{Direction, IoBuf};
use crate::scsi::{AdditionalSense, FieldPointer, ParameterData, Sense};

/// MODE values (SPC-4 6.18, 6.49).
mod mode {
    pub(super) const DATA: u8 = 0x02;
    pub(super) const DESCRIPTOR: u8 = 0x03;
    pub(super) const ECHO: u8 = 0x0a;
    pub(super) const ECHO_DESCRIPTOR: u8 = 0x0b;
}

/// The one data buffer's BUFFER ID.
const BUFFER_ID: u8 = 0;

const NEVER_WRITTEN: Sense = Sense::illegal_request(AdditionalSense::COMMAND_SEQUENCE_ERROR);

fn invalid(byte: u16, bit: u8) -> Answer {
    Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit)).into()
}

/// WRITE BUFFER (SPC-4 6.49).
pub(super) fn write<'a>(
    task: Task<'a, '_>,
    mode: u8,
    buffer_id: u8,
    offset: u32,
    parameter_list_length: u32,
) -> Planned<'a> {
    let length = parameter_list_length;
    match mode {
        mode::DATA => {
            let (offset, _) = within_data_buffer(buffer_id, offset, length)?;
            let data = data_out(task.buf, length)?;
            task.itl.lu().records(|records| records.buffer.write(offset, &data));
        }
        // BUFFER ID and BUFFER OFFSET are ignored.
        mode::ECHO => {
            if length as usize > ECHO_BUFFER_CAPACITY {
                return Err(invalid(6, 7));
            }
            task.itl.set_echo(data_out(task.buf, length)?);
        }
        _ => return Err(invalid(1, 4)),
    }
    Ok(Answer::good(u64::from(length)).into())
}

/// READ BUFFER (SPC-4 6.18).
pub(super) fn read<'a>(
    task: Task<'a, '_>,
    mode: u8,
    buffer_id: u8,
    offset: u32,
    allocation_length: u32,
) -> Planned<'a> {
    let mut data = ParameterData::new();
    match mode {
        mode::DATA => {
            let (offset, room) = within_data_buffer(buffer_id, offset, 0)?;
            let length = room.min(allocation_length as usize);
            data.raw(&task.itl.lu().records(|records| records.buffer.read(offset, length)));
        }
        // OFFSET BOUNDARY 0: any byte. All zeros say that there is no such buffer.
        mode::DESCRIPTOR => {
            let exists = buffer_id == BUFFER_ID;
            data.u8(0).u24(if exists { DATA_BUFFER_CAPACITY as u32 } else { 0 });
        }
        mode::ECHO => {
            data.raw(&task.itl.echo().ok_or(NEVER_WRITTEN)?);
        }
        // EBOS: no nexus overwrites another's.
        mode::ECHO_DESCRIPTOR => {
            data.u8(0x01).u8(0).u16(ECHO_BUFFER_CAPACITY as u16);
        }
        _ => return Err(invalid(1, 4)),
    }
    parameter_data(task.buf, data, allocation_length)
}

/// The offset, and how many bytes there are from it on; `length` must not be more.
fn within_data_buffer(buffer_id: u8, offset: u32, length: u32) -> Result<(usize, usize), Answer> {
    if buffer_id != BUFFER_ID {
        return Err(invalid(2, 7));
    }
    let room = DATA_BUFFER_CAPACITY.checked_sub(offset as usize).ok_or(invalid(3, 7))?;
    if length as usize > room {
        return Err(invalid(6, 7));
    }
    Ok((offset as usize, room))
}

/// The first `length` bytes of Data-Out; the caller has bounded `length`.
fn data_out(buf: &IoBuf, length: u32) -> Result<Vec<u8>, Answer> {
    needs(buf, Direction::Out, u64::from(length))?;
    let mut data = vec![0; length as usize];
    buf.read_at(0, &mut data);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::{BUFFER_ID, DATA_BUFFER_CAPACITY};
    use crate::device_server::testkit::{Bench, MemImage, check, good, pattern};
    use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

    /// Byte 1 mode, byte 2 buffer ID, bytes 3–5 offset, bytes 6–8 length.
    fn cdb(opcode: u8, mode: u8, id: u8, offset: u32, length: u32) -> [u8; 10] {
        let [_, a, b, c] = offset.to_be_bytes();
        let [_, d, e, f] = length.to_be_bytes();
        [opcode, mode, id, a, b, c, d, e, f, 0]
    }

    fn write(mode: u8, id: u8, offset: u32, length: u32) -> [u8; 10] {
        cdb(0x3b, mode, id, offset, length)
    }

    fn read(mode: u8, id: u8, offset: u32, length: u32) -> [u8; 10] {
        cdb(0x3c, mode, id, offset, length)
    }

    fn bench() -> Bench {
        Bench::new(MemImage::patterned(51_200))
    }

    fn invalid_field(byte: u16, bit: u8) -> crate::device_server::Answer {
        let sense = Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x2400));
        check(sense.with_field(FieldPointer::cdb(byte, bit)))
    }

    #[test]
    fn descriptors() {
        let b = bench();
        for (length, moved) in [(0, 0), (1, 1), (4, 4), (5, 4), (0xff_ffff, 4)] {
            let ran = b.data_in(&read(0x03, 0, 0, length), 16);
            assert_eq!(ran.answer, good(moved as u64));
            assert_eq!(ran.data[..moved], [0x00, 0x01, 0x00, 0x00][..moved], "65536 bytes");
            assert!(ran.data[moved..].iter().all(|byte| *byte == 0xee));
            let ran = b.data_in(&read(0x0b, 0, 0, length), 16);
            assert_eq!(ran.answer, good(moved as u64));
            assert_eq!(ran.data[..moved], [0x01, 0x00, 0x10, 0x00][..moved], "EBOS, 4096 bytes");
        }
        assert_eq!(b.data_in(&read(0x03, 7, 0, 4), 4).data, [0; 4], "no such buffer");
    }

    #[test]
    fn data_is_kept_in_the_unit() {
        let b = bench();
        assert_eq!(b.data_in(&read(0x02, 0, 0, 16), 16).data, [0; 16], "at first zeros");
        assert_eq!(b.data_out(&write(0x02, 0, 3, 4), b"abcd"), good(4));
        assert_eq!(b.data_in(&read(0x02, 0, 2, 6), 6).data, *b"\0abcd\0");
        let whole = pattern(0, DATA_BUFFER_CAPACITY);
        assert_eq!(b.data_out(&write(0x02, 0, 0, 65_536), &whole), good(65_536));
        let ran = b.data_in(&read(0x02, 0, 0, 0xff_ffff), 70_000);
        assert_eq!(ran.answer, good(65_536));
        assert!(ran.data[..65_536] == whole);
        assert_eq!(b.data_in(&read(0x02, 0, 65_535, 16), 16).answer, good(1));
        assert_eq!(b.data_in(&read(0x02, 0, 65_536, 16), 16).answer, good(0));
        assert_eq!(b.none(&write(0x02, 0, 65_536, 0)), good(0));
    }

    #[test]
    fn what_passes_the_end_is_refused() {
        let b = bench();
        assert_eq!(b.data_out(&write(0x02, 0, 65_537, 0), &[]), invalid_field(3, 7));
        assert_eq!(b.data_out(&write(0x02, 0, 65_535, 2), &[1, 2]), invalid_field(6, 7));
        assert_eq!(b.data_in(&read(0x02, 0, 65_537, 1), 1).answer, invalid_field(3, 7));
        assert_eq!(b.data_out(&write(0x02, 1, 0, 1), &[1]), invalid_field(2, 7));
        assert_eq!(b.data_in(&read(0x02, BUFFER_ID + 1, 0, 1), 1).answer, invalid_field(2, 7));
        assert_eq!(b.data_out(&write(0x02, 0, 0, 4), &[1]), good(4), "overflow");
        assert_eq!(b.data_in(&read(0x02, 0, 65_535, 1), 1).data, [0], "nothing was written");
        assert_eq!(b.data_in(&read(0x02, 0, 0, 1), 1).data, [0]);
    }

    #[test]
    fn each_nexus_has_its_echo() {
        let mut b = bench();
        let sequence = Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x2c00));
        assert_eq!(b.data_in(&read(0x0a, 0, 0, 8), 8).answer, check(sequence), "nothing to echo");
        assert_eq!(b.data_out(&write(0x0a, 5, 6, 4), b"echo"), good(4), "ID and offset are ignored");
        for (length, moved) in [(0, 0), (1, 1), (4, 4), (5, 4)] {
            let ran = b.data_in(&read(0x0a, 0, 0, length), 8);
            assert_eq!(ran.answer, good(moved as u64));
            assert_eq!(ran.data[..moved], b"echo"[..moved]);
        }
        let mine = b.itl.clone();
        b.itl = crate::device_server::testkit::nexus_of(mine.lu().clone(), None);
        assert_eq!(b.data_in(&read(0x0a, 0, 0, 8), 8).answer, check(sequence));
        assert_eq!(b.data_out(&write(0x0a, 0, 0, 4096), &[7; 4096]), good(4096));
        assert_eq!(b.data_out(&write(0x0a, 0, 0, 4097), &[7; 4097]), invalid_field(6, 7));
        b.itl = mine;
        assert_eq!(b.data_in(&read(0x0a, 0, 0, 8), 8).answer, good(4));
        b.itl.lose_nexus();
        b.itl.gate().take_attention();
        assert_eq!(b.data_in(&read(0x0a, 0, 0, 8), 8).answer, check(sequence), "gone with the nexus");
    }

    #[test]
    fn other_modes() {
        let b = bench();
        for mode in 0..0x20 {
            if ![0x02, 0x0a].contains(&mode) {
                assert_eq!(b.data_out(&write(mode, 0, 0, 4), &[0; 4]), invalid_field(1, 4), "{mode:02x}");
            }
            if ![0x02, 0x03, 0x0a, 0x0b].contains(&mode) {
                assert_eq!(b.data_in(&read(mode, 0, 0, 4), 4).answer, invalid_field(1, 4), "{mode:02x}");
            }
        }
    }
}
