//! The stand-in's chain: tipsets, messages that wait, and the state at each tipset.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::actor::{Cbor, Receipt, Rules, execute, exit, params_of};

/// A sector's pre-commitment.
#[derive(Clone, Debug)]
pub struct PreCommitted {
    pub number: u64,
    pub proof: i64,
    pub sealed: String,
    pub ticket_epoch: i64,
    pub deals: Vec<u64>,
    pub unsealed: Option<String>,
}

/// A proven sector.
#[derive(Clone, Debug)]
pub struct Proven {
    pub number: u64,
    pub proof: i64,
    pub sealed: String,
    /// CommR before a snap update.
    pub key: Option<String>,
}

/// A deal in the storage market.
#[derive(Clone, Debug)]
pub struct Deal {
    pub piece: String,
    pub size: u64,
}

#[derive(Clone, Debug)]
pub enum Effect {
    PreCommit(PreCommitted),
    Prove(Proven),
    /// The sector fails to be proven.
    Fault(u64),
    /// The sector is over; its entry stays until its partition is compacted.
    Terminate(u64),
}

/// The first miner's address made from its creation.
pub const ROBUST: &str = "f2actor";

#[derive(Clone, Debug)]
pub struct Tipset {
    pub height: i64,
    /// Which branch it lies on; part of its CID, and of the randomness drawn there.
    pub branch: u64,
    pub messages: Vec<Value>,
    /// How each of them ended.
    pub receipts: Vec<Receipt>,
    /// What they did, and to which miner's sectors.
    pub done: Vec<(u64, Effect)>,
    /// What others did to the first miner's, whose messages are not played.
    pub effects: Vec<Effect>,
}

/// A message as it was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    pub message: Value,
    /// What it may cost, and its id.
    pub spec: Value,
}

/// How a node ends a call whose message it has taken.
#[derive(Clone, Debug, PartialEq)]
pub enum AfterPush {
    Answer,
    /// With this error.
    Error(i64, String),
    /// The connection breaks off.
    Close,
}

impl Tipset {
    pub fn cid(&self) -> String {
        format!("bafy2bzacestandintipset{}x{}", self.height, self.branch)
    }
}

/// All of it.
#[derive(Clone)]
pub struct World {
    pub miner: u64,
    /// Miners beside it, of the same owner and worker, without control addresses.
    pub others: Vec<u64>,
    /// Those have a worker (f0201, f3worker2) and a control address (f0202, f3control2) of their own.
    pub pay_themselves: bool,
    /// Miners of whom nobody is told who they are.
    pub nameless: Vec<u64>,
    /// Miners whose sectors' state the node has lost.
    pub unreadable: Vec<u64>,
    pub sector_size: u64,
    pub window_post_proof: i64,
    pub network_version: u32,
    pub api_version: u32,
    pub challenge_delay: i64,
    pub base_fee: u128,
    pub balances: BTreeMap<String, u128>,
    /// Addresses whose keys the node has.
    pub keys: Vec<String>,
    pub deposit: u128,
    pub pledge: u128,
    /// What messages end with on chain, by method, whatever they say; otherwise the actor looks at them.
    pub exit_codes: BTreeMap<u64, u32>,
    pub deals: BTreeMap<u64, Deal>,
    /// The node remembers no state and no messages below this height.
    pub remembers_from: i64,
    /// `StateSearchMsg` finds messages that were executed.
    pub tells_ends: bool,
    /// Messages come in and are kept, but their senders never hear of it.
    pub swallow_pushes: bool,
    /// Pushes of an id that was pushed before give the same message, as Lotus does. Off: a node that has forgotten.
    pub knows_ids: bool,
    /// What gas estimation says, if it fails.
    pub estimate_fails: Option<(i64, String)>,
    /// Nothing is taken to be sent.
    pub push_fails: Option<(i64, String)>,
    /// What becomes of the answer to a push that was taken.
    pub after_push: AfterPush,
    /// What is pushed is kept here, and comes to those that wait when a test puts it there: somebody in between is slow.
    pub held_back: Option<Vec<Value>>,
    /// Parameters longer than this (in base64) run out of gas.
    pub gas_for: usize,
    /// How old the head seems, in seconds.
    pub behind: u64,
    /// Each look at the head makes a block.
    pub mines_when_looked_at: bool,
    /// The next answer to this method is told late: what it says may be old then.
    pub holds: Option<&'static str>,
    /// Methods called, in order.
    pub calls: Vec<String>,
    /// What was pushed, in order.
    pub pushed: Vec<Pushed>,
    pub mempool: Vec<Value>,
    pub chain: Vec<Tipset>,
    pub branch: u64,
    pub by_id: BTreeMap<String, Value>,
    pub nonce: u64,
}

impl World {
    /// A 2 KiB miner, f01000, at height 1000.
    pub fn new() -> Self {
        let mut world = Self {
            miner: 1000,
            others: Vec::new(),
            pay_themselves: false,
            nameless: Vec::new(),
            unreadable: Vec::new(),
            sector_size: 2048,
            window_post_proof: 10,
            network_version: 27,
            api_version: 0x2_0300,
            challenge_delay: 10,
            base_fee: 100,
            balances: BTreeMap::from([("f3worker".to_owned(), 10_u128.pow(19))]),
            keys: vec!["f3worker".to_owned()],
            deposit: 1000,
            pledge: 5000,
            exit_codes: BTreeMap::new(),
            deals: BTreeMap::new(),
            remembers_from: 0,
            tells_ends: true,
            swallow_pushes: false,
            knows_ids: false,
            estimate_fails: None,
            push_fails: None,
            after_push: AfterPush::Answer,
            held_back: None,
            gas_for: usize::MAX,
            behind: 0,
            mines_when_looked_at: false,
            holds: None,
            calls: Vec::new(),
            pushed: Vec::new(),
            mempool: Vec::new(),
            chain: vec![Tipset {
                height: 0,
                branch: 0,
                messages: Vec::new(),
                receipts: Vec::new(),
                done: Vec::new(),
                effects: Vec::new(),
            }],
            branch: 0,
            by_id: BTreeMap::new(),
            nonce: 40,
        };
        world.mine_at(1000, Vec::new());
        world
    }

    pub fn head(&self) -> &Tipset {
        self.chain.last().expect("a genesis")
    }

    /// What was held back comes in.
    pub fn let_in(&mut self) {
        self.mempool.extend(self.held_back.take().into_iter().flatten());
    }

    /// A block at the next height, with all messages that wait.
    pub fn mine(&mut self) {
        let height = self.head().height + 1;
        self.mine_at(height, Vec::new());
    }

    pub fn mine_many(&mut self, count: usize) {
        for _ in 0..count {
            self.mine();
        }
    }

    /// A block at the next height in which others do this to the state, before the messages that wait.
    pub fn mine_with(&mut self, effects: Vec<Effect>) {
        let height = self.head().height + 1;
        self.mine_at(height, effects);
    }

    /// A block at this height; no block was made at those between. Messages that wait are executed.
    pub fn mine_at(&mut self, height: i64, effects: Vec<Effect>) {
        assert!(height > self.head().height, "heights rise");
        let messages = std::mem::take(&mut self.mempool);
        let mut states: BTreeMap<u64, State> =
            self.all_miners().map(|miner| (miner, self.present_of(miner))).collect();
        let first = states.get_mut(&self.miner).expect("it is one of them");
        effects.iter().for_each(|effect| first.apply(height, effect));
        let (mut receipts, mut done) = (Vec::new(), Vec::new());
        for message in messages.iter().map(|signed| &signed["Message"]) {
            let told = message["Method"].as_u64().and_then(|method| self.exit_codes.get(&method));
            let called =
                self.called(message).and_then(|miner| states.get_mut(&miner).map(|state| (miner, state)));
            let end = match (told, called) {
                (Some(code), _) => Err(*code),
                (None, None) => Err(exit::NOT_FOUND),
                (None, Some((miner, state))) => {
                    self.execute(state, height, message).map(|(effects, receipt)| {
                        effects.iter().for_each(|effect| state.apply(height, effect));
                        done.extend(effects.into_iter().map(|effect| (miner, effect)));
                        receipt
                    })
                }
            };
            receipts.push(end.unwrap_or_else(|exit_code| Receipt { exit_code, answer: Vec::new() }));
        }
        self.chain.push(Tipset { height, branch: self.branch, messages, receipts, done, effects });
    }

    /// The first one first.
    pub fn all_miners(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.miner).chain(self.others.iter().copied())
    }

    /// The miner with this address.
    pub fn miner_at(&self, address: &str) -> Option<u64> {
        let own = (address == ROBUST).then_some(self.miner);
        own.or_else(|| self.all_miners().find(|miner| address == format!("f0{miner}")))
    }

    /// Whose actor a message calls.
    pub fn called(&self, message: &Value) -> Option<u64> {
        self.miner_at(message["To"].as_str()?)
    }

    /// What the miner actor that it calls makes of a message, in that miner's state.
    pub fn execute(
        &self,
        state: &State,
        height: i64,
        message: &Value,
    ) -> Result<(Vec<Effect>, Receipt), u32> {
        let &Self { sector_size, challenge_delay, deposit, pledge, .. } = self;
        execute(&Rules { sector_size, challenge_delay, deposit, pledge }, state, height, message)
    }

    /// The last `count` tipsets never were: their messages wait again, and what they did is undone. Gives what others did
    /// in them.
    pub fn reorganise(&mut self, count: usize) -> Vec<Effect> {
        self.branch += 1;
        let gone = self.chain.split_off(self.chain.len() - count);
        let mut effects = Vec::new();
        for tipset in gone {
            self.mempool.extend(tipset.messages);
            effects.extend(tipset.effects);
        }
        effects
    }

    /// Where on the present chain this tipset is; the empty key is the head.
    pub fn at(&self, key: &Value) -> Result<usize, (i64, String)> {
        let Some(cid) = key[0]["/"].as_str() else { return Ok(self.chain.len() - 1) };
        let found = self.chain.iter().position(|tipset| tipset.cid() == cid);
        found.ok_or_else(|| (1, format!("loading tipset {cid}: blockstore: block not found")))
    }

    /// A miner's state before this tipset's messages, as Lotus shows it.
    pub fn state(&self, miner: u64, at: usize) -> Result<State, (i64, String)> {
        if self.chain[at].height < self.remembers_from || self.unreadable.contains(&miner) {
            return Err((1, "failed to load state tree: ipld: could not find bafy2bzacestate".to_owned()));
        }
        Ok(self.state_behind(miner, &self.chain[..at]))
    }

    /// The first miner's state behind the head's messages.
    pub fn present(&self) -> State {
        self.present_of(self.miner)
    }

    /// A miner's state behind the head's messages.
    pub fn present_of(&self, miner: u64) -> State {
        self.state_behind(miner, &self.chain)
    }

    /// Messages of this method that were pushed, in order, with their parameters.
    pub fn sent(&self, method: u64) -> Vec<(&Pushed, Cbor)> {
        let all = self.pushed.iter().filter(|pushed| pushed.message["Method"] == method);
        all.map(|pushed| (pushed, params_of(&pushed.message).expect("CBOR"))).collect()
    }

    /// A miner's state behind these tipsets' messages.
    fn state_behind(&self, miner: u64, tipsets: &[Tipset]) -> State {
        let mut state = State::default();
        for tipset in tipsets {
            let by_others = tipset.effects.iter().filter(|_| miner == self.miner);
            let by_messages = tipset.done.iter().filter(|(of, _)| *of == miner).map(|(_, effect)| effect);
            by_others.chain(by_messages).for_each(|effect| state.apply(tipset.height, effect));
        }
        state
    }

    /// Messages on chain with these parameters (base64).
    pub fn landed(&self, params: &str) -> usize {
        let all = self.chain.iter().flat_map(|tipset| &tipset.messages);
        all.filter(|signed| signed["Message"]["Params"] == params).count()
    }

    pub fn tipset(&self, at: usize) -> Value {
        let tipset = &self.chain[at];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        // Seconds between blocks: 1. The head is now.
        let age =
            u64::try_from(self.head().height - tipset.height).expect("not above the head") + self.behind;
        json!({
            "Cids": [{"/": tipset.cid()}],
            "Blocks": [{
                "Miner": "f01001", "Height": tipset.height, "Timestamp": now.saturating_sub(age),
                "ParentBaseFee": self.base_fee.to_string(), "BeaconEntries": null, "WinPoStProof": null,
            }],
            "Height": tipset.height,
        })
    }
}

/// A miner's sectors at a tipset.
#[derive(Debug, Default)]
pub struct State {
    pub pre_commits: BTreeMap<u64, (i64, PreCommitted)>,
    pub sectors: BTreeMap<u64, (i64, Proven)>,
    pub faulty: BTreeSet<u64>,
    pub terminated: BTreeSet<u64>,
}

impl State {
    /// It happens at this height.
    fn apply(&mut self, height: i64, effect: &Effect) {
        match effect {
            Effect::PreCommit(info) => {
                self.pre_commits.insert(info.number, (height, info.clone()));
            }
            Effect::Prove(info) => {
                self.pre_commits.remove(&info.number);
                self.sectors.insert(info.number, (height, info.clone()));
            }
            Effect::Fault(number) => {
                self.faulty.insert(*number);
            }
            Effect::Terminate(number) => {
                self.terminated.insert(*number);
            }
        }
    }
}
