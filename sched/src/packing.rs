//! Which path each file of a plan goes to, where the best path for each in turn leaves no room for the rest.
//!
//! A small file goes to the emptiest path and a large one then finds no room, though both would fit the other way
//! round. So when turn by turn fails, every way to lay the files is looked at. What fits does so then with any more
//! room as well: a class that found no room need be looked at again only when some path has more of it.

use crate::space::PathIdx;

/// One file that looks for a path.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) bytes: u64,
    /// The paths that would take it if it were the only one, best first, and the room in each.
    pub(crate) paths: Vec<(PathIdx, u128)>,
}

/// A path for each file, in the order of `asked`; `None`: there is no way.
///
/// A file that as many paths would take as there are files is left for last: the others leave at least one of them as it
/// is. So at most `n - 1` paths are tried for each of `n` files, of which there are no more than file types.
pub(crate) fn pack(asked: &[Asked]) -> Option<Vec<PathIdx>> {
    let mut open: Vec<usize> = (0..asked.len()).collect();
    let mut easy = Vec::new();
    while let Some(at) = open.iter().position(|file| asked[*file].paths.len() >= open.len()) {
        easy.push(open.remove(at));
    }
    // The largest first: it has the fewest ways.
    open.sort_by_key(|file| std::cmp::Reverse(asked[*file].bytes));
    let mut order = open;
    // Each of these counts on those before it in this list not being laid yet.
    order.extend(easy.into_iter().rev());
    let mut chosen = vec![None; asked.len()];
    lay(asked, &order, &mut chosen).then(|| chosen.into_iter().flatten().collect())
}

fn lay(asked: &[Asked], order: &[usize], chosen: &mut [Option<PathIdx>]) -> bool {
    let Some((file, rest)) = order.split_first() else { return true };
    for (path, room) in &asked[*file].paths {
        let laid = chosen.iter().zip(asked).filter(|(at, _)| **at == Some(*path));
        let given: u128 = laid.map(|(_, other)| u128::from(other.bytes)).sum();
        if given + u128::from(asked[*file].bytes) <= *room {
            chosen[*file] = Some(*path);
            if lay(asked, rest, chosen) {
                return true;
            }
            chosen[*file] = None;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether some way exists, by trying all of them.
    fn any_way(files: &[u64], room: &[u128]) -> bool {
        let Some((file, rest)) = files.split_first() else { return true };
        (0..room.len()).any(|at| {
            let mut left = room.to_vec();
            let fits = left[at] >= u128::from(*file);
            left[at] = left[at].saturating_sub(u128::from(*file));
            fits && any_way(rest, &left)
        })
    }

    proptest! {
        #[test]
        fn a_way_is_found_exactly_when_there_is_one(
            files in prop::collection::vec(1u64..12, 1..6),
            room in prop::collection::vec(0u128..20, 0..7),
        ) {
            let path = |at: usize| PathIdx::at(at as u32);
            let asked: Vec<Asked> = files
                .iter()
                .map(|bytes| {
                    let paths = room.iter().enumerate().filter(|(_, room)| **room >= u128::from(*bytes));
                    Asked { bytes: *bytes, paths: paths.map(|(at, room)| (path(at), *room)).collect() }
                })
                .collect();
            let packed = pack(&asked);
            prop_assert_eq!(packed.is_some(), any_way(&files, &room));
            for (at, room) in room.iter().enumerate() {
                let here = packed.iter().flatten().zip(&files).filter(|(to, _)| **to == path(at));
                prop_assert!(here.map(|(_, bytes)| u128::from(*bytes)).sum::<u128>() <= *room);
            }
        }
    }
}
