//! One sector and a clock, for the tests to tell stories with.
#![allow(dead_code, reason = "each test program uses its part")]

use pipeline::*;
use sealtasks::*;

pub struct World {
    pub record: SectorRecord,
    pub now_ms: u64,
}

/// Good results of each task, for a 2 KiB sector.
pub mod outputs {
    use super::*;

    pub fn zero_piece() -> PieceInfo {
        PieceInfo::new(2048.try_into().unwrap(), Commitment::new([4; 32]))
    }

    pub fn data(padded: u64, seed: u8) -> DataPiece {
        let piece = PieceInfo::new(padded.try_into().unwrap(), Commitment::new([seed; 32]));
        let staged = uuid::Uuid::from_u64_pair(1, seed.into());
        DataPiece { piece, bytes: piece.size.unpadded().get() - 1, staged, offset: None }
    }

    pub fn piece() -> TaskOutput {
        TaskOutput::AddPiece(zero_piece())
    }

    pub fn pc1() -> TaskOutput {
        TaskOutput::PreCommit1(Pc1Output(b"pc1".to_vec()))
    }

    pub fn pc2() -> TaskOutput {
        let sealed = SealedCid::new(Commitment::new([5; 32]));
        TaskOutput::PreCommit2 { unsealed: zero_piece().cid, sealed }
    }

    pub fn c1() -> TaskOutput {
        TaskOutput::Commit1(C1Output(b"c1".to_vec()))
    }

    pub fn proof() -> TaskOutput {
        TaskOutput::Commit2(Proof(vec![7; 192]))
    }
}

impl World {
    pub fn pledge(stop_after: Option<StopAfter>) -> Self {
        let sector = SectorRef {
            id: SectorId::new(1000, 1),
            proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2),
        };
        Self {
            record: SectorRecord::pledge(sector, stop_after, RandomnessSource::Offline),
            now_ms: 1_700_000_000_000,
        }
    }

    /// A sector that waits for data.
    pub fn open() -> Self {
        let pledged = Self::pledge(None);
        let record = SectorRecord::open(pledged.record.sector(), None, RandomnessSource::Offline);
        Self { record, ..pledged }
    }

    /// Data of so many padded bytes; `seed` tells it from others.
    pub fn give(&mut self, padded: u64, seed: u8) {
        self.apply(SectorEvent::AddData { data: outputs::data(padded, seed) });
    }

    /// A good sector that has come to this step.
    pub fn at(step: &str) -> Self {
        let mut world = Self::pledge(None);
        world.run_to(step);
        world
    }

    /// What the sector waits for, in two words.
    pub fn step(&self) -> String {
        match self.record.next() {
            Step::Run(input) => match input {
                TaskInput::Move(_) => "run MOVE".to_owned(),
                input => format!("run {}", input.task_type().unwrap()),
            },
            Step::NeedTicket => "ticket".to_owned(),
            Step::NeedSeed => "seed".to_owned(),
            Step::NeedVerification(_) => "verify".to_owned(),
            Step::SubmitPreCommit => "pre-commit".to_owned(),
            Step::SubmitCommit => "commit".to_owned(),
            Step::AwaitMessage { message } => format!("await {message}"),
            Step::Proceed => "proceed".to_owned(),
            Step::Retry { .. } => "retry".to_owned(),
            Step::Rest { why: Rest::NeedsOperator } => "rest: needs the operator".to_owned(),
            Step::Rest { why } => format!("rest: {why}"),
            Step::Done => "done".to_owned(),
        }
    }

    /// Everything goes well up to this step.
    pub fn run_to(&mut self, step: &str) {
        for _ in 0..40 {
            if self.step() == step {
                return;
            }
            match self.record.next() {
                Step::Run(TaskInput::AddPiece(input)) => {
                    let cid = self.record.data_to_write().map(|data| data.piece.cid);
                    let cid = cid.unwrap_or(outputs::zero_piece().cid);
                    self.done(TaskOutput::AddPiece(PieceInfo { size: input.size.padded(), cid }));
                }
                Step::SubmitPreCommit | Step::SubmitCommit | Step::AwaitMessage { .. } => {
                    self.apply(SectorEvent::Landed { epoch: ChainEpoch::default() })
                }
                Step::Proceed => self.apply(SectorEvent::Proceed),
                Step::Run(TaskInput::PreCommit1(_)) => self.done(outputs::pc1()),
                Step::Run(TaskInput::PreCommit2(_)) => self.done(outputs::pc2()),
                Step::Run(TaskInput::Commit1(_)) => self.done(outputs::c1()),
                Step::Run(TaskInput::Commit2(_)) => self.done(outputs::proof()),
                Step::Run(TaskInput::Finalize(_)) => self.done(TaskOutput::Finalize),
                Step::Run(TaskInput::Move(_)) => self.done(TaskOutput::Move),
                Step::NeedVerification(_) => self.done(TaskOutput::Verify(true)),
                Step::NeedTicket => self.ticket(),
                Step::NeedSeed => self.seed(),
                other => panic!("no way to {step} from {other:?}"),
            }
        }
        panic!("{step} was never reached");
    }

    /// Applies the event, which must be taken, and passes the record through its durable form.
    #[track_caller]
    pub fn apply(&mut self, event: SectorEvent) {
        let before = self.record.state();
        self.record.apply(event).unwrap_or_else(|error| panic!("in {before}: {error}"));
        let stored = serde_json::to_string(&self.record).unwrap();
        assert_eq!(serde_json::from_str::<SectorRecord>(&stored).unwrap(), self.record);
    }

    #[track_caller]
    pub fn refuse(&mut self, event: SectorEvent) {
        let before = self.record.clone();
        let refusal = self.record.apply(event.clone());
        assert!(refusal.is_err(), "{event:?} was taken");
        assert_eq!(self.record, before, "a refused event changed the record");
    }

    #[track_caller]
    pub fn done(&mut self, output: TaskOutput) {
        self.apply(SectorEvent::TaskDone { output, now_ms: self.now_ms });
    }

    #[track_caller]
    pub fn fail(&mut self, class: FailureClass) {
        self.apply(SectorEvent::Failed { class, message: "it broke".to_owned(), now_ms: self.now_ms });
    }

    #[track_caller]
    pub fn ticket(&mut self) {
        self.apply(SectorEvent::TicketReady { ticket: Ticket([1; 32]), epoch: ChainEpoch::default() });
    }

    #[track_caller]
    pub fn landed(&mut self) {
        self.apply(SectorEvent::Landed { epoch: ChainEpoch::default() });
    }

    #[track_caller]
    pub fn seed(&mut self) {
        self.apply(SectorEvent::SeedReady { seed: Seed([2; 32]), epoch: ChainEpoch::default() });
    }

    /// Lets the back-off pass.
    #[track_caller]
    pub fn wait_and_retry(&mut self) {
        let Step::Retry { not_before_ms } = self.record.next() else { panic!("{:?}", self.record.next()) };
        self.now_ms = not_before_ms;
        self.apply(SectorEvent::RetryDue { now_ms: self.now_ms });
    }

    #[track_caller]
    pub fn expect(&self, state: SectorState, step: &str) {
        assert_eq!((self.record.state(), self.step().as_str()), (state, step));
    }
}
