//! What shards tell each other, and what they need from their reactor for it.

/// Carries mail to the shards of one target; the hba does it with its reactors' mailboxes.
pub trait Post: Send + Sync {
    /// Puts `mail` into the box of `shard` and wakes its reactor. Letters of one sender arrive in their order. A shard
    /// may post to itself.
    fn post(&self, shard: u8, mail: ShardMail);
}

/// Runs work on threads that may wait.
pub trait Spawn: Send + Sync {
    /// Takes `work`; every work taken is run once, or dropped at shutdown.
    fn spawn(&self, work: Box<dyn FnOnce() + Send>);
}

/// A letter from a shard (or from a job of its own) to a shard.
#[derive(Debug)]
pub enum ShardMail {}

impl ShardMail {
    /// True if the reactor must first pop all that its virtqueues show and deliver the `CMD_REQ`s, and only then hand
    /// this letter to [`Shard::on_mail`](super::Shard::on_mail): a command that a guest posted before a task
    /// management function must be seen by it.
    pub fn needs_pop(&self) -> bool {
        match *self {}
    }
}
