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

/// The miner's address made from its creation.
pub const ROBUST: &str = "f2actor";

#[derive(Clone, Debug)]
pub struct Tipset {
    pub height: i64,
    /// Which branch it lies on; part of its CID, and of the randomness drawn there.
    pub branch: u64,
    pub messages: Vec<Value>,
    /// How each of them ended.
    pub receipts: Vec<Receipt>,
    /// What they did.
    pub done: Vec<Effect>,
    /// What others did, whose messages are not played.
    pub effects: Vec<Effect>,
}

/// A message as it was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    pub message: Value,
    /// What it may cost, and its id.
    pub spec: Value,
}

impl Tipset {
    pub fn cid(&self) -> String {
        format!("bafy2bzacestandintipset{}x{}", self.height, self.branch)
    }
}

/// All of it.
pub struct World {
    pub miner: u64,
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
    /// The node remembers no state below this height.
    pub remembers_from: i64,
    /// Messages come in and are kept, but their senders never hear of it.
    pub swallow_pushes: bool,
    /// Pushes of an id that was pushed before give the same message, as Lotus does. Off: a node that has forgotten.
    pub knows_ids: bool,
    /// What gas estimation says, if it fails.
    pub estimate_fails: Option<(i64, String)>,
    /// Nothing is taken to be sent.
    pub push_fails: Option<(i64, String)>,
    /// Parameters longer than this (in base64) run out of gas.
    pub gas_for: usize,
    /// How old the head seems, in seconds.
    pub behind: u64,
    /// Each look at the head makes a block.
    pub mines_when_looked_at: bool,
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
            swallow_pushes: false,
            knows_ids: false,
            estimate_fails: None,
            push_fails: None,
            gas_for: usize::MAX,
            behind: 0,
            mines_when_looked_at: false,
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
        let mut state = self.present();
        state.apply(height, &effects);
        let (mut receipts, mut done) = (Vec::new(), Vec::new());
        for message in messages.iter().map(|signed| &signed["Message"]) {
            let told = message["Method"].as_u64().and_then(|method| self.exit_codes.get(&method));
            let end = match told {
                Some(code) => Err(*code),
                None => self.execute(&state, height, message),
            };
            receipts.push(match end {
                Ok((effects, receipt)) => {
                    state.apply(height, &effects);
                    done.extend(effects);
                    receipt
                }
                Err(exit_code) => Receipt { exit_code, answer: Vec::new() },
            });
        }
        self.chain.push(Tipset { height, branch: self.branch, messages, receipts, done, effects });
    }

    /// What the miner actor makes of a message in this state.
    pub fn execute(
        &self,
        state: &State,
        height: i64,
        message: &Value,
    ) -> Result<(Vec<Effect>, Receipt), u32> {
        let &Self { sector_size, challenge_delay, deposit, pledge, .. } = self;
        match message["To"].as_str() {
            Some(to) if to == format!("f0{}", self.miner) || to == ROBUST => {
                execute(&Rules { sector_size, challenge_delay, deposit, pledge }, state, height, message)
            }
            _ => Err(exit::NOT_FOUND),
        }
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

    /// The state before this tipset's messages, as Lotus shows it.
    pub fn state(&self, at: usize) -> Result<State, (i64, String)> {
        if self.chain[at].height < self.remembers_from {
            return Err((1, "failed to load state tree: ipld: could not find bafy2bzacestate".to_owned()));
        }
        Ok(Self::state_behind(&self.chain[..at]))
    }

    /// The state behind the head's messages.
    pub fn present(&self) -> State {
        Self::state_behind(&self.chain)
    }

    /// Messages of this method that were pushed, in order, with their parameters.
    pub fn sent(&self, method: u64) -> Vec<(&Pushed, Cbor)> {
        let all = self.pushed.iter().filter(|pushed| pushed.message["Method"] == method);
        all.map(|pushed| (pushed, params_of(&pushed.message).expect("CBOR"))).collect()
    }

    /// The state behind these tipsets' messages.
    fn state_behind(tipsets: &[Tipset]) -> State {
        let mut state = State::default();
        for tipset in tipsets {
            state.apply(tipset.height, &tipset.effects);
            state.apply(tipset.height, &tipset.done);
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

/// The miner's sectors at a tipset.
#[derive(Debug, Default)]
pub struct State {
    pub pre_commits: BTreeMap<u64, (i64, PreCommitted)>,
    pub sectors: BTreeMap<u64, (i64, Proven)>,
    pub faulty: BTreeSet<u64>,
    pub terminated: BTreeSet<u64>,
}

impl State {
    /// They happen at this height.
    fn apply(&mut self, height: i64, effects: &[Effect]) {
        for effect in effects {
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
}
