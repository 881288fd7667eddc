//! Real processes for the tests: a cluster on a loopback address of its own, in a folder of its own.
#![allow(dead_code)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for the slowest machine; nothing waits so long that goes well.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of the longest block.
pub const BLOCK: usize = 4 * 1024 * 1024;

/// A process that dies with its owner.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(mut command: Command, log: PathBuf) -> Self {
        let out = File::options().create(true).append(true).open(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as a power cut is for a process.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the process ends", || self.child.try_wait().unwrap())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Bytes of memory in use now.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// A folder and a loopback address that no other test has, and the processes in them.
pub struct Cluster {
    pub dir: TempDir,
    pub host: String,
    pub nameserver: Option<Process>,
    pub dataservers: Vec<Option<Process>>,
    pub capacity: String,
    /// Memory of each volume's read cache: none, so that what a test does to a disk shows at the next read.
    pub read_cache: String,
    pub nameserver_flags: Vec<String>,
    /// The nameserver may write files of at most so many KiB.
    pub nameserver_file_kib: Option<u32>,
}

impl Cluster {
    /// No process yet.
    pub fn empty() -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("blockyard-test-")
                .tempdir()
                .unwrap(),
            host: own_address(),
            nameserver: None,
            dataservers: Vec::new(),
            capacity: "2GiB".to_owned(),
            read_cache: "0".to_owned(),
            nameserver_flags: Vec::new(),
            nameserver_file_kib: None,
        }
    }

    /// A nameserver and `count` dataservers of one volume each, all joined.
    pub fn start(count: usize) -> Self {
        let mut cluster = Self::empty();
        cluster.start_nameserver();
        for _ in 0..count {
            cluster.dataservers.push(None);
            cluster.start_dataserver(cluster.dataservers.len() - 1);
        }
        cluster.wait_for_servers(count);
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn address(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }

    pub fn start_nameserver(&mut self) {
        let mut command = self.bare();
        let dir = self.path("nameserver-data");
        command.args([
            "nameserver",
            "--listen",
            &self.address(9000),
            "--web",
            &self.address(8080),
            "--dir",
        ]);
        command.arg(dir).args(&self.nameserver_flags);
        if let Some(kib) = self.nameserver_file_kib {
            // A soft limit, in blocks of 512 B: it can be lifted while the process runs.
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -S -f {} && exec \"$@\"", kib * 2), "sh"]);
            limited.arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => limited.env(name, value),
                    None => limited.env_remove(name),
                };
            }
            limited.current_dir(self.dir.path());
            command = limited;
        }
        self.nameserver = Some(Process::spawn(command, self.path("nameserver.log")));
    }

    pub fn volume_dir(&self, index: usize) -> PathBuf {
        self.path(&format!("volume-{index}"))
    }

    pub fn server_address(&self, index: usize) -> String {
        self.address(9001 + 10 * index as u16)
    }

    pub fn start_dataserver(&mut self, index: usize) {
        let mut command = self.bare();
        let listen = self.server_address(index);
        command.args([
            "dataserver",
            "--listen",
            &listen,
            "--nameserver",
            &self.address(9000),
            "--metrics",
            &self.address(9101 + 10 * index as u16),
        ]);
        command
            .args([
                "--capacity",
                &self.capacity,
                "--read-cache",
                &self.read_cache,
                "--volume",
            ])
            .arg(self.volume_dir(index));
        let process = Process::spawn(command, self.path(&format!("dataserver-{index}.log")));
        self.dataservers[index] = Some(process);
    }

    /// Starts `blockyard up` in place of single processes.
    pub fn up(&mut self, flags: &[&str]) {
        let mut command = self.bare();
        command.args(["up", "--host", &self.host, "--capacity", &self.capacity, "--dir"]);
        command.arg(self.path("up")).args(flags);
        self.nameserver = Some(Process::spawn(command, self.path("up.log")));
    }

    pub fn kill_dataserver(&mut self, index: usize) {
        self.dataservers[index].take().expect("it runs").kill();
    }

    pub fn kill_everything(&mut self) {
        for server in &mut self.dataservers {
            *server = None;
        }
        self.nameserver = None;
    }

    /// Waits until so many dataservers are alive and all their volumes serve.
    pub fn wait_for_servers(&self, count: usize) {
        self.wait_for_status("all servers serve", |status| {
            let alive = |server: &&Value| {
                let volumes = server["volumes"].as_array().unwrap();
                server["state"] == "alive"
                    && !volumes.is_empty()
                    && volumes.iter().all(|volume| volume["state"] == "serving")
            };
            status["servers"].as_array().unwrap().iter().filter(alive).count() >= count
        });
    }

    /// Waits until `status --json` is as wished.
    pub fn wait_for_status(&self, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || {
            let output = self.run(&["status", "--json"]);
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            wished(&status).then_some(status)
        })
    }

    /// The binary with this cluster's environment.
    pub fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blockyard"));
        for name in ["BLOCKYARD_CLUSTER_SECRET", "BLOCKYARD_LOG"] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("home/.config"))
            .env("XDG_DATA_HOME", self.path("home/.local/share"))
            .env("BLOCKYARD_NAMESERVER", self.address(9000))
            .current_dir(self.dir.path());
        command
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare();
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; its stdout.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:.200?} failed: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with this exit code; its stderr.
    #[track_caller]
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:.200?}: {}",
            text(&output)
        );
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.trim().is_empty(), "{args:.200?} told nothing");
        assert!(!stderr.contains("panicked"), "{args:.200?}: {stderr}");
        stderr
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Writes a local file of random bytes; its name.
    pub fn random_file(&self, name: &str, length: usize) -> Vec<u8> {
        let bytes = random(length);
        std::fs::write(self.path(name), &bytes).unwrap();
        bytes
    }

    /// Uploads random bytes as `/name`.
    #[track_caller]
    pub fn upload_random(&self, name: &str, length: usize) -> Vec<u8> {
        let bytes = self.random_file(name, length);
        self.ok(&["upload", name, &format!("/{name}")]);
        bytes
    }

    /// Downloads `/name` and compares.
    #[track_caller]
    pub fn expect(&self, remote: &str, bytes: &[u8]) {
        let output = self.run(&["download", remote, "-"]);
        assert!(output.status.success(), "{remote}: {}", text(&output));
        assert!(
            output.stdout == bytes,
            "{remote}: {} bytes differ from {}",
            output.stdout.len(),
            bytes.len()
        );
    }

    /// What a GET of `path` from one of the cluster's ports is answered with.
    pub fn get(&self, port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address(port)).unwrap();
        let host = &self.host;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Names in `folder` here.
    pub fn local_names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_everything();
    }
}

/// What a failed command said.
pub fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    format!(
        "{}; {}",
        output.status,
        said.chars().take(2000).collect::<String>()
    )
}

/// Bytes that no compression and no luck reproduces.
pub fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    bytes
}

/// Asks again and again until there is an answer.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Feeds a child's stdin and closes it with the last piece.
pub fn feed(child: &mut Child, bytes: &[u8]) {
    child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
}

/// All of 127.0.0.0/8 is loopback: an address for each test, so that ports never clash.
fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id()
            .wrapping_mul(61)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, a, b, c] = number.to_be_bytes();
        // The first and the last of a net belong to nobody; the next number is another test's.
        if !(1..=254).contains(&c) {
            continue;
        }
        let host = format!("127.{}.{b}.{c}", a.clamp(1, 254));
        let free = |port| TcpListener::bind((host.as_str(), port)).is_ok();
        if [9000, 8080, 9001, 9011].into_iter().all(free) {
            return host;
        }
    }
}
