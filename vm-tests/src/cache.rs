//! What is expensive to make, kept outside the repository: `$VSTGT_CACHE`, else `$XDG_CACHE_HOME/vstgt`, else
//! `~/.cache/vstgt`.
//!
//! An entry is a folder named after what it is and a hash of the recipe it was made by; another recipe is another
//! entry. It is built beside its place and renamed into it, so that it exists whole or not at all, under a lock, so that
//! of two runs one builds and the other waits. Entries are never changed; users copy what they write to.

use crate::{Context, Result, sys};
use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// Environment variable naming the cache's folder.
pub const VSTGT_CACHE: &str = "VSTGT_CACHE";

/// The cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache, making its folder.
    ///
    /// # Errors
    /// When neither the variables nor `$HOME` name a place, or it cannot be made.
    pub fn open() -> Result<Cache> {
        let named = env::var_os(VSTGT_CACHE).filter(|v| !v.is_empty()).map(PathBuf::from);
        let xdg = || env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(|v| PathBuf::from(v).join("vstgt"));
        let home = || env::var_os("HOME").filter(|v| !v.is_empty()).map(|v| PathBuf::from(v).join(".cache/vstgt"));
        let root = named.or_else(xdg).or_else(home);
        Cache::at(&root.context(|| format!("no place for the cache: set {VSTGT_CACHE} or HOME"))?)
    }

    /// Opens a cache in a given folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn at(root: &Path) -> Result<Cache> {
        let root = std::path::absolute(root).context(|| format!("resolve {}", root.display()))?;
        fs::create_dir_all(&root).context(|| format!("make the cache {}", root.display()))?;
        Ok(Cache { root })
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the entry `name` made by `recipe`, if there is one.
    pub fn find(&self, name: &str, recipe: &Recipe) -> Option<PathBuf> {
        Some(self.place(name, recipe)).filter(|place| place.is_dir())
    }

    fn place(&self, name: &str, recipe: &Recipe) -> PathBuf {
        self.root.join(format!("{name}-{:016x}", recipe.hash))
    }

    /// The folder of the entry `name` made by `recipe`; when there is none yet, `build` fills an empty folder that
    /// becomes it.
    ///
    /// # Errors
    /// What `build` returns (nothing is kept then), or what the file system says.
    pub fn entry(&self, name: &str, recipe: &Recipe, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let place = self.place(name, recipe);
        if place.is_dir() {
            return Ok(place);
        }
        let lock_path = beside(&place, ".lock");
        let lock = fs::File::create(&lock_path).context(|| format!("create {}", lock_path.display()))?;
        sys::lock(&lock, true).context(|| format!("lock {}", lock_path.display()))?;
        if place.is_dir() {
            return Ok(place);
        }
        // Under the lock, what lies here is a dead run's.
        let draft = beside(&place, ".new");
        remove(&draft)?;
        fs::create_dir(&draft).context(|| format!("make {}", draft.display()))?;
        match build(&draft) {
            Ok(()) => fs::rename(&draft, &place).context(|| format!("keep {}", place.display()))?,
            Err(error) => {
                remove(&draft)?;
                return Err(error).context(|| format!("make the cached {name}"));
            }
        }
        Ok(place)
    }
}

fn beside(place: &Path, suffix: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {} (process {})", dir.display(), process::id()))
        }
        _ => Ok(()),
    }
}

/// Everything an entry is made from, hashed. What changes the result must be fed here; a part's length goes in too, so
/// that `ab`,`c` and `a`,`bc` differ.
#[derive(Debug, Clone)]
pub struct Recipe {
    hash: u64,
}

impl Recipe {
    /// A recipe of a kind; raise `version` when the code that builds the entry changes its result.
    pub fn new(kind: &str, version: u32) -> Recipe {
        let start = Recipe { hash: 0xcbf2_9ce4_8422_2325 };
        start.part(kind.as_bytes()).part(&version.to_le_bytes())
    }

    /// Adds a part.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Recipe {
        self.feed(&(bytes.len() as u64).to_le_bytes());
        self.feed(bytes);
        self
    }

    /// Adds a file's contents (not its name).
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(self, path: &Path) -> Result<Recipe> {
        let bytes = fs::read(path).context(|| format!("read {}", path.display()))?;
        Ok(self.part(&bytes))
    }

    /// FNV-1a, 64 bits: the recipes are ours, so accidents are all it must tell apart.
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::workdir::WorkDir;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn an_entry_is_built_once_and_its_recipe_tells_it_apart() {
        let dir = WorkDir::new("cache").unwrap();
        let cache = Cache::at(dir.root()).unwrap();
        let built = AtomicU32::new(0);
        let make = |recipe: &Recipe| {
            cache.entry("thing", recipe, |place| {
                built.fetch_add(1, Ordering::Relaxed);
                fs::write(place.join("file"), "x").context(|| "write")
            })
        };
        let one = make(&Recipe::new("thing", 1).part(b"ab").part(b"c")).unwrap();
        assert_eq!(one, make(&Recipe::new("thing", 1).part(b"ab").part(b"c")).unwrap());
        assert_eq!(built.load(Ordering::Relaxed), 1);
        assert!(one.join("file").exists());
        assert_ne!(one, make(&Recipe::new("thing", 1).part(b"a").part(b"bc")).unwrap());
        assert_ne!(one, make(&Recipe::new("thing", 2).part(b"ab").part(b"c")).unwrap());
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let dir = WorkDir::new("cache").unwrap();
        let cache = Cache::at(dir.root()).unwrap();
        let recipe = Recipe::new("thing", 1);
        let error = cache.entry("thing", &recipe, |place| {
            fs::write(place.join("half"), "x").unwrap();
            Err(Error::new("no network"))
        });
        assert!(error.unwrap_err().to_string().contains("no network"));
        let entry = cache.entry("thing", &recipe, |_| Ok(())).unwrap();
        assert_eq!(fs::read_dir(entry).unwrap().count(), 0);
    }

    #[test]
    fn two_at_once_build_once() {
        let dir = WorkDir::new("cache").unwrap();
        let cache = Cache::at(dir.root()).unwrap();
        let built = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let entry = cache.entry("thing", &Recipe::new("thing", 1), |_| {
                        built.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(30));
                        Ok(())
                    });
                    assert!(entry.unwrap().is_dir());
                });
            }
        });
        assert_eq!(built.load(Ordering::Relaxed), 1);
    }
}
