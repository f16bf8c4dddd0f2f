//! What the host sees of an image: its contents' digest, the space it takes, a file inside its file system.

use crate::workdir::WorkDir;
use crate::{Context, Result, tools};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How long a local tool may take.
const TOOL: Duration = Duration::from_secs(120);

/// The bytes a file takes on its file system: less than its size when it has holes.
///
/// # Errors
/// When it cannot be looked at.
pub fn allocated(file: &Path) -> Result<u64> {
    let metadata = fs::metadata(file).context(|| format!("look at {}", file.display()))?;
    // st_blocks counts 512 bytes, whatever the file system's block.
    Ok(metadata.blocks() * 512)
}

/// A file's SHA-256, in hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    let text = tools::run("sha256sum", &[file], TOOL)?;
    text.split_whitespace().next().map(str::to_owned).context(|| format!("sha256sum said {text}"))
}

/// The SHA-256 of a file inside the ext4 file system that fills `image`, read without mounting it.
///
/// # Errors
/// When the file system or the file in it cannot be read.
pub fn sha256_in_ext4(image: &Path, path: &str) -> Result<String> {
    let dir = WorkDir::new("dump")?;
    let copy = dir.path("copy");
    let request = format!("dump {path} {}", copy.display());
    debugfs(&["-R".as_ref(), request.as_ref(), image.as_os_str()])?;
    sha256(&copy)
}

/// Checks the ext4 file system that fills `image`, changing nothing.
///
/// # Errors
/// When it has errors.
pub fn check_ext4(image: &Path) -> Result<()> {
    let e2fsck = tools::find("e2fsck").context(|| "no e2fsck on the host")?;
    tools::run(&e2fsck.to_string_lossy(), &["-f".as_ref(), "-n".as_ref(), image.as_os_str()], TOOL).map(drop)
}

fn debugfs(words: &[&std::ffi::OsStr]) -> Result<String> {
    let debugfs = tools::find("debugfs").context(|| "no debugfs on the host")?;
    tools::run(&debugfs.to_string_lossy(), words, TOOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_no_space() {
        let dir = WorkDir::new("host").unwrap();
        let image = dir.sparse("image", 8 << 20).unwrap();
        assert!(allocated(&image).unwrap() < 1 << 20);
        fs::write(&image, vec![1; 4 << 20]).unwrap();
        assert!(allocated(&image).unwrap() >= 4 << 20);
    }

    #[test]
    fn a_digest_is_the_standards() {
        let dir = WorkDir::new("host").unwrap();
        let file = dir.path("abc");
        fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file).unwrap(), expected);
    }
}
