//! Plans: which sectors a sealing thread seals. A sealing thread is a storage path of a worker that may be sealed in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which sectors a worker, or one of its sealing threads, takes. What has begun there is finished under any plan. Source of
/// `sealer` and `rebuild`: damocles, whose other plans are not built here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealingPlan {
    /// All.
    #[default]
    Any,
    /// Those that are sealed for the first time.
    Sealer,
    /// Those that are sealed again because their files are lost.
    Rebuild,
    /// None.
    None,
}

/// For what a sector is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealingPurpose {
    /// It is a new one.
    New,
    /// Its files are lost.
    Rebuild,
}

impl SealingPlan {
    /// All plans.
    pub const ALL: [Self; 4] = [Self::Any, Self::Sealer, Self::Rebuild, Self::None];

    /// Its name in flags, configurations and listings.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Sealer => "sealer",
            Self::Rebuild => "rebuild",
            Self::None => "none",
        }
    }

    /// Whether it takes sectors that are sealed for this.
    pub const fn takes(self, purpose: SealingPurpose) -> bool {
        match (self, purpose) {
            (Self::Any, _)
            | (Self::Sealer, SealingPurpose::New)
            | (Self::Rebuild, SealingPurpose::Rebuild) => true,
            (Self::Sealer, SealingPurpose::Rebuild)
            | (Self::Rebuild, SealingPurpose::New)
            | (Self::None, _) => false,
        }
    }
}

impl SealingPurpose {
    /// The plan that takes such sectors and no others.
    pub const fn plan(self) -> SealingPlan {
        match self {
            Self::New => SealingPlan::Sealer,
            Self::Rebuild => SealingPlan::Rebuild,
        }
    }
}

impl fmt::Display for SealingPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for SealingPlan {
    type Err = SealingPlanError;

    fn from_str(text: &str) -> Result<Self, SealingPlanError> {
        let known = Self::ALL.into_iter().find(|plan| plan.word() == text);
        known.ok_or_else(|| SealingPlanError { text: text.to_owned() })
    }
}

/// No plan is called that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no plan: give any, sealer, rebuild or none")]
pub struct SealingPlanError {
    /// What was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_have_one_word_each_and_take_what_they_say() {
        for plan in SealingPlan::ALL {
            assert_eq!(plan.word().parse(), Ok(plan));
            assert_eq!(serde_json::to_string(&plan).unwrap(), format!("\"{plan}\""));
        }
        let told = "snapup".parse::<SealingPlan>().unwrap_err().to_string();
        assert_eq!(told, "\"snapup\" is no plan: give any, sealer, rebuild or none");
        let takes = |plan: SealingPlan| {
            [SealingPurpose::New, SealingPurpose::Rebuild].map(|purpose| plan.takes(purpose))
        };
        let expected = [[true, true], [true, false], [false, true], [false, false]];
        assert_eq!(SealingPlan::ALL.map(takes), expected);
    }
}
