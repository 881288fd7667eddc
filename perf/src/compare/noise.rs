//! What is noise: how far a median of a few rounds may lie from where it would lie with many, told by its extremes.

use crate::report::Row;

/// The range of so many normally distributed rounds, in standard deviations, from two rounds on.
const RANGE_IN_SIGMAS: [f64; 19] = [
    1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078, 3.173, 3.258, 3.336, 3.407, 3.472, 3.532,
    3.588, 3.640, 3.689, 3.735,
];
/// What the median's standard error is above the mean's.
const MEDIAN_OVER_MEAN: f64 = 1.253;
/// Standard errors that a change must exceed. Three, not two: the spread itself is known from a few rounds, and a
/// run has many rows, of which some would differ by chance.
const ERRORS: f64 = 3.0;
/// No change smaller than this part counts, however steady the rounds were: two runs differ by more than that in
/// where files lie and how a binary was laid out.
const LEAST: f64 = 0.03;

/// How far the row's value may be off, as a part of it; `None` with fewer than three rounds, of which nothing can
/// be told.
fn error(row: &Row) -> Option<f64> {
    let (low, high, rounds) = (row.low?, row.high?, row.rounds.filter(|rounds| *rounds >= 3)?);
    let sigmas = RANGE_IN_SIGMAS[(rounds - 2).min(RANGE_IN_SIGMAS.len() - 1)];
    let value = row.value.abs();
    (value > 0.0).then(|| (high - low) / sigmas * MEDIAN_OVER_MEAN / (rounds as f64).sqrt() / value)
}

/// The part by which two values may differ without meaning anything; `None` where that is not known.
pub(super) fn between(before: &Row, after: &Row) -> Option<f64> {
    Some((ERRORS * error(before)?.hypot(error(after)?)).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(low: f64, value: f64, high: f64, rounds: usize) -> Row {
        Row {
            value,
            low: Some(low),
            high: Some(high),
            rounds: Some(rounds),
            ..Row::default()
        }
    }

    #[test]
    fn wide_rounds_allow_more_and_more_rounds_less() {
        let steady = between(&row(99.0, 100.0, 101.0, 5), &row(99.0, 100.0, 101.0, 5)).unwrap();
        assert_eq!(steady, LEAST);
        let wide = between(&row(80.0, 100.0, 120.0, 5), &row(99.0, 100.0, 101.0, 5)).unwrap();
        assert!(
            (wide - 3.0 * 0.4 / 2.326 * 1.253 / 5_f64.sqrt()).abs() < 0.01,
            "{wide}"
        );
        let many = between(&row(80.0, 100.0, 120.0, 20), &row(99.0, 100.0, 101.0, 20)).unwrap();
        assert!(many < wide / 2.0, "{many}");
    }

    #[test]
    fn without_a_spread_nothing_is_known() {
        let known = row(99.0, 100.0, 101.0, 5);
        assert!(between(&known, &row(100.0, 100.0, 100.0, 1)).is_none());
        assert!(between(&row(99.0, 100.0, 101.0, 2), &known).is_none());
        assert!(
            between(
                &known,
                &Row {
                    value: 100.0,
                    ..Row::default()
                }
            )
            .is_none()
        );
        assert!(between(&row(-1.0, 0.0, 1.0, 5), &known).is_none());
    }
}
