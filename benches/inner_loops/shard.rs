//! The target's whole line: CMD_REQ → plan → operation → CMD_RSP → CMD_DONE, with a backing that does nothing.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use vstgt::backing::{Completion, Image, Op, Submit};
use vstgt::lu::{Lu, LuSetup, TargetPort};
use vstgt::mem::{Direction, IoBuf};
use vstgt::scsi::Lun;
use vstgt::target::{HostSetup, Post, Shard, ShardMail, Spawn, Target, TargetSetup, UnitMapping};
use vstgt::tgt::{CmdData, CmdDone, CmdReq, EventRings, ItNexusReq, ItnId, KEvent, NexusFunction, Tag, TxSlot, UEvent};

use crate::BATCH;
use crate::guest::{DATA, READ_10};
use crate::null::NullImage;

/// Takes operations; they are over when the batch is.
#[derive(Default)]
struct NullIo(Vec<Completion>);

impl Submit for NullIo {
    fn submit(&mut self, image: &Arc<dyn Image>, op: Op, buf: IoBuf, cookie: u64) {
        black_box((image, op));
        self.0.push(Completion { cookie, result: Ok(()), intact: 0, buf });
    }

    fn cancel(&mut self, _cookie: u64) {}
}

#[derive(Default)]
struct Mail(Mutex<VecDeque<ShardMail>>);

impl Post for Mail {
    fn post(&self, _shard: u8, mail: ShardMail) {
        self.0.lock().unwrap().push_back(mail);
    }
}

struct NoJobs;

impl Spawn for NoJobs {
    fn spawn(&self, _owner: ItnId, _work: Box<dyn FnOnce() + Send>) {
        panic!("none of these commands is a job");
    }
}

/// What the batch's commands are.
#[derive(Clone, Copy)]
enum What {
    Read,
    Write,
    TestUnitReady,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Read => "READ(10)",
            What::Write => "WRITE(10)",
            What::TestUnitReady => "TEST UNIT READY",
        })
    }
}

impl What {
    fn cdb(self) -> [u8; 16] {
        let mut cdb = READ_10;
        match self {
            What::Read => {}
            What::Write => cdb[0] = 0x2a,
            What::TestUnitReady => cdb = [0; 16],
        }
        cdb
    }

    fn buf(self) -> IoBuf {
        match self {
            What::Read => IoBuf::owned(DATA as usize, Direction::In),
            What::Write => IoBuf::owned(DATA as usize, Direction::Out),
            What::TestUnitReady => IoBuf::empty(),
        }
    }
}

/// One shard with what its reactor has.
struct Line {
    shard: Shard,
    rings: EventRings,
    io: NullIo,
    mail: Arc<Mail>,
    itn_id: ItnId,
    generation: u16,
    done: Vec<CmdDone>,
}

impl Line {
    fn new() -> Line {
        let setup = LuSetup::new(Arc::new(NullImage), 0x3000_0000_0000_0001, "BENCH".to_owned());
        let unit = UnitMapping { target: 0, lun: 0, lu: Lu::new(setup).unwrap(), initiators: None };
        let target = Target::new(TargetSetup {
            shards: 1,
            hosts: vec![HostSetup { host_no: 0, port: TargetPort::SOLE, name: "t".to_owned() }],
            units: vec![unit],
            names: vec![([1; 16], "guest".to_owned())],
            patience: None,
        });
        let (target, mail) = (target.unwrap(), Arc::new(Mail::default()));
        let itn_id = target.next_itn_id().unwrap();
        let mut shard = Shard::new(0, target, mail.clone(), Arc::new(NoJobs));
        shard.open_queue(0, 128);
        let (rings, io) = (EventRings::new(), NullIo::default());
        let mut line = Line { shard, rings, io, mail, itn_id, generation: 0, done: Vec::new() };
        line.log_in();
        line
    }

    /// Makes the nexus, and takes its unit attentions away.
    fn log_in(&mut self) {
        let function = NexusFunction::Create;
        let (itn_id, initiator_id) = (self.itn_id, [1; 16]);
        let event = KEvent::ItNexusReq(ItNexusReq { host_no: 0, function, itn_id, max_cmds: 128, initiator_id });
        self.rings.post_request(TxSlot { event, data: None }).map_err(|(_, full)| full).unwrap();
        self.drain();
        loop {
            let Some(mail) = self.mail.0.lock().unwrap().pop_front() else { break };
            self.shard.on_mail(mail, &mut self.io, &mut self.rings);
            self.drain();
        }
        let answer = self.rings.take_rx().unwrap().event;
        assert!(matches!(answer, UEvent::ItNexusRsp(rsp) if rsp.result == 0), "{answer:?}");
        let mut bufs = vec![IoBuf::empty()];
        for attempt in 0.. {
            assert!(attempt < 8, "unit attentions do not end");
            if self.batch([0; 16], &mut bufs) == 1 {
                break;
            }
        }
    }

    fn drain(&mut self) {
        while let Some(slot) = self.rings.take_tx() {
            self.shard.on_event(slot, &mut self.io, &mut self.rings);
        }
    }

    /// Sends a command with each of the buffers, has them answered, and gets the buffers back; how many ended with GOOD.
    fn batch(&mut self, scb: [u8; 16], bufs: &mut Vec<IoBuf>) -> usize {
        self.generation = self.generation.wrapping_add(1);
        let (itn_id, lun) = (self.itn_id, Lun::new(0, 0).unwrap());
        for (head, buf) in (0..).zip(bufs.drain(..)) {
            let (tag, data_len) = (Tag::new(0, 0, head, self.generation), buf.len() as u32);
            let req = CmdReq { host_no: 0, data_len, itn_id, scb, lun, attribute: 0x20, tag };
            let data = Some(CmdData { buf, ..CmdData::default() });
            assert!(self.rings.post_request(TxSlot { event: KEvent::CmdReq(req), data }).is_ok());
        }
        self.drain();
        let mut completions = std::mem::take(&mut self.io.0);
        for completion in completions.drain(..) {
            self.shard.on_completion(completion, &mut self.io, &mut self.rings);
        }
        self.io.0 = completions;
        let mut good = 0;
        while let Some(slot) = self.rings.take_rx() {
            let UEvent::CmdRsp(rsp) = slot.event else { panic!("{:?}", slot.event) };
            good += usize::from(rsp.result == 0);
            bufs.push(slot.answer.unwrap().buf);
            self.done.push(CmdDone { host_no: 0, result: 0, itn_id, tag: rsp.tag });
        }
        for done in self.done.drain(..) {
            self.rings.post_done(done);
        }
        self.drain();
        good
    }
}

#[divan::bench(args = [What::Read, What::Write, What::TestUnitReady])]
fn line(bencher: Bencher, what: What) {
    let (mut line, cdb) = (Line::new(), what.cdb());
    let mut bufs: Vec<IoBuf> = (0..BATCH).map(|_| what.buf()).collect();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        assert_eq!(line.batch(black_box(cdb), &mut bufs), BATCH);
    });
    assert_eq!(line.shard.tasks(), 0);
}
