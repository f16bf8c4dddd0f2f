//! Images that become larger or smaller while they are open.

use super::*;

const SIZE: u64 = 1 << 20;

fn resize(rig: &Rig, size: u64) {
    File::options().write(true).open(&rig.store).unwrap().set_len(size).unwrap();
    if rig.path != rig.store {
        let status = Command::new("losetup").arg("--set-capacity").arg(&rig.path).status().unwrap();
        assert!(status.success());
    }
}

#[test]
fn a_larger_file_is_used_once_it_was_looked_at() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        rig.write(0, &vec![1; SIZE as usize]).unwrap();
        assert_eq!(rig.image.refresh_size(4096), Ok(SIZE), "{case:?}");
        resize(&rig, 2 * SIZE);
        let new = vec![2; 8192];
        assert_eq!(rig.image.size(), SIZE);
        assert_eq!(rig.write(SIZE, &new), Err(BackingError::OutOfRange), "{case:?}");
        assert_eq!(rig.image.refresh_size(4096), Ok(2 * SIZE), "{case:?}");
        assert_eq!(rig.image.size(), 2 * SIZE);
        rig.write(2 * SIZE - 8192, &new).unwrap();
        assert!(rig.read(2 * SIZE - 8192, 8192).unwrap() == new);
        // Across the old end.
        let across = rig.read(SIZE - 4096, 8192).unwrap();
        assert!(across[..4096] == [1; 4096] && across[4096..] == [0; 4096], "{case:?}");
        assert_eq!(rig.read(2 * SIZE, 4096), Err(BackingError::OutOfRange));
        assert!(rig.file(2 * SIZE - 8192, 8192) == new);
    });
}

#[test]
fn only_whole_blocks_count_and_no_blocks_are_not_believed() {
    each_case(|case| {
        if case.place == Place::Device {
            return;
        }
        let mut rig = case.rig(SIZE);
        rig.write(0, &vec![1; SIZE as usize]).unwrap();
        resize(&rig, SIZE + 4095);
        assert_eq!(rig.image.refresh_size(4096), Ok(SIZE), "{case:?}");
        resize(&rig, SIZE / 2 + 1);
        assert_eq!(rig.image.refresh_size(4096), Ok(SIZE / 2), "{case:?}");
        assert_eq!(rig.read(SIZE / 2, 4096), Err(BackingError::OutOfRange));
        assert!(rig.read(0, SIZE as usize / 2).unwrap() == vec![1; SIZE as usize / 2]);
        for nothing in [4095, 0] {
            resize(&rig, nothing);
            assert_eq!(rig.image.refresh_size(4096), Ok(SIZE / 2), "{case:?}");
            assert_eq!(rig.read(0, 4096), Err(BackingError::ReadFailed), "{case:?}");
        }
    });
}
