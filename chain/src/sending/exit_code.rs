//! What the chain's exit codes mean, for the operator whose sector is parked because of one.

use std::fmt;

/// How a message ended on chain; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ExitCode(pub u32);

impl ExitCode {
    /// It did what it said.
    pub const OK: Self = Self(0);

    /// Whether the same message may be sent again: it ran out of gas or its sender out of funds.
    pub const fn may_be_repeated(self) -> bool {
        matches!(self.0, 2 | 6 | 7 | 19)
    }

    /// The chain's name for it, and what to make of it.
    const fn words(self) -> (&'static str, &'static str) {
        match self.0 {
            0 => ("Ok", "it did what it said"),
            1 => ("SysErrSenderInvalid", "the sender is no account; check the worker and control addresses"),
            2 => (
                "SysErrSenderStateInvalid",
                "the sender's nonce was wrong or its balance too small for the gas; fill it up",
            ),
            4 => (
                "SysErrIllegalInstruction",
                "the miner actor crashed; the parameters are damaged, or the actor has a fault",
            ),
            5 => ("SysErrInvalidReceiver", "there is no such miner actor on this network"),
            6 => ("SysErrInsufficientFunds", "the sender's balance was smaller than the value; fill it up"),
            7 => ("SysErrOutOfGas", "the gas limit was too low; send fewer sectors in one message"),
            9 => (
                "SysErrIllegalExitCode",
                "the miner actor broke a rule of the machine; the actor has a fault",
            ),
            10 => ("SysErrFatal", "the node's machine failed; report it to the node's makers"),
            11 => ("SysErrMissingReturn", "the miner actor answered nothing; the actor has a fault"),
            16 => (
                "ErrIllegalArgument",
                "the actor refuses the parameters: a wrong proof, an expired ticket, a wrong expiration or proof type",
            ),
            17 => (
                "ErrNotFound",
                "the actor does not know the sector: its pre-commitment has expired or never landed",
            ),
            18 => (
                "ErrForbidden",
                "the sender is neither worker, owner nor control address, or the miner owes a fee debt",
            ),
            19 => (
                "ErrInsufficientFunds",
                "the miner cannot cover deposit or pledge; add to its balance or send a larger value",
            ),
            20 => (
                "ErrIllegalState",
                "the actor's state does not allow it; the miner may owe a debt or wait for an upgrade",
            ),
            21 => (
                "ErrSerialization",
                "the actor cannot read the parameters; this program and the network's version do not fit",
            ),
            22 => (
                "ErrUnhandledMessage",
                "the miner actor has no such method; the network's version is too old or too new",
            ),
            23 => ("ErrUnspecified", "the actor does not say why"),
            24 => ("ErrAssertionFailed", "the actor contradicts itself; it has a fault"),
            25 => ("ErrReadOnly", "the message was run where nothing may be changed"),
            26 => ("ErrNotPayable", "the method takes no value, and one was sent"),
            3 | 8 | 12..=15 | 27..=31 => ("reserved", "a code that is not in use"),
            _ => ("an actor's own code", "see the miner actor of this network's version"),
        }
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, meaning) = self.words();
        write!(f, "exit code {} ({name}): {meaning}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_they_mean() {
        assert_eq!(
            ExitCode(7).to_string(),
            "exit code 7 (SysErrOutOfGas): the gas limit was too low; send fewer sectors in one message"
        );
        assert!(ExitCode(16).to_string().contains("a wrong proof"));
        assert!(ExitCode(1000).to_string().contains("an actor's own code"));
        let repeated: Vec<u32> = (0..40).filter(|code| ExitCode(*code).may_be_repeated()).collect();
        assert_eq!(repeated, [2, 6, 7, 19]);
    }
}
