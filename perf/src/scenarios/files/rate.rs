//! Small files at a fixed rate, without coordinated omission: operations begin when they are due, whether or not those
//! before are done, and their latency counts from then.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rand::RngExt as _;
use tokio::sync::mpsc;

use super::one::{Files, slot_bytes};
use super::{SCENARIO, run_on};
use crate::context::{Context, drop_page_cache};
use crate::latency::Latencies;
use crate::nodes::Nodes;
use crate::report::Series;
use crate::scenarios::beside::size_name;
use crate::scenarios::common::{
    Work, add_percentiles, clients, close, record, start_meter, warn_if_disturbed,
};
use crate::workload::Pool;

/// How long a rate is kept up in each round.
const SECONDS: u64 = 5;
/// Operations under way at the most; what is due beyond them waits, and its latency counts.
const UNDER_WAY_MAX: usize = 4096;

struct Case {
    length_bytes: u64,
    rate: u32,
    creates: Series,
    reads: Series,
}

/// What came of one schedule.
struct Outcome<T> {
    done: Vec<T>,
    /// From when each was due.
    latencies: Latencies,
    wall: Duration,
}

pub(super) fn run(context: &mut Context) -> Result<()> {
    let rates = context.flags.rate.clone();
    let mut cases = Vec::new();
    for &length_bytes in &context.flags.file_sizes {
        let name = size_name(length_bytes);
        cases.extend(rates.iter().map(|&rate| Case {
            length_bytes,
            rate,
            creates: Series::new(SCENARIO, format!("create {name}, {rate} due a second")),
            reads: Series::new(SCENARIO, format!("read {name}, {rate} due a second")),
        }));
    }
    let rounds = context.flags.rounds();
    let seconds = if context.flags.quick { 1 } else { SECONDS };
    let files = |case: &Case| u64::from(case.rate) * seconds * u64::from(rounds + 1);
    let bytes = cases
        .iter()
        .map(|case| files(case) * slot_bytes(case.length_bytes))
        .sum();
    run_on(context, bytes, async |context, nodes, pool| {
        for round in 0..=rounds {
            context.say(format_args!("round {round} of {rounds}"));
            for case in &mut cases {
                case.measure(context, nodes, pool, seconds, round).await?;
            }
        }
        Ok(())
    })?;
    for case in &cases {
        for series in [&case.creates, &case.reads] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
    Ok(())
}

impl Case {
    async fn measure(
        &mut self,
        context: &mut Context,
        nodes: &Nodes,
        pool: &Pool,
        seconds: u64,
        round: u32,
    ) -> Result<()> {
        let (counts, count) = (round > 0, u64::from(self.rate) * seconds);
        let clients = clients(nodes, 1).await?;
        let files = Files {
            pool: pool.clone(),
            folder: format!("/rate-{round}-{}-{}", self.length_bytes, self.rate).into(),
            length_bytes: self.length_bytes,
        };
        let (client, rate) = (&clients[0], self.rate);
        client.mkdir(&files.folder, true).await?;
        let work = Work::of("file", count, count * self.length_bytes);

        let meter = start_meter(context, nodes, counts)?;
        let creating = files.clone();
        let created = client.run_local(move |local| async move {
            Ok(on_schedule(rate, count, |number| creating.create(&local, number)).await)
        });
        let created = created.await??;
        let used = meter.stop()?;
        record(&mut self.creates, context, &used, work, counts);
        add(&mut self.creates, &created, counts);

        let kept = created.done;
        drop_page_cache();
        let meter = start_meter(context, nodes, counts)?;
        let read = client.run_local(move |local| async move {
            let any = |_| files.read(&local, &kept[rand::rng().random_range(0..kept.len())]);
            Ok(on_schedule(rate, count, any).await)
        });
        let read = read.await??;
        let used = meter.stop()?;
        record(&mut self.reads, context, &used, work, counts);
        add(&mut self.reads, &read, counts);
        close(clients).await;
        Ok(())
    }
}

fn add<T>(series: &mut Series, outcome: &Outcome<T>, counts: bool) {
    if counts {
        let rate = outcome.done.len() as f64 / outcome.wall.as_secs_f64();
        series.add("rate", "files/s", rate);
        // A round has thousands of operations: percentiles of each tell how steady they are.
        add_percentiles(series, "latency", &outcome.latencies);
    }
}

/// Begins `count` operations, each when it is due: `rate` a second, evenly.
async fn on_schedule<T, F>(rate: u32, count: u64, operation: impl Fn(u64) -> F) -> Result<Outcome<T>>
where
    F: Future<Output = Result<T>>,
{
    let (due_sender, mut due) = mpsc::unbounded_channel();
    let started = Instant::now();
    // A thread sleeps to some 60 µs, the runtime's timers to a millisecond: more than an operation may take.
    let clock = std::thread::Builder::new()
        .name("schedule".into())
        .spawn(move || {
            for number in 0..count {
                let at = started + Duration::from_secs_f64(number as f64 / f64::from(rate));
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if due_sender.send((number, at)).is_err() {
                    return;
                }
            }
        })?;
    let timed = async |number, at: Instant| {
        let result = operation(number).await;
        (result, at.elapsed())
    };
    let mut outcome = Outcome {
        done: Vec::new(),
        latencies: Latencies::default(),
        wall: Duration::ZERO,
    };
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            next = due.recv(), if open && under_way.len() < UNDER_WAY_MAX => match next {
                Some((number, at)) => under_way.push(timed(number, at)),
                None => open = false,
            },
            Some((result, latency)) = under_way.next(), if !under_way.is_empty() => {
                outcome.done.push(result?);
                outcome.latencies.record(latency);
            }
        }
    }
    outcome.wall = started.elapsed();
    ensure!(clock.join().is_ok(), "the schedule's thread panicked");
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_behind_a_stall_is_late_by_it() {
        let runtime = crate::scenarios::runtime().unwrap();
        let outcome = runtime
            .block_on(on_schedule(1000, 200, async |number| {
                if number == 50 {
                    // Nothing else runs on this thread meanwhile.
                    std::thread::sleep(Duration::from_millis(100));
                }
                Ok(number)
            }))
            .unwrap();
        let mut done = outcome.done.clone();
        done.sort_unstable();
        assert_eq!(done, (0..200).collect::<Vec<_>>());
        // A hundred were due during the stall, a millisecond apart: half of all are late, by 50 ms on average.
        assert!(outcome.latencies.ms(100.0) >= 99.0);
        assert!(outcome.latencies.ms(80.0) >= 30.0);
        assert!(outcome.wall >= Duration::from_millis(199));
    }

    #[test]
    fn an_error_ends_it() {
        let runtime = crate::scenarios::runtime().unwrap();
        let failed = runtime.block_on(on_schedule(10_000, 100_000, async |number| {
            ensure!(number < 3, "broken");
            Ok(())
        }));
        assert!(failed.err().unwrap().to_string().contains("broken"));
    }
}
