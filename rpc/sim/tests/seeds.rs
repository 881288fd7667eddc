//! A few short runs: no promise is broken, and a seed gives the same run again.

use blockyard_sim::run::run;

#[test]
fn a_seed_replays_exactly() {
    // Whatever else runs at the same time.
    let other = std::thread::spawn(|| run(3, 6_000));
    let runs = [run(3, 6_000), other.join().expect("a run does not panic")];
    let [one, other] = runs.map(|report| {
        assert!(report.violation.is_none(), "{:?}", report.violation);
        (
            report.digest,
            report.messages,
            report.simulated_ms,
            report.tally,
            report.faults,
        )
    });
    assert_eq!(one, other);
    assert!(
        one.3.acknowledged > 50 && one.3.read > 10,
        "clients got something done: {:?}",
        one.3
    );
}

#[test]
fn no_promise_is_broken_in_short_storms() {
    let mut faults = 0;
    for seed in 10..16 {
        let report = run(seed, 8_000);
        assert!(
            report.violation.is_none(),
            "seed {seed}: {:?}",
            report.violation.map(|(what, _)| what)
        );
        faults += report.faults.values().sum::<u64>();
    }
    assert!(faults > 50, "only {faults} faults");
}
