//! A process that drives a volume is killed at random moments: what it acknowledged is there. The long run is the
//! example `kill_loop`.

mod crash;

/// The child's part; nothing to do when nobody asked for it.
#[test]
fn the_child() {
    crash::child();
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let tally = crash::kill::run(folder.path(), 15, 7, |_| ()).unwrap();
    assert!(tally.findings.is_empty(), "{:#?}", tally.findings);
    assert!(
        tally.acknowledged.0 > 15 && tally.verified > 15,
        "nothing was tested: {tally:?}"
    );
}
