//! The list of tests that cannot pass, and why: whatever is not on it must pass, and what is on it must end as it says.
//!
//! ```text
//! # configurations  test               verdict  reason
//! 512,4096          NoMedia.NoMediaSBC skipped  the medium cannot be removed
//! ```

use super::{Test, Verdict};
use crate::{Context, Error, Result};
use std::collections::BTreeMap;

/// Such a list.
#[derive(Debug)]
pub struct Expected {
    exceptions: BTreeMap<(String, String), (Verdict, String)>,
}

impl Expected {
    /// Reads the list, of these configurations.
    ///
    /// # Errors
    /// When a line has no such form, names another configuration, or says something of a test that another line spoke of.
    pub fn read(text: &str, configurations: &[&str]) -> Result<Expected> {
        let mut exceptions = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let mut word = || words.next().context(|| format!("the line \"{line}\": a word is missing"));
            let (of, test, verdict) = (word()?, word()?, word()?);
            let verdict = Verdict::LISTED.iter().find(|one| one.name() == verdict).copied();
            let verdict = verdict.context(|| format!("the line \"{line}\": its verdict"))?;
            let reason = words.collect::<Vec<_>>().join(" ");
            if reason.is_empty() {
                return Err(Error::new(format!("the line \"{line}\" gives no reason")));
            }
            for configuration in of.split(',') {
                let key = (configuration.to_owned(), test.to_owned());
                if !configurations.contains(&configuration)
                    || exceptions.insert(key, (verdict, reason.clone())).is_some()
                {
                    return Err(Error::new(format!("the line \"{line}\": {configuration} is unknown, or said before")));
                }
            }
        }
        Ok(Expected { exceptions })
    }

    /// What is wrong with the tests run in one configuration, each of `names` once; `listed` are all there are.
    pub fn complaints(&self, configuration: &str, listed: &[String], names: &[String], tests: &[Test]) -> Vec<String> {
        let mut complaints = Vec::new();
        for name in names {
            let run: Vec<&Test> = tests.iter().filter(|test| test.name == *name).collect();
            let [test] = run[..] else {
                complaints.push(format!("{configuration}: {name} ran {} times", run.len()));
                continue;
            };
            let exception = self.exceptions.get(&(configuration.to_owned(), name.clone()));
            let (expected, why) = exception.map_or((Verdict::Passed, ""), |(verdict, why)| (*verdict, why));
            if test.verdict != expected {
                let (found, expected) = (test.verdict.name(), expected.name());
                complaints.push(format!("{configuration}: {name} {found} instead of {expected} {why}\n{}", test.said));
            }
        }
        let of_this = self.exceptions.keys().filter(|(of, name)| of == configuration && !listed.contains(name));
        complaints.extend(of_this.map(|(_, name)| format!("{configuration}: there is no test {name}")));
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a remark\n\n512,4096  A.One  skipped  because of it\n512 A.Two write-protected it is\n";

    fn test(name: &str, verdict: Verdict) -> Test {
        Test { name: name.to_owned(), verdict, said: "its words\n".to_owned() }
    }

    fn complaints(configuration: &str, tests: &[Test]) -> Vec<String> {
        let listed = ["A.One", "A.Two", "A.Three"].map(str::to_owned);
        Expected::read(TEXT, &["512", "4096"]).unwrap().complaints(configuration, &listed, &listed, tests)
    }

    #[test]
    fn what_is_listed_must_be_so_and_all_else_pass() {
        let (one, two) = (test("A.One", Verdict::Skipped), test("A.Two", Verdict::WriteProtected));
        let three = test("A.Three", Verdict::Passed);
        assert_eq!(complaints("512", &[one.clone(), two.clone(), three.clone()]), Vec::<String>::new());
        assert_eq!(
            complaints("4096", &[one.clone(), two, three.clone()]),
            ["4096: A.Two write-protected instead of passed \nits words\n"]
        );
        let passes = [test("A.One", Verdict::Passed), test("A.Two", Verdict::WriteProtected), three];
        assert_eq!(complaints("512", &passes), ["512: A.One passed instead of skipped because of it\nits words\n"]);
        assert_eq!(
            complaints("4096", &[one.clone(), one]),
            ["4096: A.One ran 2 times", "4096: A.Two ran 0 times", "4096: A.Three ran 0 times"]
        );
    }

    #[test]
    fn lists_that_say_nothing_are_refused() {
        let refused = |text: &str| Expected::read(text, &["512"]).unwrap_err().to_string();
        assert!(refused("512 A.One skipped").contains("no reason"));
        assert!(refused("512 A.One").contains("missing"));
        assert!(refused("512 A.One passed so there").contains("verdict"));
        assert!(refused("513 A.One skipped so").contains("unknown"));
        assert!(refused("512 A.One skipped so\n512 A.One failed so").contains("said before"));
        let no_such = Expected::read("512 B.Zero skipped so", &["512"]).unwrap();
        assert_eq!(no_such.complaints("512", &[], &[], &[]), ["512: there is no test B.Zero"]);
    }
}
