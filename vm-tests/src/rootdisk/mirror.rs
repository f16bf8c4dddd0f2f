//! Where the machine gets Debian from, for debootstrap to get it from there too.
//!
//! apt itself is asked (`apt-get indextargets`), so every format of its configuration is understood and nothing here names
//! a host. Debian's own archive is told from others that use its suites' names by the origin its release file states.

use crate::{Context, Error, Result, sys, tools};
use std::fs;
use std::time::Duration;

/// Names by which a source may mean Debian 12.
const SUITES: &[&str] = &["bookworm", "oldstable", "stable"];

/// The release debootstrap is told to make.
pub const CODENAME: &str = "bookworm";

/// One line for each index apt knows, its fields separated by what no field contains.
const FORMAT: &str = "$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(LABEL)|$(REPO_URI)";

/// The start of a URI that names a file with a list of mirrors.
const MIRROR_FILE: &str = "mirror+file:";

const ASK: Duration = Duration::from_secs(60);
const UPDATE: Duration = Duration::from_secs(600);

/// A place debootstrap can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The archive's URI.
    pub uri: String,
    /// The proxy apt uses for it, if any.
    pub proxy: Option<String>,
}

/// The machine's own archive of Debian 12.
///
/// # Errors
/// When apt knows none.
pub fn find() -> Result<Mirror> {
    let indexes = || tools::run("apt-get", &["indextargets", "--format", FORMAT, "Created-By: Packages"], ASK);
    let mut found = choose(&indexes()?);
    if found.is_none() && sys::is_root() {
        // Origins are known only after an update, and a container's image often comes without.
        tools::run("apt-get", &["-q", "-o", "DPkg::Lock::Timeout=300", "update"], UPDATE)?;
        found = choose(&indexes()?);
    }
    let mut mirror = found.context(|| {
        format!("apt knows no source for Debian 12 ({CODENAME}, component main): does `apt-get update` work?")
    })?;
    if let Some(list) = mirror.uri.strip_prefix(MIRROR_FILE) {
        let text = fs::read_to_string(list).context(|| format!("read the mirror list {list}"))?;
        mirror.uri = first_uri(&text).context(|| format!("no URI in the mirror list {list}"))?;
    }
    if !["http:", "https:", "file:"].iter().any(|scheme| mirror.uri.starts_with(scheme)) {
        return Err(Error::new(format!("debootstrap cannot get Debian from where apt does, {}", mirror.uri)));
    }
    mirror.proxy = proxy()?;
    Ok(mirror)
}

/// The first index of Debian's own `main`.
fn choose(indexes: &str) -> Option<Mirror> {
    indexes.lines().find_map(|line| {
        let fields: Vec<&str> = line.splitn(6, '|').collect();
        let [release, codename, component, origin, label, uri] = fields[..] else {
            return None;
        };
        let debian = origin == "Debian" && label == "Debian" && component == "main";
        let release = SUITES.contains(&release) && codename == CODENAME;
        (debian && release).then(|| Mirror { uri: uri.to_owned(), proxy: None })
    })
}

/// The first line of a mirror list that is not a remark, without what may follow the URI.
fn first_uri(list: &str) -> Option<String> {
    let words = list.lines().map(|line| line.split('#').next().unwrap_or(""));
    words.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).next()
}

/// The proxy in apt's configuration; an environment's is inherited as it is.
fn proxy() -> Result<Option<String>> {
    let text = tools::run("apt-config", &["--format", "%v%n", "dump", "Acquire::http::Proxy"], ASK)?;
    let proxy = text.trim();
    Ok((!proxy.is_empty() && proxy != "DIRECT").then(|| proxy.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_told_from_others_with_its_suites() {
        // apt leaves what it does not know as it is.
        let indexes = "bookworm|$(CODENAME)|main|$(ORIGIN)|$(LABEL)|http://unknown/\n\
                       bookworm|bookworm|main|Vendor|Vendor|https://vendor/bookworm/\n\
                       bookworm-security|bookworm-security|main|Debian|Debian-Security|http://m/security/\n\
                       bookworm|bookworm|contrib|Debian|Debian|http://m/contrib/\n\
                       stable|trixie|main|Debian|Debian|http://m/newer/\n\
                       oldstable|bookworm|main|Debian|Debian|http://m/debian/\n";
        let mirror = choose(indexes).unwrap();
        assert_eq!(mirror.uri, "http://m/debian/");
        assert_eq!(choose(""), None);
    }

    #[test]
    fn a_mirror_list_may_have_remarks_and_metadata() {
        let list = "# ours\n\nhttp://m/debian/\tpriority:1\nhttp://n/debian/\n";
        assert_eq!(first_uri(list).as_deref(), Some("http://m/debian/"));
        assert_eq!(first_uri("#\n"), None);
    }
}
