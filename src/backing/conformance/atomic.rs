//! Writes that are never torn. That they are not in a power failure is the kernel's promise; here it is seen that they are asked for as it
//! wants, that they arrive, and that an image without them says so.

use std::process::Command;

use super::*;

/// A file system of its own, on a file, unmounted when dropped.
struct Mounted {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    fn xfs() -> Mounted {
        let dir = scratch(Place::Disk);
        let (store, at) = (dir.path().join("store"), dir.path().join("mounted"));
        File::create(&store).unwrap().set_len(400 * MIB).unwrap();
        std::fs::create_dir(&at).unwrap();
        run(Command::new("mkfs.xfs").arg("-q").arg(&store));
        run(Command::new("mount").args(["-t", "xfs", "-o", "loop"]).arg(&store).arg(&at));
        Mounted { at, _dir: dir }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.at).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn supports_xfs() -> bool {
    if !Command::new("mkfs.xfs").arg("-V").output().is_ok_and(|output| output.status.success()) {
        return false;
    }
    // A module is there once it was mounted; built in it is there always.
    let listed = std::fs::read_to_string("/proc/filesystems").unwrap();
    listed.lines().any(|line| line.trim() == "xfs")
        || Command::new("modprobe").arg("xfs").status().is_ok_and(|s| s.success())
}

/// Major and minor number of the kernel's version.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// XFS writes atomically by itself since Linux 6.16.
#[test]
fn xfs_writes_whole_or_not_at_all() {
    if std::env::var_os("VSTGT_TEST_LOOP_DEVICES").is_none() || !supports_xfs() {
        println!("no XFS here");
        return;
    }
    let mounted = Mounted::xfs();
    for shared in [false, true] {
        let path = mounted.at.join(format!("image-{shared}"));
        File::create(&path).unwrap().set_len(8 * MIB).unwrap();
        let image = open(&OpenOptions { shared, block_size: 4096, ..OpenOptions::new(&path) }).unwrap();
        let Some(unit) = image.atomic_unit() else {
            assert!(kernel() < (6, 16), "XFS of {:?} can", kernel());
            refuses(&*image);
            continue;
        };
        assert_eq!((unit.min, unit.max), (4096, 1 << 20));
        let mut expected = vec![0; 8 << 20];
        let mut len = unit.min as usize;
        while len <= unit.max as usize {
            for (fua, at) in [(false, 2 << 20), (true, 3 << 20), (false, 4 * len)] {
                let data: Vec<u8> = (0..len).map(|i| (i / 3 + len + at) as u8).collect();
                image.write_atomic(at as u64, &data, fua).unwrap();
                expected[at..at + len].copy_from_slice(&data);
            }
            len *= 2;
        }
        let mut found = vec![0; 8 << 20];
        image.read_bytes(0, &mut found).unwrap();
        assert!(found == expected, "through the image");
        assert!(std::fs::read(&path).unwrap() == expected, "through the file");
        for (offset, len) in [(0, 512), (0, 12_288), (4096, 8192), (0, 2 << 20)] {
            assert_eq!(image.write_atomic(offset, &vec![0xff; len], false), Err(BackingError::Unsupported));
        }
        assert_eq!(image.write_atomic(8 * MIB, &[0xff; 4096], false), Err(BackingError::OutOfRange));
        assert!(std::fs::read(&path).unwrap() == expected);
        drop(image);
        let read_only = open(&OpenOptions { read_only: true, ..OpenOptions::new(&path) }).unwrap();
        assert_eq!(read_only.atomic_unit(), None);
    }
}

#[test]
fn an_image_that_cannot_says_so() {
    each_case(|case| {
        let rig = case.rig(MIB);
        if rig.image.atomic_unit().is_none() {
            refuses(&*rig.image);
        }
    });
}

fn refuses(image: &dyn Image) {
    assert_eq!(image.atomic_unit(), None);
    assert_eq!(image.write_atomic(0, &[0xff; 4096], false), Err(BackingError::Unsupported));
    let mut found = [1; 4096];
    image.read_bytes(0, &mut found).unwrap();
    assert_eq!(found, [0; 4096]);
}
