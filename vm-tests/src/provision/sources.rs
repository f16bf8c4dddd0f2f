//! Deriving an apt source for backports from the machine's own: the same entry for another suite.
//!
//! Where the machine gets Debian from (a mirror, a proxy, a snapshot) is its owner's choice, and so is the key it is
//! checked with; nothing here names a host. Both of apt's formats are read (sources.list(5)): one line an entry, and
//! deb822 stanzas.

use std::fs;
use std::path::{Path, PathBuf};

/// A derived source: what to write, and under which file name extension apt reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `list` or `sources`.
    pub extension: &'static str,
    /// The file's contents.
    pub text: String,
}

/// The contents of every file apt reads sources from below `etc` (`/etc/apt`), with their paths.
pub fn read_all(etc: &Path) -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(etc.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "list" || e == "sources"))
        .collect();
    paths.sort();
    paths.insert(0, etc.join("sources.list"));
    paths.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect()
}

/// Whether one of `files` offers binary packages of `suite`.
pub fn offers(files: &[(PathBuf, String)], suite: &str) -> bool {
    files.iter().any(|(path, text)| derive_from(path, text, &[suite], suite).is_some())
}

/// The first entry of `files` for one of the suites `from`, component `main`, rewritten for the suite `to`.
pub fn derive(files: &[(PathBuf, String)], from: &[&str], to: &str) -> Option<Source> {
    files.iter().find_map(|(path, text)| derive_from(path, text, from, to))
}

fn derive_from(path: &Path, text: &str, from: &[&str], to: &str) -> Option<Source> {
    if path.extension().is_some_and(|e| e == "sources") {
        let text = stanzas(text).iter().find_map(|stanza| rewrite_stanza(stanza, from, to))?;
        return Some(Source { extension: "sources", text });
    }
    let text = text.lines().find_map(|line| rewrite_line(line, from, to))?;
    Some(Source { extension: "list", text })
}

/// `deb [options] URI suite component...`, for the suite `to`.
fn rewrite_line(line: &str, from: &[&str], to: &str) -> Option<String> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    // Not `deb-src`.
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(options, rest)| (Some(options.trim()), rest))?,
        None => (None, rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    if !from.contains(&suite) || !words.any(|component| component == "main") {
        return None;
    }
    Some(match options {
        Some(options) => format!("deb [{options}] {uri} {to} main\n"),
        None => format!("deb {uri} {to} main\n"),
    })
}

/// A stanza's fields in order; a field's value keeps its continuation lines.
type Stanza = Vec<(String, String)>;

fn stanzas(text: &str) -> Vec<Stanza> {
    let mut stanzas: Vec<Stanza> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else {
            break;
        };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            stanza.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas
}

/// The stanza for binary packages of `main` in the suite `to`; every other field, such as `Signed-By`, stays.
fn rewrite_stanza(stanza: &Stanza, from: &[&str], to: &str) -> Option<String> {
    let field = |name: &str| stanza.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    let has = |name: &str, word: &str| field(name).is_some_and(|value| value.split_whitespace().any(|w| w == word));
    let enabled = field("Enabled").is_none_or(|value| !matches!(value, "no" | "false" | "0" | "off" | "disable"));
    let suite = from.iter().any(|suite| has("Suites", suite));
    if !enabled || !suite || !has("Types", "deb") || !has("Components", "main") {
        return None;
    }
    let mut text = String::new();
    for (key, value) in stanza {
        let value = match key.to_ascii_lowercase().as_str() {
            "types" => "deb",
            "suites" => to,
            "components" => "main",
            _ => value,
        };
        text.push_str(&format!("{key}: {value}\n"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &[&str] = &["bookworm", "stable"];
    const TO: &str = "bookworm-backports";

    fn file(name: &str, text: &str) -> (PathBuf, String) {
        (PathBuf::from(name), text.to_owned())
    }

    fn derived(name: &str, text: &str) -> Option<Source> {
        derive(&[file(name, text)], FROM, TO)
    }

    #[test]
    fn a_line_keeps_uri_and_options() {
        let text = "# main\ndeb-src http://mirror/debian bookworm main\n\
                    deb http://mirror/security bookworm-security main\n\
                    deb [ signed-by=/k.gpg arch=amd64 ] http://mirror/debian bookworm main contrib # ours\n";
        let source = derived("sources.list", text).unwrap();
        assert_eq!(source.extension, "list");
        assert_eq!(source.text, "deb [signed-by=/k.gpg arch=amd64] http://mirror/debian bookworm-backports main\n");
        let plain = derived("sources.list", "deb\thttp://m/d\tstable\tmain\n").unwrap();
        assert_eq!(plain.text, "deb http://m/d bookworm-backports main\n");
    }

    #[test]
    fn a_stanza_keeps_uris_and_key() {
        let text = "Types: deb\nURIs: http://other/repo\nSuites: nodistro\nComponents: main\n\n\
                    # a remark\nTypes: deb deb-src\n# another\nURIs: http://mirror/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By:\n -----BEGIN\n .\n abc\n";
        let source = derived("debian.sources", text).unwrap();
        assert_eq!(source.extension, "sources");
        assert_eq!(
            source.text,
            "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm-backports\nComponents: main\n\
             Signed-By: \n -----BEGIN\n .\n abc\n"
        );
    }

    #[test]
    fn what_does_not_serve_is_passed_over() {
        for (name, text) in [
            ("a.list", "# deb http://m/d bookworm main\n"),
            ("a.list", "deb http://m/d bookworm contrib\n"),
            ("a.list", "deb http://m/d cloud-bookworm main\n"),
            ("a.list", "deb-src http://m/d bookworm main\n"),
            ("a.list", "deb [broken http://m/d bookworm main\n"),
            ("a.sources", "Types: deb-src\nURIs: u\nSuites: bookworm\nComponents: main\n"),
            ("a.sources", "Types: deb\nURIs: u\nSuites: bookworm\nComponents: main\nEnabled: no\n"),
            ("a.sources", ""),
        ] {
            assert_eq!(derived(name, text), None, "{text}");
        }
    }

    #[test]
    fn backports_that_are_there_are_seen() {
        let with = [file("sources.list", "deb http://m/d bookworm main\ndeb http://m/d bookworm-backports main\n")];
        assert!(offers(&with, TO));
        assert!(!offers(&with[..0], TO));
        assert!(!offers(&[file("sources.list", "deb http://m/d bookworm main\n")], TO));
        let stanza = "Types: deb\nURIs: u\nSuites: bookworm bookworm-backports\nComponents: main\n";
        assert!(offers(&[file("x.sources", stanza)], TO));
    }
}
