//! What `iscsi-test-cu` prints, which is CUnit's
//!
//! ```text
//! Suite: ProutReserve
//!   Test: Simple ...
//!     what it says
//! passed
//!   Test: AccessEA ...FAILED
//!     1. test_prout_reserve_access.c:44  - CU_ASSERT_EQUAL(ret,0)
//! ```
//!
//! with the tests' own words in between. Each test ends with the one word or the other, alone or followed by words of what comes next.

use super::{Test, Verdict};

/// What of it is of use, as an extended regular expression: thousands of lines say only that one more command succeeded.
pub(super) const TELLING: &str = "^Suite: |^  Test: |^passed|^FAILED|SKIPPED|FAILED|^    [0-9]+\\.";

/// What the tool says of a write that a unit refused because it may not be written (DATA PROTECT, WRITE PROTECTED) ...
const PROTECTED: &str = "(0x07) / ASCQ WRITE_PROTECTED(0x2700)";

/// ... and what where it expected other sense data.
const PROTECTED_INSTEAD: &str = "(0x07)/(0x2700)";

/// Reads it. The second is a test that has no end, if there is one: the tool ended there.
pub(super) fn parse(output: &str) -> (Vec<Test>, Option<Test>) {
    let mut tests: Vec<Test> = Vec::new();
    let mut suite = "";
    let mut open: Option<Test> = None;
    for line in output.lines() {
        let mut words = line;
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name.trim();
            continue;
        }
        if let Some(rest) = line.strip_prefix("  Test: ") {
            let (test, after) = rest.split_once(" ...").unwrap_or((rest, ""));
            open = Some(Test { name: format!("{suite}.{test}"), verdict: Verdict::Crashed, said: String::new() });
            words = after;
        } else if let Some(last) = tests.last_mut().filter(|_| open.is_none()) {
            // Which assertions failed is told behind the end.
            if last.verdict == Verdict::Failed && line.starts_with("    ") {
                last.said.push_str(line);
                last.said.push('\n');
            }
        }
        let Some(test) = &mut open else {
            continue;
        };
        test.said.push_str(line);
        test.said.push('\n');
        test.verdict = match words {
            _ if words.starts_with("FAILED") && write_protected(&test.said) => Verdict::WriteProtected,
            _ if words.starts_with("FAILED") => Verdict::Failed,
            _ if words.starts_with("passed") && test.said.contains("[SKIPPED]") => Verdict::Skipped,
            _ if words.starts_with("passed") => Verdict::Passed,
            _ => continue,
        };
        tests.extend(open.take());
    }
    (tests, open)
}

/// Whether the first thing that failed is that something could not be written. Then nothing can be said of the rest.
fn write_protected(said: &str) -> bool {
    let first = said.lines().find(|line| line.contains("[FAILED]"));
    first.is_some_and(|line| line.contains(PROTECTED) || line.contains(PROTECTED_INSTEAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(output: &str) -> Vec<(String, Verdict)> {
        parse(output).0.into_iter().map(|test| (test.name, test.verdict)).collect()
    }

    #[test]
    fn ends_are_told_apart() {
        let output = "Suite: A\n  Test: One ...\n    all is well\npassed\n  Test: Two ...    a remark\n    [FAILED] so it is\nFAILED\n    \
                      1. x.c:1 - CU_ASSERT\n  Test: Three ...\n    [SKIPPED] cannot\npassed    of the next\nSuite: B\n  Test: One ...passed\n\
                      Run Summary: passed 2\n";
        let expected = [
            ("A.One", Verdict::Passed),
            ("A.Two", Verdict::Failed),
            ("A.Three", Verdict::Skipped),
            ("B.One", Verdict::Passed),
        ];
        assert_eq!(verdicts(output), expected.map(|(name, verdict)| (name.to_owned(), verdict)));
        let (tests, open) = parse(output);
        assert_eq!(open, None);
        assert!(tests[1].said.ends_with("CU_ASSERT\n"), "{}", tests[1].said);
        assert_eq!(tests[2].said, "  Test: Three ...\n    [SKIPPED] cannot\npassed    of the next\n");
    }

    #[test]
    fn a_test_without_an_end_crashed() {
        let (tests, open) = parse("Suite: A\n  Test: One ...passed\n  Test: Two ...\n    hangs\n");
        assert_eq!((tests.len(), open.as_ref().map(|test| test.name.as_str())), (1, Some("A.Two")));
        assert_eq!(open.map(|test| test.verdict), Some(Verdict::Crashed));
        assert_eq!(parse("cannot connect\n"), (vec![], None));
    }

    #[test]
    fn writes_refused_are_told_apart_from_failure() {
        let refused = "    [FAILED] WRITE10 command failed with status 2 / sense key DATA PROTECTION(0x07) / ASCQ WRITE_PROTECTED(0x2700)\n";
        let instead = "    [FAILED] ORWRITE failed with wrong sense. Should have failed with A(0x05)/B(0x2100) but failed with Sense: X(0x07)/(0x2700)\n";
        let other = "    [FAILED] Blocks did not read back as zero\n";
        let verdict = |said: &str| verdicts(&format!("Suite: A\n  Test: One ...\n{said}FAILED\n"))[0].1;
        assert_eq!(verdict(refused), Verdict::WriteProtected);
        assert_eq!(verdict(instead), Verdict::WriteProtected);
        assert_eq!(verdict(&format!("{refused}{other}")), Verdict::WriteProtected);
        assert_eq!(verdict(&format!("{other}{refused}")), Verdict::Failed);
        assert_eq!(verdict(other), Verdict::Failed);
        assert_eq!(verdict(""), Verdict::Failed);
    }
}
