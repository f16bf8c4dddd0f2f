//! Hosts: the numbers by which events name a target-side HBA.
