//! In what two outcomes of one command differ.

use super::outcome::{End, Outcome};
use std::fmt;

/// An aspect of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// It stops the peer altogether, so it is not sent at all.
    Halt,
    /// One of them ended it with a unit attention first.
    Attention,
    /// Status, or sense key and additional sense code.
    End,
    /// The sense-key specific bytes, where both give them: the field pointer.
    Pointer,
    /// INFORMATION, where both give it.
    Information,
    /// The residual.
    Residual,
    /// Data-in, as far as both gave them.
    Data,
    /// What is on the medium afterwards.
    Medium,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Aspect; 8] = [
        Aspect::Halt,
        Aspect::Attention,
        Aspect::End,
        Aspect::Pointer,
        Aspect::Information,
        Aspect::Residual,
        Aspect::Data,
        Aspect::Medium,
    ];
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Aspect::Halt => "halt",
            Aspect::Attention => "attention",
            Aspect::End => "end",
            Aspect::Pointer => "pointer",
            Aspect::Information => "information",
            Aspect::Residual => "residual",
            Aspect::Data => "data",
            Aspect::Medium => "medium",
        })
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In what.
    pub aspect: Aspect,
    /// How the disk under test ended the command.
    pub ours: End,
    /// How its peer did.
    pub peer: End,
    /// For data: the bytes that differ.
    pub bytes: Vec<usize>,
    /// For pointers: both, as sense-key specific bytes.
    pub pointers: Option<[[u8; 3]; 2]>,
}

impl Difference {
    /// A difference that has nothing but its aspect and how the command ended.
    pub fn of(aspect: Aspect, ours: End, peer: End) -> Difference {
        Difference { aspect, ours, peer, bytes: Vec::new(), pointers: None }
    }
}

/// All differences of two outcomes. If they ended differently, nothing else is compared; data only if the command succeeded, for
/// nobody promises what is in the buffer after a failure.
pub fn compare(ours: &Outcome, peer: &Outcome) -> Vec<Difference> {
    let difference = |aspect| Difference::of(aspect, ours.end(), peer.end());
    if ours.end() != peer.end() {
        return vec![difference(Aspect::End)];
    }
    let mut found = Vec::new();
    if let (Some(ours), Some(peer)) = (ours.specific(), peer.specific())
        && ours != peer
    {
        found.push(Difference { pointers: Some([ours, peer]), ..difference(Aspect::Pointer) });
    }
    if differ(ours.information(), peer.information()) {
        found.push(difference(Aspect::Information));
    }
    if ours.residual != peer.residual {
        found.push(difference(Aspect::Residual));
    }
    let length = ours.data.len().min(peer.data.len());
    let (a, b) = (&ours.data[..length], &peer.data[..length]);
    if ours.end() == End::Good && a != b {
        let bytes = (0..length).filter(|at| a[*at] != b[*at]).collect();
        found.push(Difference { bytes, ..difference(Aspect::Data) });
    }
    found
}

fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pointer: u8, residual: i64) -> Outcome {
        let sense = vec![0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xC0, 0, pointer];
        Outcome { status: 2, sense, residual, ..Outcome::default() }
    }

    #[test]
    fn each_aspect_is_named() {
        assert_eq!(compare(&check(1, 0), &check(1, 0)), []);
        let aspects = |a: &Outcome, b: &Outcome| compare(a, b).iter().map(|d| d.aspect).collect::<Vec<_>>();
        assert_eq!(aspects(&check(1, 0), &check(2, 8)), [Aspect::Pointer, Aspect::Residual]);
        assert_eq!(aspects(&check(1, 0), &Outcome::default()), [Aspect::End]);
        let mut silent = check(1, 0);
        silent.sense[15] = 0;
        assert_eq!(aspects(&check(2, 0), &silent), []);
        let data = |bytes: &[u8]| Outcome { data: bytes.to_vec(), ..Outcome::default() };
        let differences = compare(&data(&[1, 2, 3]), &data(&[1, 9, 9, 4]));
        assert_eq!((differences[0].aspect, differences[0].bytes.as_slice()), (Aspect::Data, &[1, 2][..]));
    }
}
