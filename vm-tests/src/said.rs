//! What a tool printed, checked: by phrases and by numbers behind their labels.

use crate::{Context, Error, Result};

/// A text with every white space as one space and in lower case.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// That a tool's output has every one of these phrases; white space and case do not matter.
///
/// # Errors
/// Names the first phrase that is missing, and the output.
pub fn says(output: &str, phrases: &[&str]) -> Result<()> {
    let said = plain(output);
    match phrases.iter().find(|phrase| !said.contains(&plain(phrase))) {
        Some(missing) => Err(Error::new(format!("no \"{missing}\" in:\n{output}"))),
        None => Ok(()),
    }
}

/// That it has none of these phrases.
///
/// # Errors
/// Names the first phrase that is there, and the output.
pub fn never_says(output: &str, phrases: &[&str]) -> Result<()> {
    let said = plain(output);
    match phrases.iter().find(|phrase| said.contains(&plain(phrase))) {
        Some(there) => Err(Error::new(format!("\"{there}\" in:\n{output}"))),
        None => Ok(()),
    }
}

/// The number that follows `label`, decimal or `0x`; what ends it does not matter.
///
/// # Errors
/// When the label is missing or no number follows.
pub fn number(output: &str, label: &str) -> Result<i128> {
    let (_, rest) = output.split_once(label).context(|| format!("no \"{label}\" in:\n{output}"))?;
    let word = rest.split_whitespace().next().unwrap_or_default();
    let (radix, digits) = word.strip_prefix("0x").map_or((10, word), |digits| (16, digits));
    let end = digits.find(|c: char| !c.is_digit(radix) && c != '-').unwrap_or(digits.len());
    let parsed = i128::from_str_radix(&digits[..end], radix);
    parsed.context(|| format!("no number behind \"{label}\" in:\n{output}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_whatever_the_space() {
        let output = "Vendor identification:   IBM\n Product: disk";
        says(output, &["vendor IDENTIFICATION: ibm", "IBM Product:"]).unwrap();
        assert!(says(output, &["Product", "ACME"]).unwrap_err().to_string().contains("ACME"));
        never_says(output, &["ACME"]).unwrap();
        assert!(never_says(output, &["ACME", "product: disk"]).is_err());
    }

    #[test]
    fn numbers_follow_labels() {
        let output = "blocks=131072, Last LBA=0x1ffff]\nMaximum: -1 [unbounded]";
        assert_eq!(number(output, "blocks=").unwrap(), 131_072);
        assert_eq!(number(output, "LBA=").unwrap(), 0x1_ffff);
        assert_eq!(number(output, "Maximum:").unwrap(), -1);
        assert!(number(output, "Last").is_err());
        assert!(number(output, "size").is_err());
    }
}
