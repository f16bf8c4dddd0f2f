//! A bootable Debian root disk, made from `images/root-disk*` without root privileges beyond debootstrap's.
