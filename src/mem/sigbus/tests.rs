use std::process::Command;
use std::sync::Arc;

use crate::mem::testing::{memfd, memory, spec};
use crate::mem::{MemoryMap, Region};

const PAGE: u64 = 4096;

#[test]
fn a_file_that_shrinks_poisons_its_own_region_only() {
    let file = memfd(64 * PAGE);
    let shrunk = Region::map(&spec(0, 64 * PAGE, 0), file.try_clone().unwrap()).unwrap();
    let map = MemoryMap::new(vec![Arc::clone(&shrunk)]).unwrap();
    let other = memory(&[(0, 4 * PAGE)]);
    other.write(PAGE, b"untouched").unwrap();
    map.write(10 * PAGE, b"there").unwrap();
    file.set_len(2 * PAGE).unwrap();

    // What is left of the file is still served, and nothing is known yet.
    map.write(PAGE, b"x").unwrap();
    assert!(!map.poisoned());

    let mut got = [0xaa; 5];
    map.read(10 * PAGE, &mut got).unwrap();
    assert_eq!(got, [0; 5], "zeros where there is nothing");
    assert!(map.poisoned() && shrunk.poisoned());
    map.write(63 * PAGE, b"anywhere").unwrap();
    map.read(2 * PAGE - 3, &mut got).unwrap();

    assert!(!other.poisoned());
    let mut got = [0; 9];
    other.read(PAGE, &mut got).unwrap();
    assert_eq!(&got, b"untouched");
    assert!(map.same_region(&spec(0, 64 * PAGE, 0), &file).is_none(), "not used again");
}

#[test]
fn stores_and_odd_boundaries_fault_as_well() {
    let file = memfd(8 * PAGE);
    let map =
        MemoryMap::new(vec![Region::map(&spec(0x777, 5 * PAGE, PAGE + 0x777), file.try_clone().unwrap()).unwrap()])
            .unwrap();
    file.set_len(0).unwrap();
    map.write(0x777 + 5 * PAGE - 1, b"!").unwrap();
    assert!(map.poisoned());
}

#[test]
fn many_threads_may_fault_at_once() {
    let file = memfd(256 * PAGE);
    let map = Arc::new(
        MemoryMap::new(vec![Region::map(&spec(0, 256 * PAGE, 0), file.try_clone().unwrap()).unwrap()]).unwrap(),
    );
    file.set_len(0).unwrap();
    let threads: Vec<_> = (0..8u64)
        .map(|i| {
            let map = Arc::clone(&map);
            std::thread::spawn(move || {
                for page in 0..256 {
                    map.write(((page * 7 + i * 31) % 256) * PAGE, &[1]).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert!(map.poisoned());
}

#[test]
fn a_slot_is_used_again_and_starts_clean() {
    for _ in 0..100 {
        let file = memfd(PAGE);
        let region = Region::map(&spec(0, PAGE, 0), file.try_clone().unwrap()).unwrap();
        assert!(!region.poisoned());
        file.set_len(0).unwrap();
        MemoryMap::new(vec![Arc::clone(&region)]).unwrap().write(0, &[1]).unwrap();
        assert!(region.poisoned());
    }
}

/// Set in the process that is to die.
const VICTIM: &str = "VSTGT_TEST_SIGBUS_VICTIM";

#[test]
fn a_fault_elsewhere_still_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    if std::env::var_os(VICTIM).is_some() {
        fault_outside_guest_memory();
    }
    let this = std::env::current_exe().unwrap();
    let test = "mem::sigbus::tests::a_fault_elsewhere_still_ends_the_process";
    let output = Command::new(this).args(["--exact", test, "--test-threads=1"]).env(VICTIM, "1").output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
}

fn fault_outside_guest_memory() {
    // The handler is in place and has a region to look after.
    let _map = memory(&[(0, PAGE)]);
    let file = memfd(PAGE);
    let mapping =
        vm_memory::MmapRegion::<()>::from_file(vm_memory::FileOffset::new(file.try_clone().unwrap(), 0), PAGE as usize)
            .unwrap();
    file.set_len(0).unwrap();
    // SAFETY: mapped; that the access raises SIGBUS is the point.
    unsafe { mapping.as_ptr().write_volatile(1) };
}
