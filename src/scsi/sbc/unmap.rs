//! UNMAP parameter lists (SBC-3 5.35.2).

use crate::scsi::{AdditionalSense, FieldPointer, Sense, be_bytes};

/// Length of the parameter list's header, and of one block descriptor.
const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

/// A range of logical blocks, not empty and within the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub lba: u64,
    /// Number of blocks, at least 1.
    pub blocks: u64,
}

/// What one UNMAP command may ask for; as the Block Limits page tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmapLimits {
    /// MAXIMUM UNMAP LBA COUNT; [`u32::MAX`] is no limit.
    pub blocks: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT; [`u32::MAX`] is no limit.
    pub descriptors: u32,
    /// The unit's number of logical blocks.
    pub capacity: u64,
}

/// The extents of an UNMAP parameter list, in its order; they may overlap. Nothing is to be unmapped unless all of
/// it is right.
///
/// An empty list, and descriptors with 0 blocks, ask for nothing. A last descriptor that UNMAP BLOCK DESCRIPTOR DATA LENGTH cuts is
/// ignored, as the standard says.
///
/// # Errors
///
/// PARAMETER LIST LENGTH ERROR if the list ends before its header or its descriptors do; INVALID FIELD IN PARAMETER LIST
/// if the limits are exceeded or UNMAP DATA LENGTH does not cover the descriptors; LOGICAL BLOCK ADDRESS OUT OF RANGE.
pub fn unmap_extents(list: &[u8], limits: UnmapLimits) -> Result<Vec<Extent>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let [_, _, _, _, _, _, _, _]: [u8; HEADER] = be_bytes(list, 0).ok_or(TRUNCATED)?;
    let data_length = field(list, 0)?;
    let length = field(list, 2)?;
    // UNMAP DATA LENGTH counts from byte 2 on.
    if data_length < length + HEADER - 2 {
        return Err(invalid(0));
    }
    let descriptors = list.get(HEADER..HEADER + length).ok_or(TRUNCATED)?.chunks_exact(DESCRIPTOR);
    if descriptors.len() as u64 > u64::from(limits.descriptors) {
        return Err(invalid(2));
    }
    let mut extents = Vec::with_capacity(descriptors.len());
    let mut total = 0;
    for (index, descriptor) in descriptors.enumerate() {
        let at = HEADER + index * DESCRIPTOR;
        let lba = u64::from_be_bytes(be_bytes(descriptor, 0).ok_or(TRUNCATED)?);
        let blocks = u64::from(u32::from_be_bytes(be_bytes(descriptor, 8).ok_or(TRUNCATED)?));
        if lba.checked_add(blocks).is_none_or(|end| end > limits.capacity) {
            return Err(Sense::lba_out_of_range(FieldPointer::parameter_list(at as u16, 7)));
        }
        // At most 4095 descriptors of 32 bits each.
        total += blocks;
        if limits.blocks != u32::MAX && total > u64::from(limits.blocks) {
            return Err(invalid(at + 8));
        }
        if blocks > 0 {
            extents.push(Extent { lba, blocks });
        }
    }
    Ok(extents)
}

const TRUNCATED: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

fn invalid(byte: usize) -> Sense {
    // A parameter list has at most 65535 bytes.
    Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte as u16, 7))
}

fn field(list: &[u8], at: usize) -> Result<usize, Sense> {
    be_bytes(list, at).map(u16::from_be_bytes).map(usize::from).ok_or(TRUNCATED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection;
    use proptest::prelude::*;

    const LIMITS: UnmapLimits = UnmapLimits { blocks: 100, descriptors: 3, capacity: 1000 };

    fn list(extents: &[(u64, u32)]) -> Vec<u8> {
        let length = (extents.len() * DESCRIPTOR) as u16;
        let mut list = [(length + 6).to_be_bytes(), length.to_be_bytes(), [0; 2], [0; 2]].concat();
        for (lba, blocks) in extents {
            list.extend(lba.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        list
    }

    /// SBC-3 tables 104 and 105.
    #[test]
    fn two_extents() {
        let bytes = [
            0, 38, 0, 32, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 5, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 3, 0xe7, 0, 0, 0, 1, 0, 0, 0, 0,
        ];
        let extents = unmap_extents(&bytes, LIMITS).unwrap();
        assert_eq!(extents, [Extent { lba: 10, blocks: 5 }, Extent { lba: 999, blocks: 1 }]);
        assert_eq!(list(&[(10, 5), (999, 1)]), bytes);
    }

    #[test]
    fn lists_that_ask_for_nothing() {
        assert_eq!(unmap_extents(&[], LIMITS), Ok(vec![]));
        assert_eq!(unmap_extents(&list(&[]), LIMITS), Ok(vec![]));
        assert_eq!(unmap_extents(&list(&[(1000, 0), (5, 0)]), LIMITS), Ok(vec![]));
    }

    #[test]
    fn the_list_must_be_there() {
        let whole = list(&[(0, 1), (1, 1)]);
        for end in 1..whole.len() {
            assert_eq!(unmap_extents(&whole[..end], LIMITS), Err(TRUNCATED), "{end}");
        }
        let longer = [whole.clone(), vec![0xff; 16]].concat();
        assert_eq!(unmap_extents(&longer, LIMITS).unwrap().len(), 2);
        let mut short = whole;
        short[1] = 37;
        assert_eq!(unmap_extents(&short, LIMITS), Err(invalid(0)));
    }

    #[test]
    fn a_cut_descriptor_is_ignored() {
        let mut cut = list(&[(0, 1), (1, 1)]);
        cut[3] = 31;
        assert_eq!(unmap_extents(&cut, LIMITS), Ok(vec![Extent { lba: 0, blocks: 1 }]));
    }

    #[test]
    fn limits() {
        assert_eq!(unmap_extents(&list(&[(0, 1); 3]), LIMITS).unwrap().len(), 3);
        assert_eq!(unmap_extents(&list(&[(0, 1); 4]), LIMITS), Err(invalid(2)));
        assert!(unmap_extents(&list(&[(0, 60), (0, 40)]), LIMITS).is_ok());
        assert_eq!(unmap_extents(&list(&[(0, 60), (0, 41)]), LIMITS), Err(invalid(32)));
        let none = UnmapLimits { blocks: u32::MAX, descriptors: u32::MAX, capacity: u64::MAX };
        assert_eq!(unmap_extents(&list(&[(0, u32::MAX); 4]), none).unwrap().len(), 4);
    }

    #[test]
    fn beyond_the_medium() {
        let out = |at| Err(Sense::lba_out_of_range(FieldPointer::parameter_list(at, 7)));
        assert_eq!(unmap_extents(&list(&[(0, 1), (1000, 1)]), LIMITS), out(24));
        assert_eq!(unmap_extents(&list(&[(999, 2)]), LIMITS), out(8));
        assert_eq!(unmap_extents(&list(&[(u64::MAX, 2)]), LIMITS), out(8));
        assert_eq!(unmap_extents(&list(&[(1001, 0)]), LIMITS), out(8));
    }

    proptest! {
        /// Any bytes are taken or refused; nothing panics, and every extent is within the unit.
        #[test]
        fn any_bytes(
            header in (0..80_u16, 0..80_u16),
            rest in collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 4..80),
            capacity: u64,
        ) {
            let list = [&header.0.to_be_bytes(), &header.1.to_be_bytes(), rest.as_slice()].concat();
            let limits = UnmapLimits { capacity, blocks: u32::MAX, ..LIMITS };
            for extent in unmap_extents(&list, limits).into_iter().flatten() {
                prop_assert!(extent.blocks > 0 && extent.lba + extent.blocks <= capacity);
            }
        }
    }
}
