//! The task that owns the journal against disks that are full or break: read-only, with a reason, and back.

use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::Keys;
use blockyard_wire::types::{Epoch, Incarnation, RequestId};
use futures_util::FutureExt as _;
use rustix::io::Errno;
use tokio::sync::watch;

use super::*;
use crate::config::Config;
use crate::journal::{FOLDER, Place};
use crate::log::tests::Plain;
use crate::state::{Command, State};

fn mkdir(number: u64) -> Command {
    Command::Mkdir {
        path: format!("/d{number}"),
        parents: false,
        at_unix_ms: number,
        request: RequestId::default(),
    }
}

/// A core and its writer on a log that fails on demand; `body` runs beside it, in a folder.
fn beside<F: Future<Output = ()>>(
    dirs: usize,
    body: impl FnOnce(Rc<Core>, Plain, Vec<std::path::PathBuf>) -> F,
) {
    let folder = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (0..dirs).map(|at| folder.path().join(at.to_string())).collect();
    for dir in &dirs {
        std::fs::create_dir_all(dir.join(FOLDER)).unwrap();
    }
    let config = Config {
        dir: dirs[0].clone(),
        mirror: dirs.get(1).cloned(),
        ..Config::default()
    };
    let cluster = ClusterId([7; 16]);
    let mut state = State::default();
    let epoch = Epoch {
        number: 1,
        incarnation: Incarnation([1; 16]),
    };
    state.apply(&Command::Reign { epoch, at_unix_ms: 1 }).unwrap();
    let first = Place {
        index: 2,
        previous_crc: 0,
    };
    let log = Plain::default();
    let journal = Journal::new(log.clone(), &dirs, cluster, config.journal_file_bytes, 0, first);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (stop, mut stopped) = watch::channel(false);
        let stopping = async move {
            // Its end stops as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let keys = Keys::derive(&ClusterSecret::generate(), cluster);
        let core = Core::new(
            config,
            cluster,
            keys,
            ("here:1".to_owned(), Box::new(blockyard_wire::ticket::now_unix_ms)),
            state,
            watch::channel(false).0,
            stopping.boxed_local().shared(),
        );
        let writing = tokio::task::spawn_local(run(core.clone(), journal, 0));
        body(core, log, dirs).await;
        stop.send_replace(true);
        writing.await.unwrap();
    });
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for round in 0u64.. {
        if holds() {
            return;
        }
        if round > 0 && round.is_multiple_of(500) {
            eprintln!("still waiting: {what}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn without_room_it_is_read_only_until_there_is_some() {
    beside(1, async |core, log, dirs| {
        core.propose(mkdir(1)).await.unwrap();
        log.break_below(&dirs[0], Errno::NOSPC);
        for number in 2..4 {
            let refused = core.propose(mkdir(number)).await.unwrap_err();
            assert_eq!(refused.kind, ProblemKind::NoSpace, "{refused}");
            assert!(refused.message.contains("read-only") && refused.message.contains("no room"));
            assert_eq!(*core.read_only.borrow(), refused.message);
        }
        let refused = core.close_file().await.unwrap_err();
        assert_eq!(refused.kind, ProblemKind::NoSpace);
        // What is there is read, and what was refused is not there.
        assert_eq!(core.state.borrow().names().directories(), 1);
        log.mend();
        until("it heals by itself", || core.read_only.borrow().is_empty()).await;
        core.propose(mkdir(4)).await.unwrap();
        assert_eq!(core.state.borrow().names().directories(), 2);
    });
}

#[test]
fn a_broken_disk_is_read_only_for_good() {
    beside(1, async |core, log, dirs| {
        core.propose(mkdir(1)).await.unwrap();
        log.break_below(&dirs[0], Errno::IO);
        let refused = core.propose(mkdir(2)).await.unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Failed, "{refused}");
        assert!(refused.message.contains("read-only"), "{refused}");
        log.mend();
        // A second try would lie.
        assert_eq!(core.propose(mkdir(2)).await.unwrap_err(), refused);
        assert_eq!(*core.read_only.borrow(), refused.message);
        assert_eq!(core.state.borrow().names().directories(), 1);
    });
}

#[test]
fn one_broken_folder_of_two_is_told_and_the_other_goes_on() {
    beside(2, async |core, log, dirs| {
        core.propose(mkdir(1)).await.unwrap();
        assert_eq!(*core.live_dirs.borrow(), dirs);
        log.break_below(&dirs[0], Errno::IO);
        core.propose(mkdir(2)).await.unwrap();
        let trouble = core.journal_trouble.borrow().clone();
        assert!(trouble.contains(&dirs[0].display().to_string()), "{trouble}");
        assert!(core.read_only.borrow().is_empty());
        assert_eq!(*core.live_dirs.borrow(), dirs[1..]);
        log.break_below(&dirs[1], Errno::IO);
        let refused = core.propose(mkdir(4)).await.unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Failed);
        assert!(!core.read_only.borrow().is_empty());
    });
}

#[test]
fn who_is_outranked_changes_nothing() {
    beside(1, async |core, _, _| {
        core.propose(mkdir(1)).await.unwrap();
        core.stand_down(Problem::new(ProblemKind::Stale, "a newer one has been here"));
        assert_eq!(core.propose(mkdir(2)).await.unwrap_err().kind, ProblemKind::Stale);
        assert_eq!(*core.read_only.borrow(), "a newer one has been here");
    });
}
