//! Bytes that nobody can guess.
#![allow(unsafe_code, reason = "getrandom has no safe wrapper in the crates at hand")]

use std::io;

/// Fills `bytes` from the kernel's generator, which waits at most until it has been seeded once since the host booted.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the address and the length are those of `rest`, which is ours to write.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => rest = rest.get_mut(got..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_all_and_never_twice_alike() {
        let (mut a, mut b) = (vec![0; 1000], vec![0; 1000]);
        fill(&mut a).unwrap();
        fill(&mut b).unwrap();
        assert_ne!(a, b);
        // A byte that was left out would be zero; a run of 16 of them by chance is not to be met with.
        assert!(a.windows(16).chain(b.windows(16)).all(|run| run != [0; 16]));
        fill(&mut []).unwrap();
    }
}
