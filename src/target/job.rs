//! Commands of several steps: they run on a thread that may wait and mail their answer to their shard.

use std::sync::Arc;

use super::{Post, ShardMail};
use crate::device_server::{AbortFlag, Answer, Job};
use crate::mem::IoBuf;
use crate::scsi::{AdditionalSense, Sense};
use crate::tgt::Tag;

/// A job's answer, with the buffer that it had.
#[derive(Debug)]
pub struct JobDone {
    pub(super) tag: Tag,
    pub(super) answer: Answer,
    pub(super) buf: IoBuf,
}

/// The duty to answer. Whatever becomes of the work, the shard gets the buffer back and the command an answer.
struct Ticket {
    shard: u8,
    tag: Tag,
    post: Arc<dyn Post>,
    buf: Option<IoBuf>,
    answer: Answer,
}

impl Ticket {
    /// Runs the work; that the ticket ends here mails its answer.
    fn run(mut self, job: Job, abort: &AbortFlag) {
        if let Some(buf) = &mut self.buf {
            self.answer = (job.run)(buf, abort);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(buf) = self.buf.take() else { return };
        let done = JobDone { tag: self.tag, answer: self.answer.clone(), buf };
        self.post.post(self.shard, ShardMail::JobDone(done));
    }
}

/// The work of a job, for [`Spawn`](super::Spawn).
pub(super) fn work(
    job: Job,
    abort: AbortFlag,
    buf: IoBuf,
    tag: Tag,
    shard: u8,
    post: Arc<dyn Post>,
) -> Box<dyn FnOnce() + Send> {
    // What is answered if the work is dropped instead of run.
    let answer = Answer::check(Sense::aborted_command(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION));
    let ticket = Ticket { shard, tag, post, buf: Some(buf), answer };
    Box::new(move || ticket.run(job, &abort))
}
