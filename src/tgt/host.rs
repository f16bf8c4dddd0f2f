//! Hosts: the numbers by which events name a target-side HBA, and which target each is bound to.
//!
//! Both shapes of tgt work: one host with one initiator (ibmvstgt's: a host per partition, hence per socket) and one host
//! with many (a nexus per initiator is what tells them apart).

use super::HostNo;

/// Which target of this process: an index.
pub type TargetId = u32;

/// The number is taken by another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host {0} is bound already")]
pub struct HostTaken(pub HostNo);

/// host number → target.
#[derive(Clone, Debug, Default)]
pub struct HostTable {
    /// Sorted by host number.
    bindings: Vec<(HostNo, TargetId)>,
}

impl HostTable {
    /// No host.
    pub fn new() -> HostTable {
        HostTable::default()
    }

    /// Binds a host to a target; a target may have many hosts, a host has one target.
    pub fn bind(&mut self, host_no: HostNo, target: TargetId) -> Result<(), HostTaken> {
        match self.position(host_no) {
            Ok(_) => Err(HostTaken(host_no)),
            Err(at) => {
                self.bindings.insert(at, (host_no, target));
                Ok(())
            }
        }
    }

    /// Frees a host number; the target that it was bound to.
    pub fn unbind(&mut self, host_no: HostNo) -> Option<TargetId> {
        self.position(host_no).ok().map(|at| self.bindings.remove(at).1)
    }

    /// The target that a host is bound to.
    pub fn target_of(&self, host_no: HostNo) -> Option<TargetId> {
        self.position(host_no).ok().and_then(|at| self.bindings.get(at)).map(|b| b.1)
    }

    fn position(&self, host_no: HostNo) -> Result<usize, usize> {
        self.bindings.binary_search_by_key(&host_no, |b| b.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_may_have_many_hosts_but_a_host_has_one_target() {
        let mut hosts = HostTable::new();
        for (host_no, target) in [(5, 0), (1, 0), (3, 1)] {
            assert_eq!(hosts.bind(host_no, target), Ok(()));
        }
        assert_eq!(hosts.bind(3, 0), Err(HostTaken(3)));
        assert_eq!([1, 2, 3, 5].map(|h| hosts.target_of(h)), [Some(0), None, Some(1), Some(0)]);
        assert_eq!((hosts.unbind(3), hosts.unbind(3)), (Some(1), None));
        assert_eq!(hosts.target_of(3), None);
        assert_eq!(hosts.bind(3, 0), Ok(()));
    }
}
