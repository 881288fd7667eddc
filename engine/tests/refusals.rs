//! A machine that refuses something: locked memory, io_uring, O_DIRECT, a volume that is in use. A child meets it.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};

use blockyard_engine::{Error, Kind, Options, PoolOptions, Volume};
use common::{CLUSTER, MIB, Yard, assert_block, put};
use rustix::process::{Resource, Rlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

const TASK: &str = "BLOCKYARD_REFUSALS_TASK";
const FOLDER: &str = "BLOCKYARD_REFUSALS_FOLDER";

/// The child's part: [`Child::run`] starts this test again with a task. Nothing to do without one.
#[test]
fn the_child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let mut options = Options::new(std::env::var(FOLDER).expect("a folder"));
    options.capacity_bytes = 64 * MIB;
    options.journal_bytes = MIB;
    options.pool = PoolOptions::small();
    let open = || Volume::open(options.clone(), Some(CLUSTER));
    match task.as_str() {
        "little memlock" => {
            let limit = Some(64 * 1024);
            rustix::process::setrlimit(
                Resource::Memlock,
                Rlimit {
                    current: limit,
                    maximum: limit,
                },
            )
            .unwrap();
            let (volume, report) = open().unwrap();
            assert!(!report.registered_buffers, "{report:?}");
            let note = report.notes.iter().find(|note| note.contains("ulimit -l"));
            assert!(note.is_some_and(|note| note.contains("KiB")), "{report:?}");
            for (block, length) in [(1, 10), (2, 100_000), (3, 4 << 20)] {
                put(&volume, block, length).unwrap();
                assert_block(&volume, block, length);
            }
        }
        "no io_uring" | "hidden io_uring" => {
            let errno = if task == "no io_uring" {
                libc::EPERM
            } else {
                libc::ENOSYS
            };
            refuse(libc::SYS_io_uring_setup, vec![], errno);
            let error = open().map(drop).unwrap_err();
            let advice = if task == "no io_uring" {
                "kernel.io_uring_disabled=0"
            } else {
                "seccomp"
            };
            assert!(
                matches!(error, Error::Setup { .. }) && error.kind() == Kind::Fatal,
                "{error}"
            );
            assert!(error.to_string().contains(advice), "{error}");
        }
        "no O_DIRECT" => {
            let direct = libc::O_DIRECT as u64;
            let is_set =
                SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(direct), direct);
            let rule = SeccompRule::new(vec![is_set.unwrap()]).unwrap();
            refuse(libc::SYS_openat, vec![rule], libc::EINVAL);
            let (volume, report) = open().unwrap();
            assert!(!report.direct_io, "{report:?}");
            assert!(
                report.notes.iter().any(|note| note.contains("O_DIRECT")),
                "{report:?}"
            );
            for (block, length) in [(1, 10), (2, 100_000), (3, 4 << 20)] {
                put(&volume, block, length).unwrap();
                assert_block(&volume, block, length);
            }
        }
        "another process" => {
            let error = open().map(drop).unwrap_err();
            assert!(matches!(error, Error::Locked { .. }), "{error}");
        }
        _ => panic!("what is {task}?"),
    }
}

/// Makes a system call fail in this thread from here on, whenever a rule matches or where there is none.
fn refuse(call: i64, rules: Vec<SeccompRule>, errno: i32) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH
            .try_into()
            .expect("an architecture that seccomp knows"),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// Runs [`the_child`] behind `launcher` (a program and its arguments, or nothing); what it printed.
fn run(launcher: &[&str], task: &str, yard: &Yard) -> io::Result<Result<(), String>> {
    let test = std::env::current_exe()?;
    let mut command = match launcher {
        [] => Command::new(test),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(test);
            command
        }
    };
    let output = command
        .args(["the_child", "--exact", "--nocapture"])
        .env(TASK, task)
        .env(FOLDER, yard.dir.path())
        .stdin(Stdio::null())
        .output()?;
    Ok(if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

fn succeeds(launcher: &[&str], task: &str) {
    let yard = Yard::new(64 * MIB);
    run(launcher, task, &yard).unwrap().unwrap();
    // Whatever the child met, the volume is whole.
    let (volume, report) = yard.open();
    assert!(
        report.registered_buffers || !rustix::process::geteuid().is_root(),
        "{report:?}"
    );
    for info in volume.list(None, 10) {
        assert_block(&volume, info.block.0, info.length as usize);
    }
}

#[test]
fn without_locked_memory_it_goes_on_unregistered_and_says_which_limit_to_raise() {
    let without_capability = [
        "setpriv",
        "--bounding-set",
        "-ipc_lock",
        "--inh-caps",
        "-ipc_lock",
    ];
    if !rustix::process::geteuid().is_root() {
        succeeds(&[], "little memlock");
    } else if Command::new("setpriv").arg("--version").output().is_ok() {
        // Root locks what it likes, unless that right is taken.
        succeeds(&without_capability, "little memlock");
    } else {
        assert!(
            std::env::var_os("BLOCKYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "setpriv is missing, and BLOCKYARD_REQUIRE_ALL=1"
        );
        eprintln!("skipped: needs setpriv");
    }
}

#[test]
fn without_io_uring_it_says_what_to_set() {
    succeeds(&[], "no io_uring");
    succeeds(&[], "hidden io_uring");
}

#[test]
fn without_o_direct_it_goes_on_and_says_what_that_costs() {
    succeeds(&[], "no O_DIRECT");
}

#[test]
fn another_process_is_kept_out_and_lets_go_when_it_ends() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    put(&volume, 1, 10).unwrap();
    run(&[], "another process", &yard).unwrap().unwrap();
    put(&volume, 2, 10).unwrap();
    drop(volume);
    // Now it is not kept out, and so fails where it was asked to be.
    let told = run(&[], "another process", &yard).unwrap().unwrap_err();
    assert!(told.contains("called `Result::unwrap_err()`"), "{told}");
    assert_eq!(yard.open().0.stat().replicas, 2);
}

#[test]
fn a_folder_that_can_t_be_looked_into_is_not_called_empty() {
    let dir = tempfile::tempdir().unwrap();
    let circle = dir.path().join("circle");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    let error = Volume::open(Options::new(&circle), None).map(drop).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
