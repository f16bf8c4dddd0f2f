//! Letters that judge a guest's commands, task management above all: they are read when everything has been taken that the
//! guest's rings showed as they came, for it posted that before it posted what made somebody write them.
//!
//! The rings are emptied in the usual turns, each guest's share at a time, so that a guest with full rings cannot hold up the others by
//! asking for task management. Where the rings stood is marked in them; letters that come while there are marks wait for the
//! next marks. Commands of other guests are not waited for, even where they are judged, too (LOGICAL UNIT RESET): between them and the
//! function there is no order that anybody could have seen.

use std::collections::VecDeque;

use super::mail::Mail;
use super::queue::Role;
use super::reactor::Reactor;

/// A session's letters that wait.
#[derive(Default)]
pub struct Judging {
    letters: VecDeque<Mail>,
    /// How many of them wait for the marks that there are.
    marked_for: usize,
    /// Queues that have a mark.
    marks: usize,
}

impl Judging {
    /// Takes them all out, in their order.
    pub fn take_all(&mut self) -> VecDeque<Mail> {
        std::mem::take(&mut self.letters)
    }

    fn is_ready(&self) -> bool {
        self.marked_for > 0 && self.marks == 0
    }
}

impl Reactor {
    /// Reads a letter, now or when its time has come.
    pub(super) fn receive(&mut self, mail: Mail) {
        let Some(place) = self.judged_by(&mail) else { return self.read(mail) };
        let Some(Some(session)) = self.sessions.get_mut(place) else { return self.read(mail) };
        session.judging.letters.push_back(mail);
        if session.judging.marked_for == 0 {
            self.mark(place);
        }
    }

    /// The place of the session whose rings must be emptied before a letter is read.
    fn judged_by(&self, mail: &Mail) -> Option<usize> {
        let mut sessions = self.sessions.iter();
        match mail {
            // Of several connections of a port at most one has rings.
            Mail::Shard(mail) => {
                let itn_id = mail.judges()?;
                sessions.position(|s| s.as_ref().is_some_and(|s| s.itn_id == itn_id && !s.queues.is_empty()))
            }
            Mail::FindTask { session, .. } => sessions.position(|s| s.as_ref().is_some_and(|s| s.id == *session)),
            _ => None,
        }
    }

    /// Marks where a session's rings stand now, for all letters that wait.
    fn mark(&mut self, place: usize) {
        let Some(Some(session)) = self.sessions.get_mut(place) else { return };
        session.judging.marked_for = session.judging.letters.len();
        for number in session.queues.clone() {
            let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { continue };
            if queue.role != Role::Request || !queue.takes_chains() {
                continue;
            }
            match queue.ring.end_avail() {
                Ok(end) if queue.has_reached(end) => {}
                Ok(end) => {
                    queue.mark = Some(end);
                    if let Some(Some(session)) = self.sessions.get_mut(place) {
                        session.judging.marks += 1;
                    }
                    self.activate(number);
                }
                Err(e) => self.break_ring(number, &e.to_string()),
            }
        }
        self.to_judge.push(place);
    }

    /// A queue has got to its mark, or never will.
    pub(super) fn clear_mark(&mut self, number: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        if queue.mark.take().is_none() {
            return;
        }
        let place = queue.session;
        if let Some(Some(session)) = self.sessions.get_mut(place) {
            session.judging.marks = session.judging.marks.saturating_sub(1);
            self.to_judge.push(place);
        }
    }

    /// Reads the letters whose time has come.
    pub(super) fn judge(&mut self) {
        while let Some(place) = self.to_judge.pop() {
            let Some(Some(session)) = self.sessions.get_mut(place) else { continue };
            if !session.judging.is_ready() {
                continue;
            }
            let count = std::mem::take(&mut session.judging.marked_for);
            let later = session.judging.letters.split_off(count);
            let letters = std::mem::replace(&mut session.judging.letters, later);
            for mail in letters {
                self.read(mail);
            }
            if matches!(self.sessions.get(place), Some(Some(s)) if !s.judging.letters.is_empty()) {
                self.mark(place);
            }
        }
    }
}
