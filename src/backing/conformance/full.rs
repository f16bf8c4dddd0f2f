//! A file system without space left. One of our own is mounted in a namespace of its own, where the machine lets us.

use super::*;

/// In the process inside the namespace: the directory where the small tmpfs is mounted.
const INSIDE: &str = "VSTGT_TEST_FULL_FILE_SYSTEM";
const NAME: &str = "backing::conformance::full::no_space_is_told_and_nothing_else_is_lost";

const HALF: usize = MIB as usize / 2;

#[test]
fn no_space_is_told_and_nothing_else_is_lost() {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return inside(Path::new(&dir));
    }
    let dir = scratch(Place::Disk);
    let namespace = |command: &[&std::ffi::OsStr]| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg("mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"")
            .arg(dir.path())
            .args(command)
            .env(INSIDE, dir.path())
            .output()
    };
    match namespace(&["true".as_ref()]) {
        Ok(output) if output.status.success() => {}
        refused => return println!("no namespaces here: {refused:?}"),
    }
    let binary = std::env::current_exe().unwrap();
    let output = namespace(&[binary.as_ref(), "--exact".as_ref(), NAME.as_ref(), "--nocapture".as_ref()]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

fn inside(dir: &Path) {
    for shared in [false, true] {
        for engine in [Engine::Uring, Engine::Inline, Engine::Mapped, Engine::Threads] {
            let case = Case { place: Place::Memory, shared, engine };
            if case.exists() {
                run(case, dir);
            }
        }
    }
}

fn run(case: Case, dir: &Path) {
    // Four times as large as its file system.
    let mut rig = case.rig_in(tempfile::tempdir_in(dir).unwrap(), 4 * MIB);
    assert_eq!(rig.write(0, &vec![1; HALF]), Ok(()));
    assert_eq!(rig.write(MIB, &vec![2; MIB as usize]), Err(BackingError::NoSpace), "{case:?}");
    let fua = Op { kind: OpKind::Write { fua: true }, offset: 2 * MIB, len: MIB };
    let (result, buf) = rig.door.run(&rig.image, fua, filled(&vec![2; MIB as usize]));
    assert_eq!(result, Err(BackingError::NoSpace), "{case:?}");
    // tmpfs zeroes only by writing.
    assert_eq!(rig.op(OpKind::WriteZeroes { unmap: false }, 2 * MIB, MIB), Err(BackingError::NoSpace), "{case:?}");
    // What was written is there, can be made durable, and can be written again.
    assert_eq!(rig.op(OpKind::Flush, 0, 0), Ok(()), "{case:?}");
    assert!(rig.read(0, HALF).unwrap() == vec![1; HALF]);
    assert_eq!(rig.write(0, &vec![3; HALF]), Ok(()));
    // Space that is given back can be used.
    assert_eq!(rig.op(OpKind::Unmap, 0, 4 * MIB), Ok(()));
    let half = Op { len: HALF as u64, ..fua };
    assert_eq!(rig.door.run(&rig.image, half, buf).0, Ok(()), "{case:?}");
    assert_eq!(rig.op(OpKind::Flush, 0, 0), Ok(()));
}
