//! `[chain]`: the full node, whether messages are sent, when a batch is due and what it may cost.

use std::path::Path;

use chain::TokenAmount;
use chain::params::{PRE_COMMIT_MAX, PROVE_COMMIT_MAX};
use chain::sending::batch::BatchPolicy;
use chain::sending::{Fees, Payment};
use toml::Value;

use super::scheduling::{SPAN, span};
use super::sealing::unknown_key;
use super::{ConfigError, wrong};

/// Epochs of 30 s in a day.
const EPOCHS_IN_DAY: i64 = 2880;
/// The shortest and the longest life that the miner actor takes, in days. Of builtin-actors: `MIN_SECTOR_EXPIRATION`, 180
/// days, counts from the last height at which the sector can become active, which is `MAX_PROVE_COMMIT_DURATION` (30 days
/// and 150 epochs) after its pre-commitment; `MAX_SECTOR_EXPIRATION_EXTENSION` is 1278 days.
const LIFETIME_DAYS: std::ops::RangeInclusive<i64> = 211..=1278;

/// More addresses are not asked for their balance before each message.
const PAYERS_MAX: usize = 16;

/// What the file says of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSettings {
    /// The full node's API info.
    pub full_node: Option<String>,
    /// Whether messages are sent.
    pub send_messages: bool,
    /// When pre-commitments go.
    pub pre_commit: BatchPolicy,
    /// When proofs go.
    pub prove_commit: BatchPolicy,
    /// What a pre-commitment's gas may cost, and who pays.
    pub pre_commit_payment: Payment,
    /// The same of a proof.
    pub prove_commit_payment: Payment,
    /// How long sectors are to live, in epochs of 30 s.
    pub lifetime: i64,
}

const KEYS: [&str; 12] = [
    "full_node",
    "send_messages",
    "pre_commit_batch",
    "pre_commit_wait",
    "prove_commit_batch",
    "prove_commit_wait",
    "base_fee_max",
    "pre_commit_fee",
    "prove_commit_fee",
    "pre_commit_from",
    "prove_commit_from",
    "sector_lifetime_days",
];

impl Default for ChainSettings {
    fn default() -> Self {
        Self {
            full_node: None,
            send_messages: false,
            pre_commit: BatchPolicy::PRE_COMMIT,
            prove_commit: BatchPolicy::PROVE_COMMIT,
            pre_commit_payment: Fees::PRE_COMMIT.into(),
            prove_commit_payment: Fees::PROVE_COMMIT.into(),
            lifetime: 540 * EPOCHS_IN_DAY,
        }
    }
}

impl ChainSettings {
    /// Takes one key of `[chain]`.
    pub(super) fn set(&mut self, path: &Path, key: &str, value: &Value) -> Result<(), ConfigError> {
        let wait = || span(value).map(|span| span.get()).ok_or_else(|| wrong(path, key, value, SPAN));
        match key {
            "full_node" => {
                let text = value.as_str().ok_or_else(|| wrong(path, key, value, "<token>:<address>"))?;
                self.full_node = (!text.is_empty()).then(|| text.to_owned());
            }
            "send_messages" => {
                self.send_messages =
                    value.as_bool().ok_or_else(|| wrong(path, key, value, "true or false"))?;
            }
            "pre_commit_batch" => self.pre_commit.max = batch(path, key, value, PRE_COMMIT_MAX)?,
            "prove_commit_batch" => self.prove_commit.max = batch(path, key, value, PROVE_COMMIT_MAX)?,
            "pre_commit_wait" => self.pre_commit.wait_ms = wait()?,
            "prove_commit_wait" => self.prove_commit.wait_ms = wait()?,
            "base_fee_max" => {
                let most = match value.as_str() {
                    Some("") => None,
                    _ => Some(amount(path, key, value)?),
                };
                (self.pre_commit.base_fee_max, self.prove_commit.base_fee_max) = (most, most);
            }
            "pre_commit_fee" => self.pre_commit_payment.fees.per_sector = amount(path, key, value)?,
            "prove_commit_fee" => self.prove_commit_payment.fees.per_sector = amount(path, key, value)?,
            "pre_commit_from" => self.pre_commit_payment.from = addresses(path, key, value)?,
            "prove_commit_from" => self.prove_commit_payment.from = addresses(path, key, value)?,
            "sector_lifetime_days" => {
                let days = value.as_integer().filter(|days| LIFETIME_DAYS.contains(days));
                let days = days.ok_or_else(|| wrong(path, key, value, "a number from 211 to 1278"))?;
                self.lifetime = days.saturating_mul(EPOCHS_IN_DAY);
            }
            unknown => return Err(unknown_key(path, unknown, &KEYS)),
        }
        Ok(())
    }
}

fn batch(path: &Path, key: &str, value: &Value, most: usize) -> Result<usize, ConfigError> {
    let count = value.as_integer().and_then(|count| usize::try_from(count).ok());
    count
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| wrong(path, key, value, "a number of sectors from 1 to what the miner actor takes"))
}

fn amount(path: &Path, key: &str, value: &Value) -> Result<TokenAmount, ConfigError> {
    let amount = value.as_str().and_then(|text| text.parse().ok());
    amount.ok_or_else(|| wrong(path, key, value, "FIL as a text such as \"0.02\""))
}

/// Whether they are the miner's is asked when the chain is there.
fn addresses(path: &Path, key: &str, value: &Value) -> Result<Vec<String>, ConfigError> {
    let is_address = |text: &&str| text.len() > 2 && text.starts_with(['f', 't']);
    let address = |value: &Value| value.as_str().filter(is_address).map(str::to_owned);
    let all = value.as_array().filter(|all| all.len() <= PAYERS_MAX);
    let all = all.and_then(|all| all.iter().map(address).collect());
    all.ok_or_else(|| wrong(path, key, value, "at most 16 addresses such as [\"f01234\"]"))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<ChainSettings, ConfigError> {
        Config::parse(Path::new("config.toml"), text).map(|config| config.chain)
    }

    #[test]
    fn what_is_sent_is_as_the_file_says() {
        let text = "[chain]\nsend_messages = true\npre_commit_batch = 3\nprove_commit_wait = \"5m\"\n\
            base_fee_max = \"0.000000001\"\nsector_lifetime_days = 211\npre_commit_from = [\"f0102\", \"f3abc\"]\n";
        let chain = parse(text).expect("a good file");
        assert!(chain.send_messages && chain.full_node.is_none());
        assert_eq!((chain.pre_commit.max, chain.prove_commit.wait_ms), (3, 300_000));
        assert_eq!(chain.pre_commit.base_fee_max, Some(TokenAmount::from_atto(1_000_000_000)));
        assert_eq!(chain.lifetime, 211 * 2880);
        assert_eq!(chain.pre_commit_payment.from, ["f0102", "f3abc"]);
        assert!(chain.prove_commit_payment.from.is_empty(), "the worker pays");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, words) in [
            ("[chain]\nsend_messages = \"yes\"", "true or false"),
            ("[chain]\nsend_mesages = true", "did you mean send_messages?"),
            ("[chain]\npre_commit_batch = 257", "what the miner actor takes"),
            ("[chain]\npre_commit_fee = 0.02", "FIL as a text"),
            ("[chain]\nsector_lifetime_days = 210", "211 to 1278"),
            ("[chain]\nprove_commit_from = \"f0102\"", "addresses such as"),
            ("[chain]\nprove_commit_from = [\"0102\"]", "addresses such as"),
            ("[chian]", "did you mean chain?"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
