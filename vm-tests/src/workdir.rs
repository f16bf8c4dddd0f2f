//! A private folder for one test's sockets, images and logs.
//!
//! Its path is short, because a Unix socket's path may have only 107 bytes. Whoever is through with it removes it with
//! [`WorkDir::finish`]; one that is merely dropped belongs to something that failed, and keeps its `*.log` files, whose
//! paths errors name. `VSTGT_KEEP=1` keeps everything.

use crate::{Context, Result};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

/// Environment variable: keep every work folder.
pub const KEEP: &str = "VSTGT_KEEP";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A folder of one's own.
#[derive(Debug)]
pub struct WorkDir {
    root: PathBuf,
}

impl WorkDir {
    /// Makes a folder only this user may enter. `name` makes it recognisable.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<WorkDir> {
        WorkDir::below(&env::temp_dir(), name)
    }

    /// [`new`](WorkDir::new), on a file system in memory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn in_memory(name: &str) -> Result<WorkDir> {
        WorkDir::below(Path::new("/dev/shm"), name)
    }

    fn below(parent: &Path, name: &str) -> Result<WorkDir> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = parent.join(format!("vstgt-{name}-{}-{number}", process::id()));
        // A folder of the same name can only be a dead process's that had our id.
        drop(fs::remove_dir_all(&root));
        fs::DirBuilder::new().mode(0o700).create(&root).context(|| format!("make {}", root.display()))?;
        Ok(WorkDir { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a sparse file of `bytes` bytes in it and returns its path.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn sparse(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.path(name);
        let file = fs::File::create_new(&path).context(|| format!("create {}", path.display()))?;
        file.set_len(bytes).context(|| format!("size {}", path.display()))?;
        Ok(path)
    }
}

impl WorkDir {
    /// Removes it and all that is in it.
    pub fn finish(self) {
        if env::var_os(KEEP).is_none() {
            drop(fs::remove_dir_all(&self.root));
        }
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if env::var_os(KEEP).is_some() {
            return;
        }
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.path().extension().is_none_or(|e| e != "log") {
                drop(fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path())));
            }
        }
        // Succeeds only when there was no log to keep.
        drop(fs::remove_dir(&self.root));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_and_goes_when_finished() {
        let dir = WorkDir::new("w").unwrap();
        let root = dir.root().to_owned();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(dir.path("sub")).unwrap();
        fs::write(dir.path("a.log"), "x").unwrap();
        dir.finish();
        assert!(!root.exists());
    }

    #[test]
    fn unfinished_it_keeps_its_logs_only() {
        let dir = WorkDir::new("w").unwrap();
        let root = dir.root().to_owned();
        fs::write(dir.path("a.log"), "x").unwrap();
        fs::write(dir.path("disk.img"), "x").unwrap();
        fs::create_dir_all(dir.path("sub/sub")).unwrap();
        drop(dir);
        let left: Vec<_> = fs::read_dir(&root).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["a.log"]);
        fs::remove_dir_all(root).unwrap();
    }
}
