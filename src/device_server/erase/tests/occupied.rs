//! What is performed while the medium is erased, and how far it is.

use super::*;
use crate::device_server::testkit::Call;
use crate::lu::Attention;
use crate::scsi::opcode::{self, Readiness};

/// SBC-3 4.11.2 and 5.3.1: INQUIRY, REPORT LUNS and REQUEST SENSE are performed, all else is refused; whoever asks.
#[test]
fn every_command_but_three_is_refused() {
    for (begin, code) in [(&BLOCK_ERASE[..], 0x041b), (&[0x04, 0x10, 0, 0, 0, 0], 0x0404)] {
        let rig = Rig::new(MemImage::new(8192));
        let other = rig.other();
        assert_eq!(rig.bench.data_out(begin, &[0, 0x02, 0, 0]).sense, None);
        let late = rig.other();
        let refused = check(Sense::not_ready(AdditionalSense(code)).with_progress(0));
        for bench in [&rig.bench, &other, &late] {
            for row in opcode::rows() {
                let mut cdb = vec![0; row.usage.cdb_length()];
                cdb[0] = row.opcode;
                cdb[1] = row.service_action.unwrap_or(0) as u8;
                // What is not taken otherwise: an allocation length, a parameter list.
                match (row.opcode, row.service_action) {
                    (0xa3, Some(0x0d)) => cdb[9] = 4,
                    (0x48, Some(0x01)) => cdb[8] = 5,
                    _ => {}
                }
                let answer = match (row.opcode, row.service_action) {
                    (0x48, Some(0x01)) => bench.data_out(&cdb, &[1, 0, 0, 1, 0]),
                    _ => bench.none(&cdb),
                };
                if matches!(row.opcode, 0x03 | 0x12 | 0xa0) {
                    assert_eq!(row.readiness, Readiness::Any, "{}", row.name);
                    assert_eq!(answer.sense, None, "{}", row.name);
                } else {
                    assert_eq!(answer, refused, "{}", row.name);
                }
            }
        }
        assert_eq!(rig.background.len(), 1, "none of them began anything");
        rig.background.run();
        for bench in [&rig.bench, &other, &late] {
            assert_eq!(bench.none(&TEST_UNIT_READY), good(0));
        }
    }
}

/// SPC-4 4.5.2.4.4: in 65536ths, in either format, and in parameter data as in sense data.
#[test]
fn progress() {
    let rig = Rig::new(MemImage::patterned(4 * MIB));
    assert_eq!(rig.overwrite(0x81, 0x02, &[0x11]), good(5));
    rig.bench.image.calls();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    // A flush comes after four writes: the sixth call is the first of the second pass.
    let itl = Arc::clone(rig.itl());
    let look = {
        let seen = Arc::clone(&seen);
        move || seen.lock().unwrap().push(itl.lu().occupied_sense())
    };
    rig.bench.image.at_call(7, look);
    let before = rig.request_sense();
    assert_eq!(before, [0x70, 0, 0x02, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x1b, 0, 0x80, 0x00, 0x00]);
    let descriptor = rig.bench.data_in(&[0x03, 0x01, 0, 0, 252, 0], 252);
    assert_eq!(descriptor.answer, good(16));
    assert_eq!(descriptor.data[..16], [0x72, 0x02, 0x04, 0x1b, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0x80, 0, 0, 0]);
    rig.background.run();
    // Five of eight steps were done when the second pass wrote its second one.
    assert_eq!(*seen.lock().unwrap(), [Sense::not_ready(AdditionalSense(0x041b)).with_progress(5 * 8192)]);
    assert_eq!(rig.request_sense()[2..14], [0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0], "NO SENSE");
    assert_eq!(rig.bench.image.calls().len(), 10);
}

/// Unit attentions come first, as always, and are not lost.
#[test]
fn attentions_come_first() {
    let rig = Rig::new(MemImage::new(8192));
    let other = rig.other();
    assert_eq!(rig.bench.none(&BLOCK_ERASE), good(0));
    other.itl.establish(Attention::CapacityChanged);
    assert_eq!(other.none(&TEST_UNIT_READY), check(Sense::unit_attention(AdditionalSense(0x2a09))));
    assert_eq!(other.none(&TEST_UNIT_READY), sanitizing(0));
}

/// A reset does not end it (SBC-3 4.11.2), nor does the loss of the nexus that began it.
#[test]
fn nothing_ends_it() {
    let rig = Rig::new(MemImage::patterned(8192));
    let other = rig.other();
    assert_eq!(rig.bench.none(&BLOCK_ERASE), good(0));
    rig.lu().reset();
    rig.itl().end();
    rig.lu().start();
    assert_eq!(other.none(&TEST_UNIT_READY), check(Sense::unit_attention(AdditionalSense(0x2903))));
    assert_eq!(other.none(&TEST_UNIT_READY), sanitizing(0));
    assert_eq!(rig.background.len(), 1);
    rig.background.run();
    assert_eq!(other.none(&TEST_UNIT_READY), good(0));
    assert_eq!(rig.bench.image.bytes(), vec![0; 8192]);
}

/// Where there is no thread the command says so, and the medium stays closed.
#[test]
fn without_a_thread() {
    let rig = Rig::new(MemImage::patterned(8192));
    rig.background.refuse();
    assert_eq!(rig.bench.none(&BLOCK_ERASE), medium_error(0x3103));
    assert_eq!(rig.test_unit_ready(), medium_error(0x3103));
    assert!(!rig.bench.image.calls().contains(&Call::Unmap(0, 8192)));
}
