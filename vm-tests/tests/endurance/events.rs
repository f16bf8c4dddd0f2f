//! What happens to guests and to vstgt, one after another.

use crate::random::Random;
use crate::scene::{AREA, NAMES, Scene, area, key, of};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use vm_tests::cluster::Exit;
use vm_tests::process::wait_until;
use vm_tests::{Context, Error, Result};

/// How long a guest may take for one thing, where guests are fast.
const WHILE: Duration = Duration::from_secs(60);

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// vstgt: SIGKILL, and a new one.
    Kill,
    /// vstgt: a successor takes over.
    HandOver,
    /// A guest's QEMU: SIGKILL; later it boots again.
    KillGuest,
    /// A guest is fenced by another one (PREEMPT AND ABORT), and comes back.
    Fence,
    /// LOGICAL UNIT RESETs by a guest.
    Reset,
    /// The reservation goes from one to another.
    Pass,
    /// The fourth nexus goes away and comes anew.
    Remake,
}

impl Event {
    /// What kills or replaces vstgt.
    pub fn ends_vstgt(self) -> bool {
        matches!(self, Event::Kill | Event::HandOver)
    }
}

/// What befalls vstgt in the middle of another event.
type Meanwhile = Option<(Event, Duration)>;

impl Scene {
    /// Lets it happen; what exactly, in a few words. `may_end` is whether vstgt may be killed or replaced in the middle.
    pub fn happens(&mut self, event: Event, random: &mut Random, may_end: bool) -> Result<String> {
        match event {
            Event::Kill => self.vstgt_ends(event).map(|()| "vstgt killed".to_owned()),
            Event::HandOver => self.vstgt_ends(event).map(|()| "vstgt handed over".to_owned()),
            Event::KillGuest => self.guest_dies(random, may_end),
            Event::Fence => self.fence(random, may_end),
            Event::Reset => self.reset(random, may_end),
            Event::Pass => self.pass(random),
            Event::Remake => {
                self.fourth.as_ref().context(|| "there is no fourth nexus")?.remake();
                Ok("fourth anew".to_owned())
            }
        }
    }

    fn vstgt_ends(&mut self, event: Event) -> Result<()> {
        if event == Event::HandOver { self.lives.hand_over() } else { self.lives.kill_and_restart() }
    }

    /// Now and then vstgt ends in the middle.
    fn meanwhile(random: &mut Random, may_end: bool, within: u64) -> Meanwhile {
        let event = if random.percent(25) { Event::HandOver } else { Event::Kill };
        let (is_so, after) = (random.percent(40), Duration::from_millis(random.below(within)));
        (may_end && is_so).then_some((event, after))
    }

    /// Runs a script in a guest, and lets befall vstgt what is to; its exit status and output.
    fn run_while(&mut self, number: usize, script: &str, meanwhile: Meanwhile) -> Result<(Exit, String)> {
        let node = &mut self.members[number].node;
        let running = node.guest.start(&format!("exec 2>&1; D={}\n{script}", node.disk))?;
        if let Some((event, after)) = meanwhile {
            thread::sleep(after);
            if event == Event::HandOver { self.lives.hand_over()? } else { self.lives.kill_and_restart()? }
        }
        let outcome = running.finish(WHILE)?;
        Ok((Exit::from_status(outcome.status), outcome.text()))
    }

    fn guest_dies(&mut self, random: &mut Random, may_end: bool) -> Result<String> {
        let number = random.below(NAMES.len() as u64) as usize;
        thread::sleep(Duration::from_millis(random.below(700)));
        self.assert_untroubled(number)?;
        // What it says now is the least that must be there for the next one.
        self.ask(number)?;
        thread::sleep(Duration::from_millis(random.below(300)));
        self.kill_guest(number);
        self.comes_again(number, random, may_end)
    }

    /// A guest that was killed boots again, while others work and vstgt perhaps ends.
    fn comes_again(&mut self, number: usize, random: &mut Random, may_end: bool) -> Result<String> {
        // Sometimes its nexus is lost meanwhile.
        let away = if random.percent(15) { 10_500 } else { random.below(1500) };
        thread::sleep(Duration::from_millis(away));
        let booting = self.boot(number)?;
        let mut and = String::new();
        if let Some((event, after)) = Scene::meanwhile(random, may_end, 15_000) {
            thread::sleep(after);
            self.vstgt_ends(event)?;
            and = format!(", {event:?} as it boots");
        }
        self.join(number, booting)?;
        Ok(format!("{} killed, away for {:.1} s{and}", NAMES[number], away as f64 / 1e3))
    }

    /// From the answer on the victim writes nothing more.
    fn fence(&mut self, random: &mut Random, may_end: bool) -> Result<String> {
        let victim = random.below(NAMES.len() as u64) as usize;
        let by = random.other(NAMES.len(), victim);
        self.assert_untroubled(victim)?;
        let before = self.ask(victim)?;
        self.fences_of(victim)?;
        let meanwhile = Scene::meanwhile(random, may_end, 600);
        let script = format!(
            "for i in 1 2 3 4 5; do sg_persist -n --out --preempt-abort --param-rk={:x} --param-sark={:x} --prout-type=5 $D; \
             s=$?; [ $s = 6 ] || exit $s; done; exit 6",
            key(by),
            key(victim)
        );
        let (exit, text) = self.run_while(by, &script, meanwhile)?;
        let then = self.area(victim)?;
        if exit != Exit::Good {
            return Err(Error::new(format!("{} fences {}: {exit:?}\n{text}", NAMES[by], NAMES[victim])));
        }
        self.generation += 1;
        if self.holder == victim {
            self.holder = by;
        }
        self.assert_reserved(by, Some(victim))?;
        let trying = Duration::from_millis(500 + random.below(2500));
        thread::sleep(trying);
        if may_end && random.percent(30) {
            self.vstgt_ends(Event::Kill)?;
            thread::sleep(trying / 2);
        }
        self.works(by)?;
        let slowness = self.members[victim].node.guest.slowness();
        let noticed = wait_until(WHILE * slowness, || {
            Ok((of(&self.ask(victim)?, "conflicts") > of(&before, "conflicts")).then_some(()))
        })?;
        noticed.context(|| format!("{} was fenced and did not notice: {before:?}", NAMES[victim]))?;
        if self.area(victim)? != then {
            return Err(Error::new(format!("{} wrote after it was fenced by {}", NAMES[victim], NAMES[by])));
        }
        let aborted = of(&self.members[victim].told, "aborted") - of(&before, "aborted");
        let what = format!("{} fenced by {}", NAMES[victim], NAMES[by]);
        let also = meanwhile.map_or(String::new(), |(event, _)| format!(", {event:?} meanwhile"));
        if random.percent(30) {
            self.kill_guest(victim);
            let again = self.comes_again(victim, random, may_end)?;
            return Ok(format!("{what}{also}, then {again}"));
        }
        self.register(victim)?;
        self.fences_of(victim)?;
        self.works(victim)?;
        // What it says of the time in which it was fenced is not held against it.
        self.members[victim].node.guest.sh("dmesg --clear")?;
        Ok(format!("{what}{also}, {aborted} aborted, unfenced"))
    }

    /// Tells a guest that it is about to be fenced, or is no longer.
    fn fences_of(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        member.fences += 1;
        let fences = member.fences;
        member.node.guest.sh(&format!("echo {fences} > fences.new; mv fences.new fences"))?;
        Ok(())
    }

    /// What is in a guest's area.
    fn area(&self, number: usize) -> Result<Vec<u8>> {
        let file = File::open(&self.image).context(|| "open the image")?;
        let mut bytes = vec![0; AREA as usize];
        file.read_exact_at(&mut bytes, area(number)).context(|| "read the image")?;
        Ok(bytes)
    }

    fn reset(&mut self, random: &mut Random, may_end: bool) -> Result<String> {
        let number = random.below(NAMES.len() as u64) as usize;
        let times = 1 + random.below(3);
        let fourth = self.fourth.as_ref().context(|| "there is no fourth nexus")?;
        fourth.shared.resets.fetch_add(1, Ordering::SeqCst);
        let meanwhile = Scene::meanwhile(random, may_end, 1000);
        let script = format!("for i in $(seq {times}); do sg_reset --device $D || exit 1; sleep 0.1; done");
        let (exit, text) = self.run_while(number, &script, meanwhile)?;
        let fourth = self.fourth.as_ref().context(|| "there is no fourth nexus")?;
        fourth.shared.resets.fetch_add(1, Ordering::SeqCst);
        if exit != Exit::Good {
            return Err(Error::new(format!("{} resets: {exit:?}\n{text}", NAMES[number])));
        }
        let also = meanwhile.map_or(String::new(), |(event, _)| format!(", {event:?} meanwhile"));
        Ok(format!("{times} resets by {}{also}", NAMES[number]))
    }

    fn pass(&mut self, random: &mut Random) -> Result<String> {
        let from = self.holder;
        let to = random.other(NAMES.len(), from);
        self.prout(from, &format!("--release --param-rk={:x} --prout-type=5", key(from)))?;
        self.reserve(to)?;
        Ok(format!("reservation from {} to {}", NAMES[from], NAMES[to]))
    }
}
