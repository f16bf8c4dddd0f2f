//! Who a logical unit says it is: vendor, product, revision, serial number and designators, and how serial number and NAA
//! designator come about when nobody configured them. There is no EUI-64 and no UUID unless one is configured.
//!
//! # Frozen derivation
//!
//! Guests keep these values (`/dev/disk/by-id`, multipath, cluster fencing), and two processes that serve one image must
//! agree on them. So the derivation never changes; the golden values in this module's tests hold it.
//!
//! * **Name** of an image: its canonical path (symbolic links resolved, absolute), as bytes. The same rule holds for block
//!   devices; a device node whose number may change between boots deserves a configured serial number.
//! * **Hash**: FNV-1a, 64 bits (offset basis cbf29ce484222325h, prime 100000001b3h) over the ASCII text `vstgt lu `, then
//!   one kind letter, one zero byte, then the name; the result `h` is then mixed: `h ^= h >> 30; h *=
//!   bf58476d1ce4e5b9h; h ^= h >> 27; h *= 94d049bb133111ebh; h ^= h >> 31`.
//! * **NAA**: `3` (locally assigned, SPC-4 7.8.6.6.4: no company identifier is claimed) in the top four bits, above
//!   the low 60 bits of the hash. Kind letter `p` over the image's name; if a serial number is configured, kind letter `s` over the
//!   serial number instead, so that a configured serial settles the whole identity, wherever the image lies.
//! * **Serial number**: the NAA's 16 hexadecimal digits, in lower case.

use std::path::Path;

/// Default VENDOR IDENTIFICATION, that of IBM's virtual disk.
pub const DEFAULT_VENDOR: &str = "IBM";
/// Default PRODUCT IDENTIFICATION.
pub const DEFAULT_PRODUCT: &str = "VDASD blkdev";
/// Default PRODUCT REVISION LEVEL.
pub const DEFAULT_REVISION: &str = "0001";
/// Longest serial number taken: what a T10 vendor ID designator has room for behind vendor and product.
pub const MAX_SERIAL: usize = 252 - 8 - 16;

/// What INQUIRY and its VPD pages identify a unit by. Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// VENDOR IDENTIFICATION: printable ASCII, up to 8 characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, up to 16.
    pub product: String,
    /// PRODUCT REVISION LEVEL, up to 4.
    pub revision: String,
    /// PRODUCT SERIAL NUMBER: printable ASCII, not empty.
    pub serial: String,
    /// The NAA designator, 64 bits (big-endian on the wire).
    pub naa: u64,
    /// The EUI-64 based designator: 8, 12 or 16 bytes (SPC-4 7.8.6.5).
    pub eui: Option<Vec<u8>>,
    /// The UUID designator.
    pub uuid: Option<[u8; 16]>,
}

/// Why an identity was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// T10 strings hold printable ASCII only.
    #[error("{field} '{value}' has characters other than printable ASCII")]
    NotAscii {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Too long for its field.
    #[error("{field} '{value}' is longer than {max} characters")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What fits.
        max: usize,
    },
    /// There must be a serial number.
    #[error("the serial number is empty")]
    EmptySerial,
    /// EUI-64 based designators have these lengths and no others.
    #[error("an EUI-64 based designator has 8, 12 or 16 bytes, not {0}")]
    EuiLength(usize),
}

impl Identity {
    /// Checks the texts.
    pub fn new(vendor: &str, product: &str, revision: &str, serial: &str, naa: u64) -> Result<Identity, IdentityError> {
        let serial = checked("serial number", serial, MAX_SERIAL)?;
        // Initiators strip blanks: a serial number of nothing else is none.
        if serial.trim().is_empty() {
            return Err(IdentityError::EmptySerial);
        }
        Ok(Identity {
            vendor: checked("vendor", vendor, 8)?,
            product: checked("product", product, 16)?,
            revision: checked("revision", revision, 4)?,
            serial,
            naa,
            eui: None,
            uuid: None,
        })
    }

    /// The same with further designators.
    ///
    /// # Errors
    ///
    /// [`IdentityError::EuiLength`].
    pub fn with_designators(self, eui: Option<Vec<u8>>, uuid: Option<[u8; 16]>) -> Result<Identity, IdentityError> {
        match eui {
            Some(eui) if !matches!(eui.len(), 8 | 12 | 16) => Err(IdentityError::EuiLength(eui.len())),
            _ => Ok(Identity { eui, uuid, ..self }),
        }
    }
}

/// The NAA designator and serial number of a unit whose image has the canonical path `image`, taking what is configured and
/// deriving the rest by the frozen rules above.
pub fn derive(image: &Path, serial: Option<&str>, naa: Option<u64>) -> (u64, String) {
    let naa = naa.unwrap_or_else(|| match serial {
        Some(serial) => naa_of(b's', serial.as_bytes()),
        None => naa_of(b'p', image.as_os_str().as_encoded_bytes()),
    });
    let serial = serial.map_or_else(|| format!("{naa:016x}"), str::to_owned);
    (naa, serial)
}

fn naa_of(kind: u8, name: &[u8]) -> u64 {
    const LOCALLY_ASSIGNED: u64 = 3 << 60;
    LOCALLY_ASSIGNED | hash(kind, name) & ((1 << 60) - 1)
}

fn hash(kind: u8, name: &[u8]) -> u64 {
    let fnv = |h: u64, byte: &u8| (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let h = b"vstgt lu ".iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    let h = [kind, 0].iter().fold(h, fnv);
    let h: u64 = name.iter().fold(h, fnv);
    // FNV's low bits alone are weak for names that differ in their last byte only.
    let h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ h >> 31
}

fn checked(field: &'static str, value: &str, max: usize) -> Result<String, IdentityError> {
    if !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(IdentityError::NotAscii { field, value: value.to_owned() });
    }
    if value.len() > max {
        return Err(IdentityError::TooLong { field, value: value.to_owned(), max });
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never change these values: guests hold on to them. They were computed from the description above by other means.
    #[test]
    fn frozen() {
        let golden = [
            ("/var/lib/images/disk.img", None, 0x3712_8e1d_94fd_9caa, "37128e1d94fd9caa"),
            ("/var/lib/images/disk2.img", None, 0x3c68_e39f_23f3_f7c9, "3c68e39f23f3f7c9"),
            ("/dev/sdb", None, 0x38c5_eadd_45ac_4ff0, "38c5eadd45ac4ff0"),
            ("/anything", Some("S1"), 0x36ad_6ae6_1ceb_80ec, "S1"),
        ];
        for (path, serial, naa, text) in golden {
            assert_eq!(derive(Path::new(path), serial, None), (naa, text.to_owned()), "{path}");
        }
    }

    #[test]
    fn a_configured_serial_settles_the_identity() {
        assert_eq!(derive(Path::new("/a"), Some("X"), None), derive(Path::new("/b"), Some("X"), None));
        assert_ne!(derive(Path::new("/a"), Some("X"), None).0, derive(Path::new("/a"), Some("Y"), None).0);
        // A serial number is not mistaken for a path of the same bytes.
        assert_ne!(derive(Path::new("X"), None, None).0, derive(Path::new("/a"), Some("X"), None).0);
    }

    #[test]
    fn a_configured_naa_is_taken() {
        assert_eq!(
            derive(Path::new("/a"), None, Some(0x3123_4567_89ab_cdef)),
            (0x3123_4567_89ab_cdef, "3123456789abcdef".to_owned())
        );
        assert_eq!(derive(Path::new("/a"), Some("S"), Some(0x3000_0000_0000_0001)).1, "S");
    }

    #[test]
    fn derived_names_are_locally_assigned_and_spread() {
        let mut seen = std::collections::HashSet::new();
        for i in 0..10_000 {
            let (naa, _) = derive(Path::new(&format!("/images/disk{i}")), None, None);
            assert_eq!(naa >> 60, 3);
            assert!(seen.insert(naa));
        }
        // The top bits vary too, so truncated names stay apart.
        let tops: std::collections::HashSet<_> = seen.iter().map(|n| n >> 40).collect();
        assert!(tops.len() > 9_900, "{}", tops.len());
    }

    #[test]
    fn texts_are_checked() {
        let id = Identity::new("IBM", "VDASD blkdev", "0001", "abc", 0x3000_0000_0000_0001).unwrap();
        assert_eq!((&*id.vendor, &*id.product, &*id.revision), ("IBM", "VDASD blkdev", "0001"));
        assert_eq!(
            Identity::new("IBMIBMIBM", "", "", "s", 0),
            Err(IdentityError::TooLong { field: "vendor", value: "IBMIBMIBM".into(), max: 8 })
        );
        assert!(matches!(Identity::new("\n", "", "", "s", 0), Err(IdentityError::NotAscii { field: "vendor", .. })));
        assert!(matches!(Identity::new("", "é", "", "s", 0), Err(IdentityError::NotAscii { .. })));
        assert_eq!(Identity::new("", "", "", "  ", 0), Err(IdentityError::EmptySerial));
        for (length, fits) in [(0, false), (7, false), (8, true), (12, true), (16, true), (17, false)] {
            let with = id.clone().with_designators(Some(vec![1; length]), None);
            assert_eq!(with.is_ok(), fits, "{length}");
        }
        let long = "x".repeat(MAX_SERIAL);
        assert!(Identity::new("", "", "", &long, 0).is_ok());
        assert!(Identity::new("", "", "", &(long + "x"), 0).is_err());
    }
}
