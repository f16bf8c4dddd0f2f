//! The images that back-ends serve: real bytes, each block with its stamp, on tmpfs and on a disk's file system.

use super::device::{BLOCK, stamp};
use super::workload::Medium;
use crate::{Context, Result, process};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where Linux mounts a tmpfs for everybody.
const TMPFS: &str = "/dev/shm";

/// Bytes written at once.
const CHUNK: usize = 1 << 20;

/// Two folders of images, made when first asked for and removed with the value.
#[derive(Debug)]
pub struct Images {
    tmpfs: PathBuf,
    disk: PathBuf,
    bytes: u64,
}

impl Images {
    /// Images of `bytes` bytes; those on a disk below `disk`.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn new(disk: &Path, bytes: u64) -> Result<Images> {
        let name = format!("vstgt-bench-{}", std::process::id());
        let images = Images { tmpfs: Path::new(TMPFS).join(&name), disk: disk.join(&name), bytes };
        for dir in [&images.tmpfs, &images.disk] {
            fs::create_dir_all(dir).context(|| format!("make {}", dir.display()))?;
        }
        Ok(images)
    }

    /// Bytes of an image.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The image on this medium. What overwrites it without keeping its stamps must take the `spare` one. Those that are written past the page cache
    /// are others than those in it, for that empties it.
    ///
    /// # Errors
    /// When it has to be written and cannot be.
    pub fn get(&self, medium: Medium, spare: bool) -> Result<PathBuf> {
        let dir = if medium == Medium::Tmpfs { &self.tmpfs } else { &self.disk };
        let name = match (medium, spare) {
            (Medium::Direct, false) => "direct.img",
            (Medium::Direct, true) => "spare-direct.img",
            (Medium::Tmpfs | Medium::Cached, false) => "image.img",
            (Medium::Tmpfs | Medium::Cached, true) => "spare.img",
        };
        let path = dir.join(name);
        if !path.exists() {
            self.fill(&path).context(|| format!("write {}", path.display()))?;
        }
        Ok(path)
    }

    fn fill(&self, path: &Path) -> std::io::Result<()> {
        let mut file = File::create_new(path)?;
        let mut chunk = vec![0x5a; CHUNK];
        for start in (0..self.bytes / BLOCK).step_by(CHUNK / BLOCK as usize) {
            for (index, block) in chunk.chunks_mut(BLOCK as usize).enumerate() {
                block[..8].copy_from_slice(&stamp(start + index as u64));
            }
            file.write_all(&chunk)?;
        }
        // What is written back later would disturb what is measured.
        file.sync_all()
    }

    /// Makes an image on a disk clean again after writes.
    ///
    /// # Errors
    /// When the device fails.
    pub fn settle(&self, path: &Path) -> Result<()> {
        let file = File::open(path).context(|| format!("open {}", path.display()))?;
        file.sync_all().context(|| format!("write {} back", path.display()))
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        for dir in [&self.tmpfs, &self.disk] {
            drop(fs::remove_dir_all(dir));
        }
    }
}

/// The name of the file system below `dir`, for the report.
pub fn file_system(dir: &Path) -> String {
    let words = ["-n", "-o", "FSTYPE", "-T"].map(std::ffi::OsStr::new);
    let words: Vec<_> = words.into_iter().chain([dir.as_os_str()]).collect();
    let told = crate::tools::run("findmnt", &words, std::time::Duration::from_secs(10));
    told.map_or_else(|_| "an unknown file system".to_owned(), |text| process::last_lines(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;
    use std::os::unix::fs::FileExt;

    #[test]
    fn every_block_has_its_stamp() {
        let dir = WorkDir::new("images").unwrap();
        let images = Images::new(dir.root(), 4 << 20).unwrap();
        let path = images.get(Medium::Cached, false).unwrap();
        assert!(path.starts_with(dir.root()));
        assert_ne!(images.get(Medium::Direct, false).unwrap(), path);
        let file = File::open(&path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4 << 20);
        for block in 0..1024 {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, block * BLOCK).unwrap();
            assert_eq!(bytes, stamp(block));
        }
        drop(images);
        assert!(!path.exists());
        dir.finish();
    }
}
