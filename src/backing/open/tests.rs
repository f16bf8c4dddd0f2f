use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

fn message(options: &OpenOptions) -> String {
    let message = open(options).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: ", options.path.display())), "{message}");
    assert!(!message.contains('\n'));
    message
}

fn file(dir: &Path, name: &str, size: u64) -> OpenOptions {
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(size).unwrap();
    OpenOptions::new(path)
}

#[test]
fn what_is_no_image_is_refused_with_the_mend() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| OpenOptions::new(dir.path().join(name));
    assert!(message(&at("missing")).contains("no such image; create it first"));
    assert!(message(&at("missing/below")).contains("no such image"));
    assert!(message(&OpenOptions::new(dir.path())).contains("is a directory"));
    assert!(message(&OpenOptions::new("/dev/null")).contains("is a character device"));
    let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    assert!(message(&at("socket")).contains("is a socket"));
    // Opening a FIFO would wait for its other end.
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap().success());
    assert!(message(&at("fifo")).contains("is a FIFO"));
    assert!(message(&file(dir.path(), "empty", 0)).contains("is empty; give it a size"));
    assert!(message(&OpenOptions::new(dir.path().join("empty").join("below"))).contains("Not a directory"));
    symlink("loop", dir.path().join("loop")).unwrap();
    assert!(message(&at("loop")).contains("cannot be opened"));
}

#[test]
fn the_size_must_be_whole_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "image", 5 * 512);
    assert_eq!(open(&image).unwrap().size(), 2560);
    let large = OpenOptions { block_size: 4096, ..image.clone() };
    let text = message(&large);
    assert!(text.contains("2560 bytes is not a multiple of the block size of 4096"), "{text}");
    assert!(text.contains("truncate -s %4096"), "{text}");
    message(&file(dir.path(), "ragged", 1025));
    for block_size in [0, 1, 256, 513, 520, 1 << 17, u32::MAX] {
        assert!(message(&OpenOptions { block_size, ..image.clone() }).contains("a block size of"));
    }
}

#[test]
fn an_image_tells_what_space_it_takes_and_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let image = open(&file(dir.path(), "image", 8 << 20)).unwrap();
    let before = image.space().unwrap();
    assert!(before.used < 1 << 20, "sparse: {before:?}");
    image.write_bytes(0, &vec![0xaa; 4 << 20]).unwrap();
    image.flush().unwrap();
    let after = image.space().unwrap();
    assert!((4 << 20..6 << 20).contains(&after.used), "{after:?}");
    assert!(after.available > 0, "{after:?}");
}

#[test]
fn permissions() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "image", 4096);
    std::fs::set_permissions(&image.path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let read_only = OpenOptions { read_only: true, ..image.clone() };
    assert!(open(&read_only).unwrap().capabilities().read_only);
    // The superuser may do everything; there, only the words can be checked.
    let denied = || io::Error::from_raw_os_error(libc::EACCES);
    let text = match open(&image) {
        Err(e) => e.to_string(),
        Ok(_) => refused(&image, denied()).to_string(),
    };
    assert!(text.contains("not permitted to open it for reading and writing"), "{text}");
    assert!(text.ends_with("or open it with read-only"), "{text}");
    let text = refused(&read_only, denied()).to_string();
    assert!(text.ends_with("not permitted to open it for reading; check its owner and mode"), "{text}");
    let text = refused(&image, io::Error::from_raw_os_error(libc::EROFS)).to_string();
    assert!(text.contains("open it with read-only"), "{text}");
}

#[test]
fn a_symbolic_link_leads_to_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "image", 4096);
    let link = dir.path().join("link");
    symlink(&image.path, &link).unwrap();
    assert_eq!(open(&OpenOptions::new(link)).unwrap().size(), 4096);
}

#[test]
fn a_latched_image_is_not_for_io_uring() {
    // tmpfs has no direct I/O.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let shared = OpenOptions { shared: true, ..file(dir.path(), "image", 4096) };
    let image = open(&shared).unwrap();
    assert!(image.raw().is_none() && !image.capabilities().direct && image.capabilities().never_waits);
    drop(image);
    let ring = OpenOptions { engine: EngineChoice::IoUring, ..shared.clone() };
    assert!(message(&ring).contains("io_uring cannot serve it while it is shared"));
    // Nobody writes to it, so nobody tears it.
    let read_only = OpenOptions { read_only: true, ..ring };
    assert!(open(&read_only).unwrap().raw().is_some());
}

fn with(options: &OpenOptions, cache: CacheMode, shared: bool) -> OpenOptions {
    OpenOptions { cache, shared, ..options.clone() }
}

/// On a file system with direct I/O, as the machines of this project's tests have.
#[test]
fn the_page_cache_is_used_or_not_as_the_mode_says() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let image = file(dir.path(), "image", 1 << 20);
    for (cache, alone, shared) in [
        (CacheMode::Auto, false, true),
        (CacheMode::Writeback, false, false),
        (CacheMode::Writethrough, false, false),
        (CacheMode::None, true, true),
        (CacheMode::Directsync, true, true),
        (CacheMode::Unsafe, false, false),
    ] {
        let direct = |shared| {
            let image = open_raw(&with(&image, cache, shared)).unwrap();
            let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", image.file().fd())).unwrap();
            let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let really = i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_DIRECT != 0;
            assert_eq!(really, image.capabilities().direct);
            // A shared image that is not direct takes the latch, past which no ring may go.
            assert_eq!(image.raw().is_some(), !shared || really);
            really
        };
        assert_eq!((direct(false), direct(true)), (alone, shared), "{cache:?}");
        assert_eq!(open(&with(&image, cache, false)).unwrap().capabilities().volatile, cache == CacheMode::Unsafe);
    }
}

#[test]
fn what_is_in_memory_is_not_cached_again() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = file(dir.path(), "image", 1 << 20);
    for cache in [CacheMode::None, CacheMode::Directsync] {
        let image = open(&with(&image, cache, false)).unwrap();
        assert!(image.capabilities().never_waits && !image.capabilities().direct);
    }
}

/// A flush that failed fails for ever; one that is not done does not.
#[test]
fn an_unsafe_image_is_not_flushed() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let image = file(dir.path(), "image", 1 << 20);
    for (cache, fails) in [(CacheMode::Writeback, true), (CacheMode::Unsafe, false)] {
        let image = open(&with(&image, cache, false)).unwrap();
        image.had_lost_writes();
        assert_eq!(image.flush().is_err(), fails);
        let buf = crate::mem::IoBuf::owned(512, crate::mem::Direction::Out);
        assert_eq!(image.write(0, 512, &buf, 0, true).is_err(), fails);
    }
}
