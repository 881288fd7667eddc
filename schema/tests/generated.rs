//! The committed Rust is what `capnp` makes of the schemas today.

use std::path::{Path, PathBuf};
use std::process::Command;

const SCHEMAS: [&str; 4] = ["types", "frame", "dataserver", "nameserver"];

#[test]
fn generated_code_is_current() {
    if Command::new("capnp").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("BLOCKYARD_REQUIRE_ALL").is_none(),
            "needs capnp (Debian's package capnproto)"
        );
        println!("skipped: needs capnp");
        return;
    }
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    let mut compiler = capnpc::CompilerCommand::new();
    compiler.src_prefix(room).output_path(fresh.path());
    for schema in SCHEMAS {
        compiler.file(room.join(format!("{schema}.capnp")));
    }
    compiler.run().unwrap();
    for schema in SCHEMAS {
        let name: PathBuf = format!("{schema}_capnp.rs").into();
        let made = normal(&std::fs::read_to_string(fresh.path().join(&name)).unwrap());
        let committed = room.join("src/generated").join(&name);
        if std::env::var_os("BLOCKYARD_REGENERATE").is_some() {
            std::fs::write(&committed, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(&committed).unwrap_or_default() == made,
            "{} differs from what {schema}.capnp makes: run BLOCKYARD_REGENERATE=1 cargo test -p blockyard-schema",
            committed.display()
        );
    }
}

/// Without the line that names the version of the `capnp` binary, which does not change the code.
fn normal(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with("// capnp binary version"))
        .map(|line| format!("{line}\n"))
        .collect()
}
