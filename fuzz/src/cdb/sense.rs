//! Whether sense data is as SPC-4 4.5 lays it out.

/// Panics if it is not. `cdb_len` is how long the command was.
pub fn check(sense: &[u8], cdb_len: usize) {
    assert!((8..=252).contains(&sense.len()), "{sense:02x?}");
    assert_eq!(sense.len(), 8 + usize::from(sense[7]), "ADDITIONAL SENSE LENGTH of {sense:02x?}");
    match sense[0] & 0x7f {
        0x70 | 0x71 => fixed(sense, cdb_len),
        0x72 | 0x73 => descriptors(sense, cdb_len),
        other => panic!("response code {other:#x}"),
    }
}

fn fixed(sense: &[u8], cdb_len: usize) {
    assert!(sense.len() >= 18, "{sense:02x?}");
    key(sense[2] & 0x0f);
    assert_eq!(sense[1], 0, "an obsolete byte");
    specific(sense[2] & 0x0f, &sense[15..18], cdb_len);
}

fn descriptors(sense: &[u8], cdb_len: usize) {
    key(sense[1] & 0x0f);
    assert_eq!(&sense[4..7], &[0, 0, 0], "reserved bytes of {sense:02x?}");
    let mut rest = &sense[8..];
    while !rest.is_empty() {
        assert!(rest.len() >= 2, "{sense:02x?}");
        let len = 2 + usize::from(rest[1]);
        assert!(rest.len() >= len, "a descriptor that does not end: {sense:02x?}");
        match rest[0] {
            0x00 => assert!(len == 12 && rest[2] & 0x80 != 0, "information without VALID: {sense:02x?}"),
            0x02 => {
                assert_eq!(len, 8);
                specific(sense[1] & 0x0f, &rest[4..7], cdb_len);
            }
            _ => {}
        }
        rest = &rest[len..];
    }
}

fn key(key: u8) {
    assert!(!matches!(key, 0x9 | 0xc), "sense key {key:#x} is vendor specific or obsolete");
}

/// SENSE KEY SPECIFIC: a field pointer points into the command, or somewhere into its parameter list.
fn specific(key: u8, bytes: &[u8], cdb_len: usize) {
    if bytes[0] & 0x80 == 0 {
        assert_eq!(bytes, [0; 3], "sense key specific bytes without SKSV");
        return;
    }
    let field = u16::from_be_bytes([bytes[1], bytes[2]]);
    match key {
        0x5 if bytes[0] & 0x40 != 0 => assert!(usize::from(field) < cdb_len, "byte {field} of a CDB of {cdb_len}"),
        0x5 | 0x0 | 0x2 | 0xa => {}
        other => panic!("sense key specific bytes with sense key {other:#x}"),
    }
}
