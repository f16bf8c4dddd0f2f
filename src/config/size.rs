//! Sizes as people write them.

/// Bytes from a number, perhaps with a unit: K, M, G or T, of 1024 each.
pub(super) fn parse(text: &str) -> Option<u64> {
    let units = ["K", "M", "G", "T"];
    let unit = units.iter().position(|unit| text.to_ascii_uppercase().ends_with(unit));
    let (digits, shift) = match unit {
        Some(at) => (text.get(..text.len() - 1)?, 10 * (at as u32 + 1)),
        None => (text, 0),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_size_is_a_number_with_a_unit_or_without() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64k", 1 << 16), ("3M", 3 << 20), ("4G", 4 << 30), ("16T", 16 << 40)]
        {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "G", "-1", "+1", "1.5G", "4 G", "4GB", "4Gi", "1E", "99999999T", "18446744073709551616", "Gé"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
