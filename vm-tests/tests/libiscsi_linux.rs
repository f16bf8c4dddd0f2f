//! libiscsi's tests of what Linux needs of a disk, on a real `/dev/sd` of a guest, which has it by two paths.
//!
//! What cannot pass is listed, with its reason, in `libiscsi_linux/expected.txt`.

use vm_tests::guest::Guest;
use vm_tests::libiscsi::{self, Disk, Expected};
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, effort, provision};

const MIB: u64 = 1 << 20;

/// The disk's size: less than 65536 blocks, because tests read so many at once if there are, and Linux lets nobody.
const SIZE: u64 = 16 * MIB;

/// How many tests libiscsi 1.19 has, which is Debian 12's.
const TESTS: usize = 155;

/// The one that is for a disk that may not be written.
const READ_ONLY: &str = "ReadOnly.ReadOnlySBC";

#[test]
fn linux_has_what_it_needs_of_a_disk() -> Result<()> {
    provision::check()?;
    let expected = Expected::read(include_str!("libiscsi_linux/expected.txt"), &["two-paths", "read-only"])?;
    let dir = WorkDir::new("linux")?;
    let (red, blue) = (dir.path("red.sock"), dir.path("blue.sock"));
    let vstgt = Config::new()
        .socket_with(&red, ",initiator=red")
        .socket_with(&blue, ",initiator=blue")
        .lun(&dir.sparse("disk.img", SIZE)?, ",serial=LINUX01,physical-block-size=4096")
        .lun(&dir.sparse("fixed.img", MIB)?, ",lun=1,serial=FIXED01,read-only=on,provisioning=thin,initiator=red")
        .arg("-v")
        .start(&dir.path("vstgt.log"))?;
    let machine = Machine::new("guest")?.vhost_user_scsi(&red, 2).vhost_user_scsi(&blue, 2);
    let mut guest = Guest::start_boot_debian(machine, dir.root())?.ready()?;
    let paths = guest.disks("LINUX01", 2)?;
    // Thin provisioned, so that what it refuses of unmapping is that it writes. Nobody may open it for writing but by its generic device.
    let (fixed, _) = Disk::find(&mut guest, "FIXED01", 1)?;

    let listed = libiscsi::list_linux(&mut guest)?;
    assert_eq!(listed.len(), TESTS);
    let (read_only, writing): (Vec<String>, Vec<String>) = listed.iter().cloned().partition(|name| name == READ_ONLY);
    for _ in 0..effort() {
        let tests = libiscsi::conform_linux(&mut guest, &writing, &paths)?;
        println!("two-paths: {}", libiscsi::counts(&tests));
        let mut complaints = expected.complaints("two-paths", &listed, &writing, &tests);
        let tests = libiscsi::conform_linux(&mut guest, &read_only, &fixed.generic)?;
        complaints.extend(expected.complaints("read-only", &listed, &read_only, &tests));
        libiscsi::settle(&complaints)?;
    }
    guest.poweroff()?;
    vstgt.terminate()?;
    dir.finish();
    Ok(())
}
