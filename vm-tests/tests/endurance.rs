//! Endurance: three guests and a fourth nexus share one disk, and whatever may happen to them, and to vstgt, happens at random moments, over and over.
//!
//! Each guest verifies what it writes (fio, CRC-32C), keeps promises (what was answered with GOOD is there, even after its QEMU was killed),
//! counts together with the others by COMPARE AND WRITE (each knows exactly how often it has), and is registered; one holds a Write Exclusive, Registrants
//! Only reservation. The fourth nexus aborts its own tasks. vstgt is killed and replaced, guests are killed and boot again, fence each other, reset the unit,
//! pass the reservation on.
//!
//! vstgt's memory, descriptors, threads, mappings and files are sampled whenever everybody is up and at work, and stay as they are: in one life, for which
//! the long form keeps it alive for more than twenty minutes, and from life to life.
//!
//! The long form (`VSTGT_SOAK`) takes an hour. `VSTGT_TEST_SEED` repeats the choices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "endurance/events.rs"]
mod events;
#[path = "endurance/fourth.rs"]
mod fourth;
#[path = "endurance/front_end.rs"]
mod front_end;
#[path = "endurance/random.rs"]
mod random;
#[path = "endurance/samples.rs"]
mod samples;
#[path = "endurance/scene.rs"]
mod scene;

use events::Event::{self, Fence, HandOver, Kill, KillGuest, Pass, Remake, Reset};
use random::Random;
use samples::Process;
use scene::{NAMES, Scene, Told, of};
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use vm_tests::process::wait_until;
use vm_tests::{Context, Error, Result, VSTGT_SOAK, provision};

/// How many KiB of anonymous memory may come and go.
const NOISE: u64 = 512;

/// How long what is over may take to be given back.
const GIVEN_BACK: Duration = Duration::from_secs(60);

/// A stretch of the test.
struct Phase {
    /// What happens in it: this often each, in random order, and again from the beginning while there is time.
    deck: &'static [(Event, usize)],
    /// When it ends, after the beginning of the test; but no deck is left half done where there is none.
    until: Option<Duration>,
    /// The longest pause between events, in milliseconds.
    pause: u64,
}

/// How long one of vstgt's lives is at least, in the long form.
const LIFE: Duration = Duration::from_secs(20 * 60);

fn is_long() -> bool {
    std::env::var_os(VSTGT_SOAK).is_some()
}

const MINUTE: Duration = Duration::from_secs(60);

/// An hour, in the middle of which vstgt lives for more than twenty minutes.
fn long() -> Vec<Phase> {
    let often: &[_] = &[(Kill, 6), (HandOver, 2), (KillGuest, 2), (Fence, 2), (Reset, 2), (Pass, 1), (Remake, 2)];
    let seldom: &[_] = &[(KillGuest, 3), (Fence, 3), (Reset, 3), (Pass, 2), (Remake, 4)];
    vec![
        Phase { deck: often, until: Some(18 * MINUTE), pause: 4000 },
        Phase { deck: seldom, until: Some(42 * MINUTE), pause: 4000 },
        Phase { deck: often, until: Some(60 * MINUTE), pause: 4000 },
    ]
}

fn short() -> Vec<Phase> {
    let often: &[_] = &[(Kill, 2), (HandOver, 1), (KillGuest, 1), (Fence, 1), (Reset, 1), (Remake, 1)];
    let seldom: &[_] = &[(Reset, 1), (Pass, 1), (Remake, 1)];
    vec![Phase { deck: often, until: None, pause: 700 }, Phase { deck: seldom, until: None, pause: 300 }]
}

impl Phase {
    /// Lets it all happen; counts what did.
    fn run(&self, scene: &mut Scene, random: &mut Random, counts: &mut BTreeMap<String, usize>) -> Result<()> {
        let may_end = self.deck.iter().any(|(event, _)| event.ends_vstgt());
        let cards = self.deck.iter().flat_map(|(event, count)| std::iter::repeat_n(*event, *count));
        let cards: Vec<Event> = cards.collect();
        loop {
            let mut deck = cards.clone();
            random.shuffle(&mut deck);
            for event in deck {
                if self.until.is_some_and(|end| scene.start.elapsed() >= end) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(random.below(self.pause)));
                let begin = scene.start.elapsed();
                let what = scene.happens(event, random, may_end).context(|| format!("{event:?}"))?;
                scene.all_work().context(|| format!("after: {what}"))?;
                scene.assert_reserved(random.below(NAMES.len() as u64) as usize, None)?;
                println!(
                    "{:7.1} s: {what} ({:.1} s)",
                    begin.as_secs_f64(),
                    (scene.start.elapsed() - begin).as_secs_f64()
                );
                scene.sample(&what)?;
                *counts.entry(format!("{event:?}")).or_default() += 1;
            }
            if self.until.is_none() {
                return Ok(());
            }
        }
    }
}

#[test]
fn three_guests_endure_it_all() -> Result<()> {
    provision::check()?;
    let seed = std::env::var("VSTGT_TEST_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    let phases = if is_long() { long() } else { short() };
    let begin = Instant::now();
    let mut scene = Scene::start(seed)?;
    println!("everybody works after {:.1} s", begin.elapsed().as_secs_f64());
    let mut random = Random::new(seed);
    let mut counts = BTreeMap::new();
    scene.sample("the beginning")?;
    let outcome = phases.iter().try_for_each(|phase| phase.run(&mut scene, &mut random, &mut counts));
    println!("{}", samples::table(&scene.samples));
    outcome.context(|| format!("seed {seed}, after {:?}", scene.start.elapsed()))?;
    finish(scene, &counts)
}

/// Everybody ends; all is as it must be, and nothing is left.
fn finish(mut scene: Scene, counts: &BTreeMap<String, usize>) -> Result<()> {
    scene.calm()?;
    scene.assert_reserved(0, None)?;
    scene.assert_counted()?;
    let fourth = scene.fourth.take().context(|| "there is no fourth nexus")?.finish();
    let (totals, endured) = (scene.totals(), scene.start.elapsed());
    for member in scene.members.drain(..) {
        member.node.guest.poweroff()?;
    }
    let pid = scene.lives.pid()?;
    let empty = scene.empty.clone();
    let given_back = wait_until(GIVEN_BACK, || {
        let now = Process::look(pid)?;
        Ok((now.descriptors == empty.descriptors && now.threads == empty.threads).then_some(()))
    })?;
    given_back.context(|| {
        let now = Process::look(pid);
        format!("with nobody connected: {empty:?} at first, {now:?} at last")
    })?;
    scene.lives.current.take().context(|| "no vstgt runs")?.terminate()?;
    assert_no_errors(&scene)?;
    assert_nothing_left(&scene)?;
    summary(&scene, counts, &totals, &fourth, endured);
    samples::assert_flat(&scene.samples, NOISE)?;
    let life = samples::longest_life(&scene.samples);
    assert!(!is_long() || life > LIFE, "the longest life was {life:?}");
    scene.dir.finish();
    Ok(())
}

fn assert_no_errors(scene: &Scene) -> Result<()> {
    for log in scene.read_logs()? {
        if let Some(line) = log.lines().find(|line| line.contains(" ERROR ") || line.contains("panicked")) {
            return Err(Error::new(format!("vstgt logged: {line}")));
        }
    }
    Ok(())
}

/// Of vstgt's there are the image, the state and logs, but no sockets or locks. (QEMU's ports have names of their own.)
fn assert_nothing_left(scene: &Scene) -> Result<()> {
    let names = |path| -> Result<Vec<String>> {
        let entries = fs::read_dir(path).context(|| "list what is left")?.flatten();
        Ok(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    let is_ours = |name: &String| {
        let port = NAMES.iter().any(|guest| name.starts_with(guest))
            && ["-con", "-qmp", "-agent"].iter().any(|end| name.ends_with(end));
        port || name.ends_with(".log") || name == "shared.img" || name == "state"
    };
    let left: Vec<String> = names(scene.dir.root())?.into_iter().filter(|name| !is_ours(name)).collect();
    println!("files of state: {}", names(&scene.state)?.join(", "));
    if left.is_empty() { Ok(()) } else { Err(Error::new(format!("left behind: {left:?}"))) }
}

fn summary(scene: &Scene, counts: &BTreeMap<String, usize>, totals: &Told, fourth: &fourth::Counts, endured: Duration) {
    let list = |pairs: Vec<String>| pairs.join(", ");
    println!("events: {}", list(counts.iter().map(|(event, count)| format!("{event} {count}")).collect()));
    println!("fourth nexus: {}", list(fourth.iter().map(|(what, count)| format!("{what} {count}")).collect()));
    println!("guests: {}", list(totals.iter().map(|(what, count)| format!("{what} {count}")).collect()));
    let mut down = scene.lives.down.clone();
    down.sort();
    let at = |place: usize| down.get(place).copied().unwrap_or_default();
    let (p50, max) = (at(down.len() / 2), at(down.len().saturating_sub(1)));
    println!(
        "endured {:.0} s: {} lives of vstgt, the longest of {:.0} s (a new one serves after p50 {:.0?}, max {:.0?}), {} events, {} promises, {} COMPARE AND WRITEs, \
         {} flushes by fio in {} runs with {} writes, longest pause {} ms",
        endured.as_secs_f64(),
        scene.lives.logs.len(),
        samples::longest_life(&scene.samples).as_secs_f64(),
        p50,
        max,
        counts.values().sum::<usize>(),
        of(totals, "promises"),
        of(totals, "swaps"),
        of(totals, "syncs"),
        of(totals, "runs"),
        of(totals, "writes"),
        of(totals, "pause_ms"),
    );
}
