//! Which memory maps a reactor's commands still point into.

/// Names one snapshot within its [`SnapshotSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotId(pub(super) u32);

/// A session's memory maps as one reactor sees them: the current one, and older ones that commands in flight still use.
#[derive(Debug, Default)]
pub struct SnapshotSet {}
