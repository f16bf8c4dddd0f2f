//! Holds `docs/faults.md` to what it says: each test that it names is there.

use std::fs;
use std::path::Path;

/// `path::name` of everything in backticks that ends so.
fn named(text: &str) -> Vec<(&str, &str)> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    words.filter_map(|word| word.rsplit_once("::")).filter(|(path, _)| path.ends_with(".rs")).collect()
}

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let named = named(&table);
    assert!(named.len() > 30, "{named:?}");
    let missing = |(path, name): &&(&str, &str)| {
        let source = fs::read_to_string(root.join(path)).unwrap_or_default();
        let Some((before, _)) = source.split_once(&format!("fn {name}(")) else { return true };
        // The attribute is right above, or only other attributes are between.
        !before.trim_end().lines().rev().take_while(|line| !line.trim().is_empty()).any(|line| line.trim() == "#[test]")
    };
    let missing: Vec<_> = named.iter().filter(missing).collect();
    assert!(missing.is_empty(), "docs/faults.md names tests that are not there: {missing:?}");
}

#[test]
fn names_are_found_in_rows_only() {
    let text = "`a.rs::b`\n| fault `x` | `src::y` | `a.rs::b` `c/d.rs::e` |\n";
    assert_eq!(named(text), [("a.rs", "b"), ("c/d.rs", "e")]);
}
