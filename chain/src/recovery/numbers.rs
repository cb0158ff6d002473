//! Sector numbers as an operator gives them: `1`, `7-12`, `1-100,205`.

use std::collections::BTreeSet;

use sealtasks::SectorNumber;

/// So many sectors may be asked for at once. A miner has a few million at most.
pub const SECTORS_MAX: usize = 100_000;

/// The numbers in `words`, each once and in order.
///
/// # Errors
/// A word that is no number and no range, a range that runs backwards, too many, or none at all.
pub fn sector_numbers<T: AsRef<str>>(words: &[T]) -> Result<Vec<SectorNumber>, NumbersError> {
    let mut numbers = BTreeSet::new();
    for word in words.iter().flat_map(|word| word.as_ref().split(',')).filter(|word| !word.is_empty()) {
        let bad = || NumbersError::Word { text: word.chars().take(100).collect() };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if digits { text.parse::<u64>().map_err(|_| bad()) } else { Err(bad()) }
        };
        let (first, last) = match word.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(word)?, number(word)?),
        };
        if first > last {
            return Err(NumbersError::Backwards { first, last });
        }
        if last - first >= SECTORS_MAX as u64 {
            return Err(NumbersError::TooMany);
        }
        numbers.extend((first..=last).map(SectorNumber::new));
        if numbers.len() > SECTORS_MAX {
            return Err(NumbersError::TooMany);
        }
    }
    if numbers.is_empty() { Err(NumbersError::None) } else { Ok(numbers.into_iter().collect()) }
}

/// Words that name no sectors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumbersError {
    /// Neither a number nor a range.
    #[error("{text:?} names no sectors; write numbers and ranges such as 1 2 3 or 1-100,205")]
    Word {
        /// The word, cut to 100 characters.
        text: String,
    },
    /// The end is before the beginning.
    #[error("the range {first}-{last} runs backwards; write {last}-{first}")]
    Backwards {
        /// As given.
        first: u64,
        /// As given.
        last: u64,
    },
    /// More than are taken at once.
    #[error("more than {SECTORS_MAX} sectors are asked for at once; ask for them in several parts")]
    TooMany,
    /// Nothing given.
    #[error("no sector is named; give numbers and ranges such as 1 2 3 or 1-100,205")]
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read() {
        let read = |words: &[&str]| {
            sector_numbers(words)
                .map(|numbers| numbers.into_iter().map(SectorNumber::get).collect::<Vec<_>>())
        };
        assert_eq!(read(&["1", "2", "3"]), Ok(vec![1, 2, 3]));
        assert_eq!(read(&["3-5,1", "4,", "205"]), Ok(vec![1, 3, 4, 5, 205]));
        assert_eq!(read(&["18446744073709551615"]), Ok(vec![u64::MAX]));
        for bad in ["x", "1-", "-1", "1-2-3", "+1", "18446744073709551616", "1 2"] {
            assert_eq!(read(&[bad]), Err(NumbersError::Word { text: bad.to_owned() }));
        }
        assert_eq!(read(&["5-3"]), Err(NumbersError::Backwards { first: 5, last: 3 }));
        assert_eq!(read(&["0-18446744073709551615"]), Err(NumbersError::TooMany));
        assert_eq!(read(&["0-99999", "200000"]), Err(NumbersError::TooMany));
        assert_eq!((read(&[]), read(&[","])), (Err(NumbersError::None), Err(NumbersError::None)));
    }
}
