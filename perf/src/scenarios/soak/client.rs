//! One of the clients of a soak: does one operation after another, and holds every answer against what may be.

use std::rc::Rc;
use std::time::{Duration, Instant};

use blockyard_client::types::{BlockInfo, FileInfo, ReplicaState};
use blockyard_client::{Client, DownloadOptions, ListOptions, Problem, ProblemKind, UploadOptions};
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use super::Soak;
use super::contents::{Sink, Value, number_of};
use super::plan::{Plan, Work, dice, directory};
use super::register::{Moment, Shown};
use super::tally::Offence;

/// A retry succeeds within so long after the failure.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// Between two tries: at first, and at the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The client library gives up long before.
const HUNG_AFTER: Duration = Duration::from_secs(240);

/// A client, and what it draws its operations from.
pub(super) struct Driver {
    soak: Rc<Soak>,
    client: Client,
    number: u64,
    dice: StdRng,
    values: u64,
}

impl Driver {
    pub(super) fn new(soak: Rc<Soak>, client: Client, number: u64) -> Self {
        Self {
            dice: dice(soak.seed, "client", number),
            soak,
            client,
            number,
            values: 0,
        }
    }

    /// Gives its share of the names their first files: those of every `of`th number.
    pub(super) async fn fill(&mut self, of: u64) {
        let soak = self.soak.clone();
        for name in soak.plan.names() {
            if name as u64 % of == self.number && !soak.is_over() {
                let work = soak.plan.first(name, &mut self.dice);
                self.operate(&work).await;
            }
        }
    }

    /// Works until the soak is over.
    pub(super) async fn work(&mut self) {
        while !self.soak.is_over() {
            let work = self.soak.plan.next(&mut self.dice);
            let bytes = work.written_bytes();
            self.soak.pace.spend(bytes, || self.soak.is_over()).await;
            if !self.soak.is_over() {
                self.operate(&work).await;
            }
        }
    }

    /// Reads its share of the names whole.
    pub(super) async fn read_all(&mut self, of: u64) {
        let soak = self.soak.clone();
        for name in soak.plan.names() {
            if name as u64 % of == self.number && !soak.is_broken() {
                self.operate(&Work::Read { name }).await;
            }
        }
    }

    /// Reads every replica of its share of the files by itself.
    pub(super) async fn read_replicas(&mut self, of: u64) {
        let soak = self.soak.clone();
        for name in soak.plan.names() {
            if name as u64 % of == self.number && !soak.is_broken() {
                let path = soak.plan.path(name);
                match self.client.info(&path).await {
                    Ok((_, blocks)) => self.read_each(&path, &blocks).await,
                    Err(problem) if problem.kind == ProblemKind::NotFound => {}
                    Err(problem) => soak.offence(Offence::Replica, &format!("{path}: {problem}")),
                }
            }
        }
    }

    /// One that does not give its block is reported by the client, and found in the nameserver's log then.
    async fn read_each(&self, path: &str, blocks: &[BlockInfo]) {
        for block in blocks {
            for replica in &block.replicas {
                let alone = BlockInfo {
                    replicas: vec![replica.clone()],
                    ..block.clone()
                };
                let (id, server) = (block.block, &replica.hop.server);
                let wrong = match self.client.read_block(&alone).await {
                    Ok(_) if replica.state == ReplicaState::Good && replica.live => continue,
                    Ok(_) => format!("is {:?}, live: {}", replica.state, replica.live),
                    Err(problem) => problem.to_string(),
                };
                let what = format!("{path}: block {id} on {server}: {wrong}");
                self.soak.offence(Offence::Replica, &what);
            }
        }
    }

    /// Asks for its share of the names.
    pub(super) async fn look_at_all(&mut self, of: u64) {
        let soak = self.soak.clone();
        for name in soak.plan.names() {
            if name as u64 % of == self.number && !soak.is_broken() {
                self.operate(&Work::Look { name }).await;
            }
        }
    }

    pub(super) async fn close(self) {
        self.client.close().await;
    }

    /// Does it; where that fails for the moment, again and again.
    async fn operate(&mut self, work: &Work) {
        let soak = self.soak.clone();
        let value = Value {
            number: (self.number + 1) << 32 | self.values,
            length_bytes: work.written_bytes(),
        };
        self.values += 1;
        // Renames want the two names for themselves, so that what they move is known when they begin.
        let locks = &soak.locks;
        let (_shared, _alone) = match work {
            Work::Rename { from, to } => {
                let (first, second) = (*from.min(to), *from.max(to));
                let first = locks[first].write().await;
                (None, Some((first, locks[second].write().await)))
            }
            Work::Create { name, .. } | Work::Overwrite { name, .. } | Work::Delete { name } => {
                (Some(locks[*name].read().await), None)
            }
            _ => (None, None),
        };
        let started = Instant::now();
        let counts = !soak.is_over();
        let first = self.attempt(work, value).await;
        if counts {
            let (failed, pair) = (first.is_err(), soak.has_two_faults());
            soak.tally
                .borrow_mut()
                .operation(work.kind(), started.elapsed(), failed, pair);
        }
        let Err(mut problem) = first else { return };
        soak.failed(&self.describe(work), &problem, started.elapsed());
        let failed = Instant::now();
        let mut pause = PAUSES.0;
        while says_retry(problem.kind) {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            if soak.is_broken() {
                return;
            }
            let outcome = self.attempt(work, value).await;
            let late = failed.elapsed() > RETRY_FOR;
            match outcome {
                Ok(()) if !late => return soak.tally.borrow_mut().retried(failed.elapsed()),
                Ok(()) => problem = Problem::retry("it succeeded too late"),
                Err(again) => problem = again,
            }
            if late {
                let what = format!(
                    "{}: {:.1} s after the first failure: {problem}",
                    self.describe(work),
                    failed.elapsed().as_secs_f64()
                );
                return soak.offence(Offence::LateRetry, &what);
            }
        }
        let what = format!("{}: [{}] {problem}", self.describe(work), problem.kind.name());
        soak.offence(Offence::OtherError, &what);
    }

    fn describe(&self, work: &Work) -> String {
        let path = |name: &usize| self.soak.plan.path(*name);
        let what = match work {
            Work::List { directory: number } => directory(*number),
            Work::Rename { from, to } => format!("{} to {}", path(from), path(to)),
            Work::Range {
                name,
                from_bytes,
                length_bytes,
            } => format!("{} {from_bytes}+{length_bytes}", path(name)),
            Work::Create { name, length_bytes } | Work::Overwrite { name, length_bytes } => {
                format!("{} ({length_bytes} B)", path(name))
            }
            Work::Read { name } | Work::Look { name } | Work::Delete { name } => path(name),
        };
        format!("client {}: {} {what}", self.number, work.kind().name())
    }

    async fn attempt(&self, work: &Work, value: Value) -> Result<(), Problem> {
        match work {
            Work::Create { name, .. } => self.upload(*name, value, false).await,
            Work::Overwrite { name, .. } => self.upload(*name, value, true).await,
            Work::Read { name } => self.read(*name, None).await,
            Work::Range {
                name,
                from_bytes,
                length_bytes,
            } => {
                self.read(*name, Some(*from_bytes..from_bytes + length_bytes))
                    .await
            }
            Work::Look { name } => self.look(*name).await,
            Work::List { directory } => self.list(*directory).await,
            Work::Rename { from, to } => self.rename(*from, *to).await,
            Work::Delete { name } => self.delete(*name).await,
        }
    }

    async fn upload(&self, name: usize, value: Value, overwrite: bool) -> Result<(), Problem> {
        let soak = &*self.soak;
        let began = soak.now();
        let write = soak.registers.borrow_mut()[name].begin(vec![Some(value)], began);
        let options = UploadOptions {
            overwrite,
            content_type: value.content_type(),
            length_hint: Some(value.length_bytes),
            ..UploadOptions::default()
        };
        let source = soak.contents.source(value);
        let path = soak.plan.path(name);
        let uploading = self.client.upload(&path, source, options);
        let outcome = self.patiently("upload", name, uploading).await;
        let now = soak.now();
        let mut registers = soak.registers.borrow_mut();
        let register = &mut registers[name];
        let before = register.may_show(began, now);
        let wrong = match outcome {
            Ok(uploaded) => {
                register.acknowledged(write, now);
                let mut tally = soak.tally.borrow_mut();
                tally.written_bytes += value.length_bytes;
                tally.degraded_blocks += u64::from(uploaded.degraded);
                tally.resent_blocks += u64::from(uploaded.retried_blocks);
                let file = uploaded.file;
                if file.size_bytes != value.length_bytes
                    || number_of(&file.content_type) != Some(value.number)
                {
                    Some(format!("published as {file:?}, not as {value:?}"))
                } else if !overwrite && !before.contains(&None) {
                    Some(format!("created where one of {before:?} was"))
                } else {
                    None
                }
            }
            Err(problem) if problem.kind == ProblemKind::Exists && !overwrite => {
                let others = before.iter().flatten().any(|shown| *shown != value);
                // An earlier try may have made the very file.
                let earlier = register.tries_of(Some(value)) > 1;
                register.refused(write);
                (!others && !earlier).then(|| "said to exist where nothing can be".to_owned())
            }
            Err(problem) => {
                register.unknown(write, now + soak.settle_us);
                return Err(problem);
            }
        };
        drop(registers);
        if let Some(wrong) = wrong {
            self.lost(name, &wrong, began);
        }
        Ok(())
    }

    async fn read(&self, name: usize, range: Option<std::ops::Range<u64>>) -> Result<(), Problem> {
        let soak = &*self.soak;
        let path = soak.plan.path(name);
        let sink = Sink::default();
        let options = DownloadOptions {
            range: range.clone(),
            ..DownloadOptions::default()
        };
        let began = soak.now();
        let downloading = self.client.download(&path, sink.clone(), options);
        let outcome = self.patiently("read", name, downloading).await;
        let file = match outcome {
            Ok(downloaded) => {
                soak.tally.borrow_mut().failovers += u64::from(downloaded.failovers);
                downloaded.file
            }
            Err(problem) if problem.kind == ProblemKind::NotFound => {
                self.saw(name, None, began);
                return Ok(());
            }
            // A range behind the file's end.
            Err(problem) if problem.kind == ProblemKind::Invalid && range.is_some() => {
                let from = range.map_or(0, |range| range.start);
                let shown = soak.registers.borrow()[name].may_show(began, soak.now());
                if !shown.iter().flatten().any(|value| value.length_bytes < from) {
                    self.lost(name, &format!("{problem}, but it is one of {shown:?}"), began);
                }
                return Ok(());
            }
            Err(problem) => return Err(problem),
        };
        let data = sink.take();
        soak.tally.borrow_mut().read_bytes += data.len() as u64;
        let shown = shown(&file);
        self.saw(name, shown, began);
        let (from, until) = match range {
            None => (0, file.size_bytes),
            Some(range) => (range.start, range.end.min(file.size_bytes)),
        };
        let Some(value) = shown else { return Ok(()) };
        if data.len() as u64 != until - from {
            let what = format!(
                "{path} ({value:?}) gave {} bytes from {from} on, not {}",
                data.len(),
                until - from
            );
            soak.offence(Offence::Changed, &what);
        } else if let Some(difference) = soak.contents.difference(value.number, from, &data) {
            let block = self.block_at(&path, file.version, difference.offset_bytes).await;
            let what = format!(
                "{path} ({value:?}, version {}) differs at byte {}, in {block}: expected {:02x?}, found {:02x?}",
                file.version, difference.offset_bytes, difference.expected, difference.found
            );
            soak.offence(Offence::Changed, &what);
        }
        Ok(())
    }

    async fn look(&self, name: usize) -> Result<(), Problem> {
        let began = self.soak.now();
        let path = self.soak.plan.path(name);
        match self.patiently("look", name, self.client.lookup(&path)).await {
            Ok(file) => self.saw(name, shown(&file), began),
            Err(problem) if problem.kind == ProblemKind::NotFound => self.saw(name, None, began),
            Err(problem) => return Err(problem),
        }
        Ok(())
    }

    async fn list(&self, number: usize) -> Result<(), Problem> {
        let soak = &*self.soak;
        let began = soak.now();
        let mut found = std::collections::BTreeMap::new();
        let mut after = String::new();
        loop {
            let options = ListOptions {
                after: after.clone(),
                ..ListOptions::default()
            };
            let asked = soak.now();
            let path = directory(number);
            let listing = self.client.list(&path, options);
            let (entries, more) = self.patiently("list", number, listing).await?;
            for entry in &entries {
                match Plan::name_of(&entry.path).filter(|name| soak.plan.path(*name) == entry.path) {
                    Some(name) => {
                        found.insert(name, (shown(entry), asked));
                    }
                    None => {
                        soak.offence(Offence::Lost, &format!("{} was never made", entry.path));
                    }
                }
            }
            match entries.last() {
                Some(last) if more => after.clone_from(&last.name),
                _ => break,
            }
        }
        for name in soak.plan.in_directory(number) {
            // One that is not listed was missing at some moment of the whole listing.
            let (shown, asked) = found.get(&name).copied().unwrap_or((None, began));
            self.saw(name, shown, asked);
        }
        Ok(())
    }

    async fn rename(&self, from: usize, to: usize) -> Result<(), Problem> {
        let soak = &*self.soak;
        let began = soak.now();
        let (moved, left, arrived) = {
            let mut registers = soak.registers.borrow_mut();
            let moved: Vec<Shown> = registers[from]
                .may_show(began, began)
                .into_iter()
                .filter(Option::is_some)
                .collect();
            let left = registers[from].begin(vec![None], began);
            let arrived = registers[to].begin(moved.clone(), began);
            (moved, left, arrived)
        };
        let (from_path, to_path) = (soak.plan.path(from), soak.plan.path(to));
        let renaming = self.client.rename(&from_path, &to_path, true);
        let outcome = self.patiently("rename", from, renaming).await;
        let now = soak.now();
        let mut registers = soak.registers.borrow_mut();
        match outcome {
            Ok(()) => {
                registers[from].acknowledged(left, now);
                registers[to].acknowledged(arrived, now);
                drop(registers);
                if moved.is_empty() {
                    self.lost(from, "renamed where nothing can have been", began);
                }
                Ok(())
            }
            Err(problem) if problem.kind == ProblemKind::NotFound => {
                registers[from].refused(left);
                registers[to].refused(arrived);
                drop(registers);
                self.saw(from, None, began);
                Ok(())
            }
            Err(problem) => {
                registers[from].unknown(left, now + soak.settle_us);
                registers[to].unknown(arrived, now + soak.settle_us);
                Err(problem)
            }
        }
    }

    async fn delete(&self, name: usize) -> Result<(), Problem> {
        let soak = &*self.soak;
        let began = soak.now();
        let write = soak.registers.borrow_mut()[name].begin(vec![None], began);
        let path = soak.plan.path(name);
        let outcome = self
            .patiently("delete", name, self.client.remove(&path, false))
            .await;
        let now = soak.now();
        match outcome {
            Ok(removed) => {
                let before = {
                    let register = &mut soak.registers.borrow_mut()[name];
                    let before = register.may_show(began, now);
                    register.acknowledged(write, now);
                    before
                };
                let fits = |value: &Value| removed.files == 1 && removed.bytes == value.length_bytes;
                if !before.iter().flatten().any(fits) {
                    self.lost(name, &format!("removed {removed:?} of {before:?}"), began);
                }
                Ok(())
            }
            Err(problem) if problem.kind == ProblemKind::NotFound => {
                soak.registers.borrow_mut()[name].refused(write);
                self.saw(name, None, began);
                Ok(())
            }
            Err(problem) => {
                soak.registers.borrow_mut()[name].unknown(write, now + soak.settle_us);
                Err(problem)
            }
        }
    }

    /// Waits for an answer, but not for ever.
    async fn patiently<T>(
        &self,
        doing: &str,
        name: usize,
        answer: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        if let Ok(answer) = timeout(HUNG_AFTER, answer).await {
            return answer;
        }
        let what = format!("client {}: {doing} of number {name}", self.number);
        self.soak.offence(Offence::Hung, &what);
        Err(Problem::retry("it never came back"))
    }

    /// This was seen between `began` and now.
    fn saw(&self, name: usize, shown: Shown, began: Moment) {
        let now = self.soak.now();
        let register = &mut self.soak.registers.borrow_mut()[name];
        if !register.saw(shown, began, now) {
            let what = format!(
                "{} shows {shown:?} and may be one of {:?} only",
                self.soak.plan.path(name),
                register.may_show(began, now)
            );
            self.soak
                .offence(Offence::Lost, &format!("client {}: {what}", self.number));
            self.soak.say(format_args!("{register:?}"));
        }
    }

    fn lost(&self, name: usize, what: &str, began: Moment) {
        let path = self.soak.plan.path(name);
        let what = format!("client {}: {path}: {what}", self.number);
        self.soak.offence(Offence::Lost, &what);
        let register = &self.soak.registers.borrow()[name];
        self.soak.say(format_args!(
            "between {began} and {}: {register:?}",
            self.soak.now()
        ));
    }

    /// Which block of a file a byte is in, and where that lies.
    async fn block_at(&self, path: &str, version: u64, offset_bytes: u64) -> String {
        let blocks = match self.client.info(path).await {
            Ok((file, blocks)) if file.version == version => blocks,
            Ok(_) => return "a version that is gone".to_owned(),
            Err(problem) => return format!("a block that is not known: {problem}"),
        };
        let mut start = 0;
        for block in blocks {
            let end = start + u64::from(block.length);
            if offset_bytes < end {
                let places: Vec<String> = block
                    .replicas
                    .iter()
                    .map(|replica| format!("{} ({:?})", replica.hop.server, replica.state))
                    .collect();
                return format!(
                    "block {} (number {}, {} B) on {}",
                    block.block,
                    block.index,
                    block.length,
                    places.join(", ")
                );
            }
            start = end;
        }
        "no block".to_owned()
    }
}

/// What a file that was found shows.
fn shown(file: &FileInfo) -> Shown {
    Some(Value {
        // A file that no soak has made shows a value that nobody has written.
        number: number_of(&file.content_type).unwrap_or(u64::MAX),
        length_bytes: file.size_bytes,
    })
}

/// Whether an error of this kind says that the same may succeed later: the CLI's exit code 5.
fn says_retry(kind: ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::Retry
            | ProblemKind::OtherReplica
            | ProblemKind::Busy
            | ProblemKind::NotLeader
            | ProblemKind::Stale
            | ProblemKind::Gone
    )
}
