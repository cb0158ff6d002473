//! A small linear program, solved by the simplex method: the largest value of one variable under upper bounds. Dense and
//! plain; meant for hundreds of rows.

/// Rounding errors below this count as nothing. The numbers here are days, tasks and threads, neither tiny nor huge.
const EPSILON: f64 = 1e-9;

/// Steps after which the method gives up. Bland's rule always ends; this bounds the time if rounding should ever defeat it.
const STEPS_MAX: usize = 100_000;

/// Rows `coefficients · x ≤ bound` over variables that are never negative; the first variable is to be as large as
/// possible.
#[derive(Clone, Debug, Default)]
pub struct Program {
    variables: usize,
    rows: Vec<(Vec<(usize, f64)>, f64)>,
}

/// The largest value of the first variable, and what each row's bound is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimum {
    /// The value.
    pub value: f64,
    /// By how much the value grows for each unit that a row's bound grows, in the order of the rows.
    pub worth: Vec<f64>,
}

impl Program {
    /// A new variable; the first one is the one that counts.
    pub fn variable(&mut self) -> usize {
        self.variables += 1;
        self.variables - 1
    }

    /// A new row. A negative bound counts as 0, so that doing nothing is always allowed.
    pub fn row(&mut self, coefficients: Vec<(usize, f64)>, bound: f64) {
        self.rows.push((coefficients, bound.max(0.0)));
    }

    /// Solves it; `None`: the first variable has no largest value.
    pub fn solve(&self) -> Option<Optimum> {
        let (rows, columns) = (self.rows.len(), self.variables + self.rows.len());
        // One line per row and, last, the objective; the last column holds the bounds.
        let mut table = vec![vec![0.0; columns + 1]; rows + 1];
        for (at, (coefficients, bound)) in self.rows.iter().enumerate() {
            for (variable, coefficient) in coefficients {
                table[at][*variable] += coefficient;
            }
            table[at][self.variables + at] = 1.0;
            table[at][columns] = *bound;
        }
        table[rows][0] = -1.0;
        let mut basis: Vec<usize> = (self.variables..columns).collect();
        for _ in 0..STEPS_MAX {
            // Bland's rule, the first column and the lowest basis: slower than the steepest, and never goes in circles.
            let Some(column) = (0..columns).find(|column| table[rows][*column] < -EPSILON) else {
                let worth = (0..rows).map(|row| table[rows][self.variables + row].max(0.0)).collect();
                return Some(Optimum { value: table[rows][columns], worth });
            };
            let row = leaving(&table[..rows], &basis, column)?;
            pivot(&mut table, row, column);
            basis[row] = column;
        }
        None
    }
}

/// The row whose bound is met first when the column's variable grows.
fn leaving(rows: &[Vec<f64>], basis: &[usize], column: usize) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| row[column] > EPSILON) {
        let ratio = row[row.len() - 1] / row[column];
        let is_better = best.is_none_or(|(least, other)| {
            ratio < least - EPSILON || (ratio <= least + EPSILON && basis[at] < basis[other])
        });
        if is_better {
            best = Some((ratio, at));
        }
    }
    best.map(|(_, at)| at)
}

fn pivot(table: &mut [Vec<f64>], row: usize, column: usize) {
    let by = table[row][column];
    table[row].iter_mut().for_each(|cell| *cell /= by);
    let pivot = table[row].clone();
    for line in table.iter_mut().enumerate().filter(|(at, _)| *at != row).map(|(_, line)| line) {
        let times = line[column];
        if times != 0.0 {
            line.iter_mut().zip(&pivot).for_each(|(cell, of)| *cell -= times * of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_and_what_each_bound_is_worth() {
        // Largest z with z ≤ x, z ≤ y, x + y ≤ 10, x ≤ 3.
        let mut program = Program::default();
        let (z, x, y) = (program.variable(), program.variable(), program.variable());
        program.row(vec![(z, 1.0), (x, -1.0)], 0.0);
        program.row(vec![(z, 1.0), (y, -1.0)], 0.0);
        program.row(vec![(x, 1.0), (y, 1.0)], 10.0);
        program.row(vec![(x, 1.0)], 3.0);
        let optimum = program.solve().expect("it has an optimum");
        assert!((optimum.value - 3.0).abs() < 1e-9, "{optimum:?}");
        assert_eq!(optimum.worth[3], 1.0, "only the bound of x holds it back");
        assert_eq!(optimum.worth[2], 0.0);
    }

    #[test]
    fn without_a_bound_there_is_no_optimum() {
        let mut program = Program::default();
        let (z, x) = (program.variable(), program.variable());
        program.row(vec![(z, 1.0), (x, -1.0)], 0.0);
        assert_eq!(program.solve(), None);
    }

    #[test]
    fn nothing_allowed_is_nothing_done() {
        let mut program = Program::default();
        let z = program.variable();
        program.row(vec![(z, 2.0)], -5.0);
        assert_eq!(program.solve().map(|optimum| optimum.value), Some(0.0));
    }
}
