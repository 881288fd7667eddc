//! The tree of names: listing, moving, removing, and coming back from rows.

use super::*;

fn tree(paths: &[&str]) -> Namespace {
    let mut names = Namespace::default();
    for path in paths {
        let parts = path::parts(path).unwrap();
        let (name, parents) = parts.split_last().unwrap();
        let parent = names.make_directories(parents, 1).unwrap();
        names.add_file(parent, name, 7, 2);
    }
    names
}

fn paths(names: &Namespace, base: &[&str], after: &[&str], descend: bool) -> Vec<String> {
    let Found::Directory(base) = names.find(base).unwrap() else {
        panic!("a directory")
    };
    names
        .below(base, after, descend)
        .map(|id| names.path_of(id))
        .collect()
}

#[test]
fn lists_in_order_and_goes_on_where_it_stopped() {
    let names = tree(&["a/x", "a/y/1", "a/y/2", "a.b", "c"]);
    let all = ["/a", "/a/x", "/a/y", "/a/y/1", "/a/y/2", "/a.b", "/c"];
    assert_eq!(paths(&names, &[], &[], true), all);
    for (at, path) in all.iter().enumerate() {
        let after = path::parts(path).unwrap();
        assert_eq!(paths(&names, &[], &after, true), all[at + 1..], "after {path}");
    }
    assert_eq!(
        paths(&names, &[], &["a", "xx"], true),
        all[2..],
        "after a name that has gone"
    );
    assert_eq!(paths(&names, &[], &["a", "x", "deeper"], true), all[2..]);
    assert_eq!(paths(&names, &[], &["a"], false), ["/a.b", "/c"]);
    assert_eq!(paths(&names, &["a", "y"], &["1"], false), ["/a/y/2"]);
}

#[test]
fn rename_moves_a_tree_and_remove_takes_it_out() {
    let mut names = tree(&["a/b/c", "a/b/d", "e"]);
    let Found::Directory(b) = names.find(&["a", "b"]).unwrap() else {
        panic!("a directory")
    };
    names.rename(b, ROOT, "z", 9);
    assert_eq!(paths(&names, &[], &[], true), ["/a", "/e", "/z", "/z/c", "/z/d"]);
    assert!(names.is_within(b, ROOT) && names.is_within(b, b) && !names.is_within(ROOT, b));
    assert_eq!(names.remove(b, 10), [7, 7]);
    assert_eq!((names.files(), names.directories()), (1, 1));
    assert_eq!(names.find(&["z"]).unwrap_err().kind, ProblemKind::NotFound);
    assert_eq!(
        names.find(&["e", "below"]).unwrap_err().kind,
        ProblemKind::Invalid
    );
}

#[test]
fn rows_give_the_same_tree_and_no_other() {
    let names = tree(&["a/b/c", "a/b/d", "e"]);
    let restored = |next: u64, but: Option<u64>| {
        let mut again = Namespace::restoring(next);
        for (id, row) in names.rows().filter(|(id, _)| Some(*id) != but) {
            again.restore(id, row)?;
        }
        let nowhere = again.restored()?;
        Ok::<_, Problem>((again, nowhere))
    };
    let (again, nowhere) = restored(names.next(), None).unwrap();
    assert!(nowhere.is_empty());
    assert_eq!(paths(&again, &[], &[], true), paths(&names, &[], &[], true));
    assert_eq!(
        (again.files(), again.directories()),
        (names.files(), names.directories())
    );
    assert!(
        restored(names.next() - 1, None).is_err(),
        "an id that is still to come"
    );
    assert!(restored(names.next(), Some(2)).is_err(), "a parent is missing");
    assert!(restored(names.next(), Some(ROOT)).is_err(), "no root");
    let mut twice = Namespace::restoring(names.next());
    let (id, row) = names.rows().next().unwrap();
    twice.restore(id, row).unwrap();
    let (_, row) = names.rows().next().unwrap();
    assert!(twice.restore(id, row).is_err(), "one inode twice");
}
