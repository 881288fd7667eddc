//! Many files in one nameserver, beside few: how long it takes to start, what it needs in memory, and how quick lookups and
//! durable creates are.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use blockyard_nameserver::populated;
use futures_util::future::try_join_all;
use rand::RngExt as _;

use super::{EACH, SCENARIO};
use crate::context::Context;
use crate::nodes::{Nodes, Shape};
use crate::process;
use crate::report::Series;
use crate::scenarios::calls::{Calls, create, empty_call};
use crate::scenarios::common::{clients, close, on_clusters};
use crate::scenarios::page::http;

/// Beside which the many are measured.
const FEW: u64 = 10_000;
const CLIENTS: u32 = 64;
/// Between two looks at the memory while a snapshot is written.
const LOOK: Duration = Duration::from_millis(50);

struct Case {
    files: u64,
    whole: Series,
    empty: Calls,
    lookups: Calls,
    creates: Calls,
    shared: Calls,
}

impl Case {
    fn new(name: &'static str, files: u64) -> Self {
        let calls = |what| Calls::new(SCENARIO, &format!("{name}: {what}"), CLIENTS as usize);
        let shared = Calls::named(SCENARIO, format!("{name}: create, {CLIENTS} tasks of one client"));
        Self {
            files,
            whole: Series::new(SCENARIO, name),
            empty: calls("empty call"),
            lookups: calls("look up"),
            creates: calls("create"),
            shared,
        }
    }

    fn shape(&self) -> Shape {
        Shape {
            replication: 1,
            files: self.files,
            ..Shape::default()
        }
    }

    async fn round(&mut self, context: &mut Context, nodes: &Nodes, round: u32) -> Result<()> {
        let (counts, files) = (round > 0, self.files);
        let all = clients(nodes, CLIENTS).await?;
        let each = if context.flags.quick { EACH / 8 } else { EACH };
        let count = each * u64::from(CLIENTS);
        self.empty
            .measure(context, nodes, &all, count, counts, empty_call)
            .await?;
        self.lookups
            .measure(context, nodes, &all, count, counts, async |client, _| {
                client
                    .lookup(&populated::path(rand::rng().random_range(0..files)))
                    .await?;
                Ok(())
            })
            .await?;
        let folder = format!("/created-{round}");
        all[0].mkdir(&folder, true).await?;
        self.creates
            .measure(context, nodes, &all, count, counts, async |client, number| {
                create(client, &format!("{folder}/{number}")).await
            })
            .await?;
        // As the tasks of one program, whose creates share calls.
        let tasks = vec![all[0].clone(); CLIENTS as usize];
        self.shared
            .measure(
                context,
                nodes,
                &tasks,
                4 * count,
                counts,
                async |client, number| create(client, &format!("{folder}/shared-{number}")).await,
            )
            .await?;
        close(all).await;
        Ok(())
    }

    fn report(&mut self, context: &mut Context) {
        let limit = self.empty.rate();
        self.empty.report(context, None);
        self.lookups.report(context, limit);
        self.creates.report(context, limit);
        self.shared.report(context, limit);
    }
}

/// `--files` in one nameserver, and few in another, in turns.
pub(super) fn run(context: &mut Context) -> Result<()> {
    let files = if context.flags.quick {
        2 * FEW
    } else {
        context.flags.files
    };
    let mut cases = [Case::new("few files", FEW), Case::new("many files", files)];
    // A snapshot, its draft, and the journal.
    context.check_space(files * 512 + (2 << 30))?;
    context.say(format_args!("{files} files are made up"));
    let shapes = [&cases[0], &cases[1]].map(Case::shape);
    on_clusters(context, &shapes, async |context, nodes| {
        for (case, nodes) in cases.iter_mut().zip(&*nodes) {
            let start_s = nodes.answered_after().as_secs_f64();
            case.whole.add("time from start to first answer", "s", start_s);
            let first = clients(nodes, 1).await?;
            // Of what lies behind all others too.
            first[0].lookup(&populated::path(case.files - 1)).await?;
            close(first).await;
        }
        let [few_bytes, many_bytes] = [0, 1].map(|at| resident_bytes(&nodes[at]));
        let more = (files - FEW).max(1) as f64;
        let grown = many_bytes?.saturating_sub(few_bytes?) as f64;
        cases[1]
            .whole
            .add("memory", "bytes per file and its block", grown / more);
        for round in 0..=context.flags.rounds() {
            context.say(format_args!(
                "round {round} of {}, {files} files",
                context.flags.rounds()
            ));
            for (case, nodes) in cases.iter_mut().zip(&*nodes) {
                case.round(context, nodes, round).await?;
            }
        }
        block_map(&nodes[1], &mut cases[1]).await?;
        if !context.flags.quick {
            context.say("files are made until the nameserver writes a snapshot");
            snapshot(&nodes[1], &mut cases[1]).await?;
        }
        Ok(())
    })?;
    let [few, many] = &mut cases;
    if let (Some(few), Some(many_rate)) = (few.lookups.rate(), many.lookups.rate()) {
        many.whole.add("lookups beside few files", "×", many_rate / few);
    }
    for case in &mut cases {
        case.report(context);
        context.report.series(&case.whole);
    }
    Ok(())
}

/// How long the page waits for a map of all blocks, and what one who looks names up feels meanwhile.
async fn block_map(nodes: &Nodes, case: &mut Case) -> Result<()> {
    let all = clients(nodes, 1).await?;
    let over = Cell::new(false);
    let mapping = async {
        let started = Instant::now();
        let map = http::block_map(nodes.web()).await?;
        over.set(true);
        ensure!(
            map["blocks"].as_u64() >= Some(case.files),
            "the map has fewer blocks than there are files"
        );
        Ok::<_, anyhow::Error>(started.elapsed())
    };
    let looking = async {
        let mut longest = Duration::ZERO;
        while !over.get() {
            let started = Instant::now();
            let number = rand::rng().random_range(0..case.files);
            all[0].lookup(&populated::path(number)).await?;
            longest = longest.max(started.elapsed());
        }
        Ok(longest)
    };
    let (mapped, longest) = tokio::try_join!(mapping, looking)?;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    case.whole.add("block map in 16,384 cells", "ms", ms(mapped));
    case.whole.add("longest lookup beside it", "ms", ms(longest));
    close(all).await;
    Ok(())
}

/// What one who looks names up feels while the nameserver writes a snapshot, and what that takes in memory.
async fn snapshot(nodes: &Nodes, case: &mut Case) -> Result<()> {
    let pid = nodes.pid("nameserver")?;
    let before_bytes = process::rss_bytes(pid)?;
    let first = snapshots(nodes)?;
    let all = clients(nodes, 2).await?;
    let over = Cell::new(false);
    let making = async {
        let next = Cell::new(0u64);
        all[0].mkdir("/until-a-snapshot", true).await?;
        let tasks = (0..CLIENTS).map(|_| async {
            while !over.get() {
                let number = next.replace(next.get() + 1);
                create(&all[0], &format!("/until-a-snapshot/{number}")).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
        try_join_all(tasks).await.map(|_| ())
    };
    let looking = async {
        let (mut longest, mut most_bytes) = (Duration::ZERO, 0);
        let mut looked = Instant::now();
        while snapshots(nodes)? == first {
            let started = Instant::now();
            let number = rand::rng().random_range(0..case.files);
            all[1].lookup(&populated::path(number)).await?;
            longest = longest.max(started.elapsed());
            if looked.elapsed() > LOOK {
                most_bytes = most_bytes.max(process::rss_bytes(pid)?);
                looked = Instant::now();
            }
        }
        over.set(true);
        Ok::<_, anyhow::Error>((longest, most_bytes))
    };
    let (made, looked) = tokio::join!(making, looking);
    made?;
    let (longest, most_bytes) = looked?;
    let ms = longest.as_secs_f64() * 1000.0;
    case.whole
        .add("longest lookup beside creates and a snapshot", "ms", ms);
    let times = most_bytes as f64 / before_bytes.max(1) as f64;
    case.whole
        .add("memory while a snapshot is written, beside before", "×", times);
    close(all).await;
    Ok(())
}

/// Names of the snapshots that there are.
fn snapshots(nodes: &Nodes) -> Result<BTreeSet<OsString>> {
    let entries = std::fs::read_dir(nodes.nameserver_folder())?;
    let names: BTreeSet<OsString> = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    let whole = |name: &OsString| name.to_string_lossy().starts_with("snapshot-");
    Ok(names.into_iter().filter(whole).collect())
}

fn resident_bytes(nodes: &Nodes) -> Result<u64> {
    process::rss_bytes(nodes.pid("nameserver")?)
}
