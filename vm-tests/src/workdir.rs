//! A private folder for one test's sockets, images and logs.
//!
//! Its path is short, because a Unix socket's path may have only 107 bytes. It is removed when dropped, except that a
//! panicking test keeps its `*.log` files, whose paths the errors name, and `VSTGT_KEEP=1` keeps everything.

use crate::{Context, Result};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process, thread};

/// Environment variable: keep every work folder.
pub const KEEP: &str = "VSTGT_KEEP";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A folder that goes away with its value.
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
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = env::temp_dir().join(format!("vstgt-{name}-{}-{number}", process::id()));
        // A folder of the same name can only be a dead process's that had our id.
        drop(fs::remove_dir_all(&root));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&root)
            .context(|| format!("make {}", root.display()))?;
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
        file.set_len(bytes)
            .context(|| format!("size {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if env::var_os(KEEP).is_some() {
            return;
        }
        if !thread::panicking() {
            drop(fs::remove_dir_all(&self.root));
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

    #[test]
    fn it_is_private_short_and_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let dir = WorkDir::new("w").unwrap();
        let root = dir.root().to_owned();
        assert_eq!(
            fs::metadata(&root).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::create_dir(dir.path("sub")).unwrap();
        drop(dir);
        assert!(!root.exists());
    }

    #[test]
    fn a_panicking_test_keeps_its_logs_only() {
        let root = thread::spawn(|| {
            let dir = WorkDir::new("w").unwrap();
            let root = dir.root().to_owned();
            fs::write(dir.path("a.log"), "x").unwrap();
            fs::write(dir.path("disk.img"), "x").unwrap();
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _held = dir;
                std::panic::resume_unwind(Box::new(()));
            }))
            .unwrap_err();
            root
        });
        let root = root.join().unwrap();
        assert!(root.join("a.log").exists() && !root.join("disk.img").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
