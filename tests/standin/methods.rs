//! The stand-in's methods, with Lotus's parameters and answers.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::actor::exit;
use super::world::{AfterPush, Pushed, ROBUST, Tipset, World};

type Answer = Result<Value, (i64, String)>;

impl World {
    /// Answers `Filecoin.<method>`.
    pub fn call(&mut self, method: &str, params: &[Value]) -> Answer {
        let none = Value::Null;
        let param = |at: usize| params.get(at).unwrap_or(&none);
        let name = method.strip_prefix("Filecoin.").unwrap_or_default();
        match name {
            "Version" => Ok(json!({
                "Version": "1.36.2+standin+git.0", "APIVersion": self.api_version, "BlockDelay": 1, "Agent": "stand-in",
            })),
            "StateGetNetworkParams" => Ok(json!({
                "NetworkName": "standin", "BlockDelaySecs": 1, "ConsensusMinerMinPower": "2048",
                "PreCommitChallengeDelay": self.challenge_delay, "ForkUpgradeParams": {}, "Eip155ChainID": 31415926,
            })),
            "StateNetworkVersion" => Ok(json!(self.network_version)),
            "ChainHead" => {
                if self.mines_when_looked_at {
                    self.mine();
                    self.behind = self.behind.saturating_sub(2);
                }
                Ok(self.tipset(self.chain.len() - 1))
            }
            "ChainGetGenesis" => Ok(self.tipset(0)),
            "ChainGetTipSetByHeight" => self.by_height(param(0), param(1)),
            "SyncState" => Ok(json!({"ActiveSyncs": [{
                "WorkerID": 1, "Base": null, "Target": self.tipset(self.chain.len() - 1), "Stage": 3,
                "Height": self.head().height, "Start": "2026-01-01T00:00:00Z", "End": "0001-01-01T00:00:00Z", "Message": "",
            }], "VMApplied": 7})),
            "StateMinerInfo" => self.miner_info(param(0)),
            "StateSectorGetInfo" => self.sector(param(0), param(1), param(2)),
            "StateSectorPartition" => self.location(param(0), param(1), param(2)),
            "StateMinerPartitions" => self.partitions(param(0), param(1), param(2)),
            "StateMinerAllocated" => self.allocated(param(0), param(1)),
            "StateSectorPreCommitInfo" => self.pre_commit(param(0), param(1), param(2)),
            "StateGetRandomnessFromTickets" | "StateGetRandomnessFromBeacon" => self.randomness(params),
            "StateMarketStorageDeal" => self.deal(param(0), param(1)),
            "ChainGetMessagesInTipset" => {
                let at = self.at(param(0))?;
                let message = |signed: &Value| json!({"Cid": signed["CID"], "Message": signed["Message"]});
                Ok(json!(self.chain[at].messages.iter().map(message).collect::<Vec<_>>()))
            }
            _ => self
                .sending(name, params)
                .unwrap_or_else(|| Err((-32601, format!("method '{method}' not found")))),
        }
    }

    /// The methods that have to do with messages.
    fn sending(&mut self, name: &str, params: &[Value]) -> Option<Answer> {
        let none = Value::Null;
        let param = |at: usize| params.get(at).unwrap_or(&none);
        Some(match name {
            "StateMinerPreCommitDepositForPower" => Ok(json!(self.deposit.to_string())),
            "StateMinerInitialPledgeForSector" => Ok(json!(self.pledge.to_string())),
            "StateAccountKey" => Ok(json!(match param(0).as_str() {
                Some("f0101") => "f3worker",
                Some("f0102") => "f3control",
                Some("f0201") => "f3worker2",
                Some("f0202") => "f3control2",
                other => other.unwrap_or_default(),
            })),
            "StateLookupID" => match param(0).as_str().unwrap_or_default() {
                "f3worker" => Ok(json!("f0101")),
                "f3control" => Ok(json!("f0102")),
                "f3worker2" => Ok(json!("f0201")),
                "f3control2" => Ok(json!("f0202")),
                ROBUST => Ok(json!("f01000")),
                id if id.get(1..2) == Some("0") => Ok(json!(id)),
                other => Err((11, format!("failed to resolve {other}: actor not found"))),
            },
            "WalletHas" => Ok(json!(self.keys.iter().any(|key| Some(key.as_str()) == param(0).as_str()))),
            "WalletBalance" => {
                let balance = param(0).as_str().and_then(|address| self.balances.get(address));
                Ok(json!(balance.copied().unwrap_or_default().to_string()))
            }
            "GasEstimateMessageGas" => match &self.estimate_fails {
                Some(error) => Err(error.clone()),
                None if param(0)["Params"].as_str().is_some_and(|params| params.len() > self.gas_for) => {
                    Err((2, "message execution failed: exit SysErrOutOfGas(7)".to_owned()))
                }
                None => self.try_out(param(0)).map(|()| with_gas(param(0), 0)),
            },
            "MpoolPushMessage" => self.push(param(0), param(1)),
            "MpoolPending" => Ok(if self.mempool.is_empty() { Value::Null } else { json!(self.mempool) }),
            "StateListMessages" => self.list(param(0), param(2)),
            "ChainGetMessage" => {
                let all = self.chain.iter().flat_map(|tipset| &tipset.messages).chain(&self.mempool);
                let found = all.into_iter().find(|signed| signed["CID"] == *param(0));
                found.map(|signed| signed["Message"].clone()).ok_or((1, "ipld: could not find it".to_owned()))
            }
            "StateSearchMsg" => Ok(if self.tells_ends { self.search(param(1)) } else { Value::Null }),
            _ => return None,
        })
    }

    fn by_height(&self, height: &Value, key: &Value) -> Answer {
        let below = self.at(key)?;
        let height = height.as_i64().unwrap_or_default();
        if height > self.chain[below].height {
            return Err((1, "looking for tipset with height greater than start point".to_owned()));
        }
        let found = self.chain[..=below].iter().rposition(|tipset| tipset.height <= height);
        Ok(self.tipset(found.unwrap_or_default()))
    }

    /// The miner, by its number.
    fn own(&self, miner: &Value) -> Result<u64, (i64, String)> {
        let found =
            miner.as_str().filter(|address| *address != ROBUST).and_then(|address| self.miner_at(address));
        found.ok_or_else(|| (11, "failed to load miner actor: actor not found".to_owned()))
    }

    fn miner_info(&self, miner: &Value) -> Answer {
        let miner = self.own(miner)?;
        if self.nameless.contains(&miner) {
            return Err((
                1,
                "failed to load miner actor state: ipld: could not find bafy2bzaceinfo".to_owned(),
            ));
        }
        let has_control = miner == self.miner && self.balances.contains_key("f3control");
        let control: Option<Vec<&str>> = has_control.then(|| vec!["f0102"]);
        let (worker, control) = match miner != self.miner && self.pay_themselves {
            true => ("f0201", Some(vec!["f0202"])),
            false => ("f0101", control),
        };
        Ok(json!({
            "Owner": "f0100", "Worker": worker, "NewWorker": "<empty>", "ControlAddresses": control,
            "WorkerChangeEpoch": -1, "PeerId": null, "Multiaddrs": null, "WindowPoStProofType": self.window_post_proof,
            "SectorSize": self.sector_size, "WindowPoStPartitionSectors": 2, "ConsensusFaultElapsed": -1,
            "PendingOwnerAddress": null, "Beneficiary": "f0100", "BeneficiaryTerm": null, "PendingBeneficiaryTerm": null,
        }))
    }

    fn sector(&self, miner: &Value, number: &Value, key: &Value) -> Answer {
        let state = self.state(self.own(miner)?, self.at(key)?)?;
        let Some((activation, info)) = state.sectors.get(&number.as_u64().unwrap_or_default()) else {
            return Ok(Value::Null);
        };
        Ok(json!({
            "SectorNumber": info.number, "SealProof": info.proof, "SealedCID": {"/": info.sealed}, "DeprecatedDealIDs": null,
            "Activation": activation, "Expiration": activation + 1_555_200, "DealWeight": "0", "VerifiedDealWeight": "0",
            "InitialPledge": "0", "ExpectedDayReward": "0", "ExpectedStoragePledge": "0", "PowerBaseEpoch": activation,
            "ReplacedDayReward": "0", "SectorKeyCID": info.key.as_ref().map(|key| json!({"/": key})), "Flags": 1,
        }))
    }

    /// Where a sector is proven.
    fn location(&self, miner: &Value, number: &Value, key: &Value) -> Answer {
        let state = self.state(self.own(miner)?, self.at(key)?)?;
        let number = number.as_u64().unwrap_or_default();
        match state.sectors.contains_key(&number) {
            true => Ok(json!({"Deadline": number % 48, "Partition": 0})),
            false => Err((1, format!("sector {number} not due at any deadline"))),
        }
    }

    /// A deadline's partitions; every sector has the deadline that its number says, and all of one lie in one partition.
    fn partitions(&self, miner: &Value, deadline: &Value, key: &Value) -> Answer {
        let state = self.state(self.own(miner)?, self.at(key)?)?;
        let deadline = deadline.as_u64().filter(|deadline| *deadline < 48);
        let deadline = deadline.ok_or((1, "failed to load the deadline: invalid deadline".to_owned()))?;
        let all: BTreeSet<u64> =
            state.sectors.keys().copied().filter(|number| number % 48 == deadline).collect();
        if all.is_empty() {
            return Ok(Value::Null);
        }
        let live: BTreeSet<u64> = all.difference(&state.terminated).copied().collect();
        let faulty: BTreeSet<u64> = live.intersection(&state.faulty).copied().collect();
        let active = live.difference(&faulty).copied().collect();
        Ok(json!([{
            "AllSectors": runs(&all), "FaultySectors": runs(&faulty), "RecoveringSectors": [0],
            "LiveSectors": runs(&live), "ActiveSectors": runs(&active),
        }]))
    }

    fn allocated(&self, miner: &Value, key: &Value) -> Answer {
        let state = self.state(self.own(miner)?, self.at(key)?)?;
        let taken = state.sectors.keys().chain(state.pre_commits.keys()).copied().collect();
        Ok(json!(runs(&taken)))
    }

    fn pre_commit(&self, miner: &Value, number: &Value, key: &Value) -> Answer {
        let state = self.state(self.own(miner)?, self.at(key)?)?;
        let Some((epoch, info)) = state.pre_commits.get(&number.as_u64().unwrap_or_default()) else {
            return Ok(Value::Null);
        };
        let deals = if info.deals.is_empty() { Value::Null } else { json!(info.deals) };
        Ok(json!({
            "Info": {
                "SealProof": info.proof, "SectorNumber": info.number, "SealedCID": {"/": info.sealed},
                "SealRandEpoch": info.ticket_epoch, "DealIDs": deals, "Expiration": epoch + 1_555_200,
                "UnsealedCid": info.unsealed.as_ref().map(|cid| json!({"/": cid})),
            },
            "PreCommitDeposit": self.deposit.to_string(), "PreCommitEpoch": epoch,
        }))
    }

    /// From tag, height, entropy and the branch that the height lies on below the given tipset.
    fn randomness(&self, params: &[Value]) -> Answer {
        let [tag, height, entropy, key] = params else {
            return Err((-32602, "wrong param count".to_owned()));
        };
        let below = self.at(key)?;
        let height = height.as_i64().unwrap_or_default();
        if height > self.chain[below].height {
            return Err((1, "cannot draw randomness from the future".to_owned()));
        }
        let found = self.chain[..=below].iter().rposition(|tipset| tipset.height <= height.max(0));
        let branch = self.chain[found.unwrap_or_default()].branch;
        Ok(json!(randomness_text(
            tag.as_u64().unwrap_or_default(),
            height,
            entropy.as_str().unwrap_or_default(),
            branch
        )))
    }

    fn deal(&self, deal: &Value, key: &Value) -> Answer {
        self.state(self.miner, self.at(key)?)?;
        let number = deal.as_u64().unwrap_or_default();
        let deal = self.deals.get(&number).ok_or((1, format!("deal {number} not found")))?;
        Ok(json!({
            "Proposal": {
                "PieceCID": {"/": deal.piece}, "PieceSize": deal.size, "VerifiedDeal": false, "Client": "f0200",
                "Provider": "f01000", "Label": "", "StartEpoch": 1, "EndEpoch": 2, "StoragePricePerEpoch": "0",
                "ProviderCollateral": "0", "ClientCollateral": "0",
            },
            "State": {"SectorNumber": 0, "SectorStartEpoch": 1, "LastUpdatedEpoch": -1, "SlashEpoch": -1},
        }))
    }

    /// What a message would come to at the next height; a node executes it to know its gas.
    fn try_out(&self, message: &Value) -> Result<(), (i64, String)> {
        let called = self.called(message).ok_or(exit::NOT_FOUND);
        let end =
            called.and_then(|miner| self.execute(&self.present_of(miner), self.head().height + 1, message));
        end.map(drop).map_err(|code| (1, format!("message execution failed: exit {code}")))
    }

    /// Whoever signs must be known and able to pay, and how much must be said: without a limit Lotus takes its own.
    fn check_purse(&self, message: &Value, spec: &Value) -> Result<(), (i64, String)> {
        let refused = |text: String| Err((1, text));
        let amount = |value: &Value| value.as_str().and_then(|text| text.parse::<u128>().ok());
        let from = message["From"].as_str().unwrap_or_default();
        if !self.keys.iter().any(|key| key == from) {
            return refused(format!("mpool push: failed to sign message: no key for {from}"));
        }
        if amount(&spec["MaxFee"]).is_none_or(|fee| fee == 0) {
            return refused(format!("the stand-in wants a limit of the fee, not {}", spec["MaxFee"]));
        }
        let balance = self.balances.get(from).copied().unwrap_or_default();
        match amount(&message["Value"]) {
            Some(value) if value <= balance => Ok(()),
            _ => refused(format!("mpool push: not enough funds: {balance} < {}", message["Value"])),
        }
    }

    fn push(&mut self, message: &Value, spec: &Value) -> Answer {
        if let Some(error) = &self.push_fails {
            return Err(error.clone());
        }
        self.check_purse(message, spec)?;
        let id = spec["MsgUuid"].as_str().unwrap_or_default().to_owned();
        if let Some(known) = self.by_id.get(&id).filter(|_| self.knows_ids) {
            return Ok(known.clone());
        }
        self.pushed.push(Pushed { message: message.clone(), spec: spec.clone() });
        self.nonce += 1;
        let cid = json!({"/": format!("bafy2bzacestandinmessage{}", self.nonce)});
        let message = with_gas(message, self.nonce);
        let signed = json!({"Message": message, "Signature": {"Type": 2, "Data": "c2ln"}, "CID": cid});
        self.by_id.insert(id, signed.clone());
        self.held_back.as_mut().unwrap_or(&mut self.mempool).push(signed.clone());
        match &self.after_push {
            AfterPush::Error(code, message) => Err((*code, message.clone())),
            AfterPush::Answer | AfterPush::Close => Ok(signed),
        }
    }

    fn list(&self, wanted: &Value, since: &Value) -> Answer {
        let since = since.as_i64().unwrap_or_default();
        if since < self.remembers_from {
            return Err((1, format!("failed to load tipset at height {since}: ipld: could not find it")));
        }
        let same = |signed: &&Value| {
            signed["Message"]["To"] == wanted["To"] && signed["Message"]["From"] == wanted["From"]
        };
        let tipsets = self.chain.iter().filter(|tipset| tipset.height >= since);
        let found: Vec<_> =
            tipsets.flat_map(|tipset| &tipset.messages).filter(same).map(|signed| &signed["CID"]).collect();
        Ok(if found.is_empty() { Value::Null } else { json!(found) })
    }

    /// Where a message was executed: the tipset after the one that holds it.
    fn search(&self, cid: &Value) -> Value {
        let at = |tipset: &Tipset| tipset.messages.iter().position(|signed| signed["CID"] == *cid);
        let found = self.chain.windows(2).find_map(|pair| Some((&pair[0].receipts[at(&pair[0])?], &pair[1])));
        let Some((receipt, executed)) = found else { return Value::Null };
        let answer =
            if receipt.answer.is_empty() { Value::Null } else { json!(STANDARD.encode(&receipt.answer)) };
        json!({
            "Message": cid,
            "Receipt": {"ExitCode": receipt.exit_code, "Return": answer, "GasUsed": 4711, "EventsRoot": null},
            "ReturnDec": null, "TipSet": [{"/": executed.cid()}], "Height": executed.height,
        })
    }
}

/// Lengths of runs of numbers, not set and set in turn; none is set: [0].
fn runs(numbers: &BTreeSet<u64>) -> Vec<u64> {
    let (mut runs, mut next) = (vec![0], 0);
    for number in numbers {
        if *number > next || next == 0 {
            runs.extend((next > 0).then_some(0));
            if let Some(last) = runs.last_mut() {
                *last = number - next;
            }
            runs.push(0);
        }
        if let Some(last) = runs.last_mut() {
            *last += 1;
        }
        next = number + 1;
    }
    runs
}

fn with_gas(message: &Value, nonce: u64) -> Value {
    let mut message = message.clone();
    message["Nonce"] = json!(nonce);
    message["GasLimit"] = json!(25_000_000);
    message["GasFeeCap"] = json!("101");
    message["GasPremium"] = json!("1");
    message
}

/// 32 bytes that depend on all of it, in base64.
pub fn randomness_text(tag: u64, height: i64, entropy: &str, branch: u64) -> String {
    let mut bytes = [0_u8; 32];
    let text = format!("{tag} {height} {entropy} {branch}");
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325; // FNV-1a
    for (at, byte) in text.bytes().cycle().take(256).enumerate() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        bytes[at % 32] ^= (hash >> 24) as u8;
    }
    STANDARD.encode(bytes)
}
