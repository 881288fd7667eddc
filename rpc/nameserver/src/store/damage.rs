//! Every byte of a small nameserver's folder flipped, and every file cut at every length: the state comes back as it
//! was, or the folder is refused with a message; never a shorter one.

use super::tests::{mkdir, reign_in};
use super::*;
use crate::error::Kind;
use crate::journal::PAGE_BYTES;

/// Small files: each of their bytes is tried.
const FILE_BYTES: u64 = 2 * PAGE_BYTES;

/// A folder in memory where the system has one: what is tried here is opened thousands of times, with a flush each.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// What opening the folder comes to: whether the state is `whole`.
fn opened(dirs: &[PathBuf], whole: &[u8], what: &str) -> bool {
    match Store::open(dirs) {
        Ok(opened) => {
            assert!(opened.state.bytes() == whole, "{what}: another state");
            true
        }
        Err(error) => {
            assert!(
                matches!(error.kind(), Kind::Damaged | Kind::Usage),
                "{what}: {error}"
            );
            assert!(
                error.to_string().contains(&dirs[0].display().to_string()),
                "{what}: {error}"
            );
            false
        }
    }
}

/// All files of a folder that hold its data.
fn data(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = replay::all(dir)
        .unwrap()
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    let dirs = [dir.to_owned()];
    files.extend(snapshot::list(&dirs).unwrap().into_iter().map(|(_, path)| path));
    files.push(dir.join(IDENTITY));
    files.sort();
    files
}

/// Flips and cuts `path` everywhere; how often the state came back whole, and how often it was refused.
fn try_all(dirs: &[PathBuf], path: &Path, whole: &[u8]) -> [(u32, u32); 2] {
    let bytes = fs::read(path).unwrap();
    let mut counts = [(0, 0); 2];
    let mut count = |kind: usize, whole: bool| match whole {
        true => counts[kind].0 += 1,
        false => counts[kind].1 += 1,
    };
    let shown = path.display();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(path, &flipped).unwrap();
        count(0, opened(dirs, whole, &format!("byte {at} of {shown} flipped")));
        fs::write(path, &bytes[..at]).unwrap();
        count(1, opened(dirs, whole, &format!("{shown} cut at {at}")));
    }
    fs::write(path, &bytes).unwrap();
    counts
}

#[test]
fn a_journal_without_a_snapshot() {
    let folder = memory();
    let dirs = [folder.path().to_owned()];
    reign_in(&dirs, &[mkdir(1), mkdir(2)], false, FILE_BYTES);
    let (state, _) = reign_in(&dirs, &[mkdir(3)], false, FILE_BYTES);
    let whole = state.bytes();
    let files = data(&dirs[0]);
    assert_eq!(files.len(), 3, "two files of the journal, an identity");
    for path in &files[..2] {
        let [flipped, cut] = try_all(&dirs, path, &whole);
        assert_eq!(
            flipped.1, 0,
            "no flip costs anything: each frame and header stands there twice"
        );
        // Of a file that is followed by another one it is known where it ends.
        let last = *path == files[1];
        assert_eq!(cut.0 > 0, !last, "{cut:?}");
        assert!(cut.1 as u64 >= PAGE_BYTES, "{cut:?}");
    }
    try_all(&dirs, &files[2], &whole);
    assert!(opened(&dirs, &whole, "at last"));
}

#[test]
fn two_snapshots_and_the_journal_behind_them() {
    let folder = memory();
    let dirs = [folder.path().to_owned()];
    let cluster = Store::open(&dirs).unwrap().store.cluster;
    for number in [1, 2] {
        let (_, sequence) = reign_in(&dirs, &[mkdir(number)], true, FILE_BYTES);
        Store::compact(&dirs, cluster, sequence - 1, 2).unwrap();
    }
    let (state, _) = reign_in(&dirs, &[mkdir(3)], false, FILE_BYTES);
    let whole = state.bytes();
    assert_eq!(snapshot::list(&dirs).unwrap().len(), 2);
    for (_, path) in snapshot::list(&dirs).unwrap() {
        let [flipped, cut] = try_all(&dirs, &path, &whole);
        assert_eq!((flipped.1, cut.1), (0, 0), "the other one does");
    }
    let last = replay::files(&dirs).unwrap().pop().unwrap();
    let [flipped, _] = try_all(&dirs, &last.paths[0], &whole);
    assert_eq!(flipped.1, 0);
    // Without the other snapshot nothing is guessed.
    let snapshots = snapshot::list(&dirs).unwrap();
    let older = fs::read(&snapshots[1].1).unwrap();
    fs::write(&snapshots[1].1, b"").unwrap();
    let [flipped, cut] = try_all(&dirs, &snapshots[0].1, &whole);
    assert_eq!((flipped.0, cut.0), (0, 0));
    fs::write(&snapshots[1].1, older).unwrap();
    assert!(opened(&dirs, &whole, "at last"));
}

#[test]
fn two_folders_hold_the_same_and_either_makes_good_for_the_other() {
    let folder = memory();
    let dirs = [folder.path().join("one"), folder.path().join("two")];
    let (state, _) = reign_in(&dirs, &[mkdir(1), mkdir(2)], false, FILE_BYTES);
    let whole = state.bytes();
    let journal = |dir: &PathBuf| dir.join(journal::FOLDER).join(replay::file_name(1));
    assert!(fs::read(journal(&dirs[0])).unwrap() == fs::read(journal(&dirs[1])).unwrap());
    let good = fs::read(journal(&dirs[0])).unwrap();
    // Behind the last frame nothing is said.
    let end = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // Whatever happens to one, the other holds it all, and mends it.
    for at in (0..good.len()).step_by(37) {
        let bad: [Vec<u8>; 2] = [good[..at].to_vec(), {
            let mut bad = good.clone();
            let end = (at + 600).min(bad.len());
            bad[at..end].fill(0xa5);
            bad
        }];
        for bad in bad {
            for dir in &dirs {
                fs::write(journal(dir), &bad).unwrap();
                assert!(opened(&dirs, &whole, &format!("{} at {at}", dir.display())));
                let mended = fs::read(journal(dir)).unwrap();
                assert_eq!(mended.len(), good.len(), "brought up, {at}");
                assert!(mended[..end] == good[..end], "brought up, {at}");
                fs::write(journal(dir), &good).unwrap();
            }
        }
    }
    // A whole folder is lost, and comes back.
    for dir in &dirs {
        fs::remove_dir_all(dir).unwrap();
        assert!(opened(&dirs, &whole, "one folder is lost"));
        assert!(fs::read(journal(dir)).unwrap() == good);
        assert!(opened(std::slice::from_ref(dir), &whole, "alone"));
    }
}

#[test]
fn two_damaged_folders_make_one_whole() {
    let folder = memory();
    let dirs = [folder.path().join("one"), folder.path().join("two")];
    let (state, _) = reign_in(&dirs, &[mkdir(1), mkdir(2), mkdir(3)], false, FILE_BYTES);
    let whole = state.bytes();
    let journal = |dir: &PathBuf| dir.join(journal::FOLDER).join(replay::file_name(1));
    let good = fs::read(journal(&dirs[0])).unwrap();
    let end = good.iter().rposition(|byte| *byte != 0).unwrap();
    // The upper half of one and the lower half of the other; where they meet, neither has the frame.
    let middle = journal::HEADER_BYTES + (end - journal::HEADER_BYTES) / 4 * 2;
    for gap in [0, 8] {
        for (dir, range) in dirs
            .iter()
            .zip([journal::HEADER_BYTES..middle + gap, middle..end])
        {
            let mut bad = good.clone();
            bad[range].fill(0x5a);
            fs::write(journal(dir), &bad).unwrap();
        }
        if opened(&dirs, &whole, "halves") {
            assert!(dirs.iter().all(|dir| fs::read(journal(dir)).unwrap() == good));
        }
    }
    fs::write(journal(&dirs[0]), &good).unwrap();
    assert!(opened(&dirs, &whole, "one is whole"));
}

#[test]
fn the_folder_that_knows_more_is_taken_and_two_histories_are_refused() {
    let folder = memory();
    let dirs = [folder.path().join("one"), folder.path().join("two")];
    reign_in(&dirs, &[mkdir(1)], false, FILE_BYTES);
    // The first folder takes no part for a while.
    let (state, _) = reign_in(&dirs[1..], &[mkdir(2)], false, FILE_BYTES);
    let whole = state.bytes();
    assert!(opened(&dirs, &whole, "the second knows more"));
    assert!(opened(&dirs[..1], &whole, "the first was brought up"));
    // Then each is used without the other.
    reign_in(&dirs[..1], &[mkdir(3)], false, FILE_BYTES);
    reign_in(&dirs[1..], &[mkdir(4)], false, FILE_BYTES);
    let error = Store::open(&dirs).unwrap_err();
    assert!(error.to_string().contains("two histories"), "{error}");
    // And folders of two clusters are no mirror.
    let other = folder.path().join("other");
    Store::open(std::slice::from_ref(&other)).unwrap();
    let error = Store::open(&[dirs[0].clone(), other]).unwrap_err();
    assert!(error.to_string().contains("can't mirror each other"), "{error}");
}

#[test]
fn a_folder_that_failed_long_ago_is_brought_up() {
    let folder = memory();
    let dirs = [folder.path().join("one"), folder.path().join("two")];
    let cluster = {
        reign_in(&dirs, &[mkdir(1)], false, FILE_BYTES);
        Store::open(&dirs).unwrap().store.cluster
    };
    // The second goes on until nothing is left of what the first has.
    let mut whole = Vec::new();
    for number in 2..6 {
        let (state, sequence) = reign_in(&dirs[1..], &[mkdir(number)], true, FILE_BYTES);
        Store::compact(&dirs[1..], cluster, sequence - 1, 2).unwrap();
        whole = state.bytes();
    }
    let first_kept = replay::files(&dirs[1..]).unwrap()[0].sequence;
    assert!(first_kept > 2, "{first_kept}");
    assert!(opened(&dirs, &whole, "both"));
    assert!(opened(&dirs[..1], &whole, "the first alone"));
    assert_eq!(replay::files(&dirs[..1]).unwrap()[0].sequence, first_kept);
}
