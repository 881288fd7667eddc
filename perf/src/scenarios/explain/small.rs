//! Small files: created, from start to publication, and read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use blockyard_client::types::FileInfo;
use blockyard_client::{Client, Local};
use rand::seq::SliceRandom as _;

use super::cpu::{Cpu, Per, Profiler};
use super::{add_account, add_writes};
use crate::context::{Context, drop_page_cache};
use crate::explain::SCENARIO;
use crate::explain::account::Account;
use crate::explain::read;
use crate::explain::write::{Around, Life, Writes};
use crate::report::Series;
use crate::scenarios::beside::size_name;
use crate::scenarios::common::{Place, Work, warn_if_disturbed};
use crate::scenarios::files::one::{Files, slot_bytes};
use crate::scenarios::files::{FILES_MAX, FILES_QUICK, share_out};

/// The figures of files of one length.
pub(super) struct Small {
    length_bytes: u64,
    files: u64,
    workers: u32,
    creates: Series,
    reads: Series,
    create_cpu: Cpu,
    read_cpu: Cpu,
    written: Writes,
    read: Account,
}

impl Small {
    pub(super) fn new(context: &Context, length_bytes: u64) -> Self {
        let (flags, name) = (&context.flags, size_name(length_bytes));
        let most = if flags.quick { FILES_QUICK } else { FILES_MAX };
        let workers = flags.workers;
        let suffix = if workers == 1 { "worker" } else { "workers" };
        let series = |what: &str| Series::new(SCENARIO, format!("{what} {name}, {workers} {suffix}"));
        Self {
            length_bytes,
            files: (flags.size_bytes() / length_bytes).clamp(u64::from(workers), most),
            workers,
            creates: series("create"),
            reads: series("read"),
            create_cpu: Cpu::default(),
            read_cpu: Cpu::default(),
            written: Writes::default(),
            read: read::account(),
        }
    }

    /// What a round takes of a volume.
    pub(super) fn slots_bytes(&self) -> u64 {
        self.files * slot_bytes(self.length_bytes)
    }

    pub(super) async fn measure(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        profiler: &Profiler,
        round: u32,
    ) -> Result<()> {
        let (counts, count) = (round > 0, self.files);
        let files = Files {
            pool: place.pool.clone(),
            folder: format!("/explain-{round}-{}", self.length_bytes).into(),
            length_bytes: self.length_bytes,
        };
        place.clients[0].mkdir(&files.folder, true).await?;
        let work = Work::of("file", count, count * self.length_bytes);

        let running = profiler.start(context, place.nodes, counts)?;
        let outcome = create(&files, place.clients, count, self.workers).await;
        let wall_s = running.stop(context, work, &mut self.creates, &mut self.create_cpu)?;
        place.nodes.check()?;
        let (mut created, written) = outcome?;
        if counts {
            let rate = count as f64 / wall_s;
            self.creates.add("rate", "files/s", rate);
            let in_flight = rate * written.mean_put_s();
            self.creates.add("blocks in flight", "blocks", in_flight);
            self.written.merge(&written);
        }

        // Neither the order of writing nor that of names.
        created.shuffle(&mut rand::rng());
        let created = Arc::new(created);
        drop_page_cache();
        let running = profiler.start(context, place.nodes, counts)?;
        let outcome = read_all(&files, place.clients, &created, self.workers).await;
        let wall_s = running.stop(context, work, &mut self.reads, &mut self.read_cpu)?;
        place.nodes.check()?;
        let account = outcome?;
        if counts {
            self.reads.add("rate", "files/s", count as f64 / wall_s);
            self.read.merge(&account);
        }
        Ok(())
    }

    pub(super) fn report(&mut self, context: &mut Context) {
        self.creates
            .limit("blocks in flight", Some(f64::from(self.workers)));
        add_writes(&mut self.creates, &self.written, "file");
        add_account(&mut self.reads, &self.read, "file");
        self.create_cpu.report(context, &mut self.creates, Per::File);
        self.read_cpu.report(context, &mut self.reads, Per::File);
        for series in [&self.creates, &self.reads] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
}

/// As `files` does, with the account of every file.
async fn create(
    files: &Files,
    clients: &[Client],
    count: u64,
    workers: u32,
) -> Result<(Vec<FileInfo>, Writes)> {
    let files = files.clone();
    let done = share_out(clients, workers, count, move |client, number| {
        let files = files.clone();
        async move { create_one(&files, &client, number).await }
    });
    let (created, lives): (Vec<FileInfo>, Vec<Life>) = done.await?.into_iter().unzip();
    let mut written = Writes::default();
    lives.iter().for_each(|life| written.add(life));
    Ok((created, written))
}

async fn create_one(files: &Files, client: &Local, number: u64) -> Result<(FileInfo, Life)> {
    let (told, trace) = listen();
    let started = Instant::now();
    let file = files.create_traced(client, number, Some(Arc::new(trace))).await?;
    let published = Instant::now();
    let (trace, durable) = heard(&told)?;
    let block = trace.read + trace.queued + trace.done;
    let around = Around {
        before: durable.duration_since(started).saturating_sub(block),
        publication: published.duration_since(durable),
    };
    Ok((file, Life::of(&trace, around)))
}

/// As `files` does, with the account of every file.
async fn read_all(
    files: &Files,
    clients: &[Client],
    created: &Arc<Vec<FileInfo>>,
    workers: u32,
) -> Result<Account> {
    let (files, count) = (files.clone(), created.len() as u64);
    let created = created.clone();
    let done = share_out(clients, workers, count, move |client, number| {
        let (files, created) = (files.clone(), created.clone());
        async move { read_one(&files, &client, &created[number as usize]).await }
    });
    let mut account = read::account();
    done.await?.iter().for_each(|stages_s| account.add(stages_s));
    Ok(account)
}

async fn read_one(files: &Files, client: &Local, file: &FileInfo) -> Result<read::Stages> {
    let (told, trace) = listen();
    let started = Instant::now();
    files.read_traced(client, file, Some(Arc::new(trace))).await?;
    let ended = Instant::now();
    let (trace, arrived) = heard(&told)?;
    let around = read::Around {
        lookup: arrived
            .duration_since(started)
            .saturating_sub(trace.queued + trace.done),
        handed_over: ended.duration_since(arrived),
    };
    Ok(read::stages_s(&trace, around))
}

/// What the client told of the one block of a file, and when.
type Told<T> = Arc<Mutex<Option<(T, Instant)>>>;

/// For the client to tell, and where it is found then.
fn listen<T>() -> (Told<T>, impl Fn(T)) {
    let told = Told::default();
    let tell = told.clone();
    let listener = move |trace| {
        *tell.lock().unwrap_or_else(PoisonError::into_inner) = Some((trace, Instant::now()));
    };
    (told, listener)
}

fn heard<T>(told: &Told<T>) -> Result<(T, Instant)> {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).take();
    told.context("the client told nothing of the block's time")
}
