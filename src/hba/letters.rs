//! Posting letters to reactors, and waiting for their answers.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::mail::{Mail, Reply};
use crate::sys::mailbox::Address;
use crate::target::{Post, ShardMail};

/// How long to wait for an answer before a word about it goes to the log.
const LONG: Duration = Duration::from_secs(10);

/// Everybody's addresses.
pub struct Letters {
    addresses: Vec<Address<Mail>>,
}

impl Letters {
    /// Reactors are numbered as their addresses are listed; at most 64.
    pub fn new(addresses: Vec<Address<Mail>>) -> Letters {
        Letters { addresses }
    }

    /// How many reactors there are.
    pub fn reactors(&self) -> u8 {
        self.addresses.len() as u8
    }

    /// Posts a letter.
    pub fn send(&self, reactor: u8, mail: Mail) {
        if let Some(address) = self.addresses.get(usize::from(reactor))
            && address.post(mail).is_err()
        {
            log::debug!("reactor {reactor} has ended; a letter to it is dropped");
        }
    }

    /// Posts a letter that is to be answered; the answer is waited for later.
    pub fn begin<T>(&self, reactor: u8, mail: impl FnOnce(Reply<T>) -> Mail) -> Pending<T> {
        let (reply, answer): (SyncSender<T>, Receiver<T>) = sync_channel(1);
        self.send(reactor, mail(reply));
        Pending { answer }
    }

    /// Posts a letter and waits for its answer; `None` if the reactor has ended.
    pub fn ask<T>(&self, reactor: u8, what: &str, mail: impl FnOnce(Reply<T>) -> Mail) -> Option<T> {
        self.begin(reactor, mail).wait(what)
    }
}

impl Post for Letters {
    fn post(&self, shard: u8, mail: ShardMail) {
        self.send(shard, Mail::Shard(mail));
    }
}

/// An answer to come.
pub struct Pending<T> {
    answer: Receiver<T>,
}

/// It has not come yet.
pub struct Late;

impl<T> Pending<T> {
    /// Waits for it until `deadline`; `Ok(None)` if the reactor has ended.
    pub fn wait_until(&self, deadline: Instant) -> Result<Option<T>, Late> {
        match self.answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(value) => Ok(Some(value)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Late),
        }
    }

    /// Waits for it, with a word in the log now and then if it takes long; `None` if the reactor has ended.
    pub fn wait(&self, what: &str) -> Option<T> {
        loop {
            match self.wait_until(Instant::now() + LONG) {
                Ok(answer) => return answer,
                Err(Late) => log::warn!("still waiting for {what}"),
            }
        }
    }
}
