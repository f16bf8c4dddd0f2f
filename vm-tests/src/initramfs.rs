//! The test guest's first root: busybox, the kernel modules named in `images/initramfs/modules` with what they depend
//! on (for a kernel with every driver also those in `modules-full`), and `images/initramfs/init`. It is small, because a guest without KVM spends long on unpacking it; the programs
//! are on the [guest root](crate::guestroot), which it mounts.

use crate::cache::{Cache, Recipe};
use crate::cpio::Archive;
use crate::kernel::{Kernel, Line};
use crate::{Context, Error, Result, paths, tools};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a local tool may take.
const TOOL: Duration = Duration::from_secs(120);

/// The test initramfs for a kernel of a line, from the cache when it is there. It loads the modules `more`, too, after the recipe's own.
///
/// # Errors
/// When a program or module of the recipe is missing.
pub fn get(cache: &Cache, line: Line, kernel: &Kernel, more: &[&str]) -> Result<PathBuf> {
    let source = paths::images().join("initramfs");
    let (init, mut lists) = (source.join("init"), vec![source.join("modules")]);
    if line == Line::V6_12Full {
        // Before the others: a device handler must be there when a disk is found.
        lists.insert(0, source.join("modules-full"));
    }
    let mut recipe = Recipe::new("initramfs", 1).file(&init)?;
    for list in &lists {
        recipe = recipe.file(list)?;
    }
    recipe = recipe.part(kernel.release.as_bytes());
    if !more.is_empty() {
        recipe = recipe.part(more.join(" ").as_bytes());
    }
    let entry = cache.entry(&format!("initramfs-{}", kernel.release), &recipe, |dir| {
        let mut modules = String::new();
        for list in &lists {
            modules += &fs::read_to_string(list).context(|| format!("read {}", list.display()))?;
        }
        let init = fs::read(&init).context(|| format!("read {}", init.display()))?;
        let modules: Vec<&str> = words(&modules).into_iter().chain(more.iter().copied()).collect();
        build(kernel, &modules, &init, &dir.join("initrd"))
    })?;
    Ok(entry.join("initrd"))
}

/// The words of a recipe: separated by white space, `#` starts a remark.
pub fn words(recipe: &str) -> Vec<&str> {
    recipe.lines().flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace()).collect()
}

fn build(kernel: &Kernel, modules: &[&str], init: &[u8], to: &Path) -> Result<()> {
    let mut archive = Archive::new();
    for place in ["dev", "proc", "sys", "root"] {
        archive.directory(place);
    }
    let busybox = tools::find("busybox").context(|| "no busybox on the host")?;
    for file in with_libraries(&busybox)? {
        let contents = fs::read(&file).context(|| format!("read {}", file.display()))?;
        let inside = if file == busybox { "bin/busybox".into() } else { file.to_string_lossy().replacen('/', "", 1) };
        archive.file(&inside, &contents);
    }
    archive.file("init", init);
    let mut order = String::new();
    for (number, path) in Modules::read(&kernel.modules)?.closure(modules)?.iter().enumerate() {
        let name = format!("{number:02}-{}", module_name(path));
        archive.file(&format!("modules/{name}"), &unpacked(&kernel.modules.join(path))?);
        order.push_str(&format!("{name}\n"));
    }
    archive.file("modules/order", order.as_bytes());
    compress(&archive.finish(), to)
}

/// A dynamic program and every library it needs, by their paths on the host; a static one alone.
///
/// # Errors
/// When a library is not found.
pub fn with_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![program.to_owned()];
    let Ok(text) = tools::run("ldd", &[program], TOOL) else {
        return Ok(files); // ldd fails for what is not dynamic.
    };
    for line in text.lines().map(str::trim) {
        if line.contains("not found") {
            return Err(Error::new(format!("{}: {line}", program.display())));
        }
        // `name => /path (address)` or, for the loader, `/path (address)`; the vdso has no path.
        let path = line.split(" => ").last().and_then(|rest| rest.split(" (").next());
        files.extend(path.filter(|path| path.starts_with('/')).map(PathBuf::from));
    }
    Ok(files)
}

/// A kernel's modules and their dependencies.
struct Modules {
    /// Name → path below the modules' folder, and the paths it depends on in the order to load them.
    loadable: BTreeMap<String, (String, Vec<String>)>,
    builtin: Vec<String>,
}

impl Modules {
    fn read(dir: &Path) -> Result<Modules> {
        let read =
            |name: &str| fs::read_to_string(dir.join(name)).context(|| format!("read {name} in {}", dir.display()));
        Ok(Modules::parse(&read("modules.dep")?, &read("modules.builtin")?))
    }

    fn parse(dependencies: &str, builtin: &str) -> Modules {
        let mut loadable = BTreeMap::new();
        for (path, needs) in dependencies.lines().filter_map(|line| line.split_once(':')) {
            // modules.dep lists what is to be loaded first last.
            let needs = needs.split_whitespace().rev().map(str::to_owned).collect();
            loadable.insert(module_name(path), (path.to_owned(), needs));
        }
        Modules { loadable, builtin: builtin.lines().map(module_name).collect() }
    }

    /// The paths of `names` and what they depend on, in an order they can be loaded in.
    fn closure(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut order: Vec<String> = Vec::new();
        for name in names {
            let Some((path, needs)) = self.loadable.get(*name) else {
                if self.builtin.iter().any(|builtin| builtin == name) {
                    continue;
                }
                return Err(Error::new(format!("the kernel has no module {name}")));
            };
            for file in needs.iter().chain([path]) {
                if !order.contains(file) {
                    order.push(file.clone());
                }
            }
        }
        Ok(order)
    }
}

/// A module's name, from its path: without the folder and every ending, `-` read as `_`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// A module's contents, decompressed if need be, because busybox loads only plain ones.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).context(|| format!("read {}", path.display()));
    }
    let output = Command::new("xz").arg("-dc").arg(path).stderr(Stdio::inherit()).output();
    let output = output.context(|| format!("run xz -dc {}", path.display()))?;
    if !output.status.success() {
        return Err(Error::new(format!("xz -dc {} ended with {}", path.display(), output.status)));
    }
    Ok(output.stdout)
}

fn compress(bytes: &[u8], to: &Path) -> Result<()> {
    fs::write(to, bytes).context(|| format!("write {}", to.display()))?;
    // Light compression: a guest without KVM decompresses slowly.
    tools::run("gzip", &["-1".as_ref(), "-n".as_ref(), to.as_os_str()], TOOL)?;
    let packed = to.with_extension("gz");
    fs::rename(&packed, to).context(|| format!("rename {}", packed.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/drivers/scsi/sd_mod.ko: kernel/drivers/scsi/scsi_mod.ko kernel/lib/crc-t10dif.ko.xz\n\
         kernel/drivers/scsi/scsi_mod.ko: kernel/drivers/scsi/scsi_common.ko\n\
         kernel/drivers/scsi/scsi_common.ko:\n\
         kernel/lib/crc-t10dif.ko.xz:\n";

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let modules = Modules::parse(DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n");
        let order = modules.closure(&["scsi_mod", "ext4", "sd_mod", "crc_t10dif"]).unwrap();
        let names: Vec<String> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["scsi_common", "scsi_mod", "crc_t10dif", "sd_mod"]);
        let error = modules.closure(&["floppy"]).unwrap_err().to_string();
        assert!(error.contains("floppy"), "{error}");
    }

    #[test]
    fn remarks_are_not_words() {
        assert_eq!(words("# all\na b # c\n\n d\n"), ["a", "b", "d"]);
    }
}
