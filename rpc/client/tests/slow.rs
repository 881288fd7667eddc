//! Volumes that are slow and not broken: reads are asked for twice, and writes go round.
//!
//! What is slow takes a hundred times what the others take, and what is counted are requests: no test knows how fast the
//! machine is.

mod common;

use std::time::Duration;

use blockyard_client::types::{BlockInfo, VolumeId};
use blockyard_client::{Client, Statistics, VolumeStatistics};
use common::{Cluster, Fault, MIB, download, random_bytes, until, upload};

/// Reads that may be asked for twice at once, and the part of all.
const HEDGES_AT_ONCE: u64 = 10;
const HEDGES_PART: f64 = 0.05;

async fn of(client: &Client, volume: VolumeId) -> VolumeStatistics {
    let all = client.statistics().await.unwrap().volumes;
    let found = all.into_iter().find(|of| of.volume == volume);
    found.unwrap_or_default()
}

fn within_budget(statistics: &Statistics) -> bool {
    let most = HEDGES_AT_ONCE + (statistics.reads as f64 * HEDGES_PART) as u64;
    statistics.hedged <= most
}

/// A file of one block on both volumes.
async fn one_block(client: &Client, data: &[u8]) -> BlockInfo {
    upload(client, "/f", data).await.unwrap();
    client.info("/f").await.unwrap().1.remove(0)
}

#[tokio::test]
async fn reads_leave_a_slow_replica_for_the_other_one() {
    for (fault, bytes) in [(Fault::SlowGet(200), 64 << 10), (Fault::SlowFlip(200), MIB)] {
        let cluster = Cluster::new(2);
        let (client, data) = (cluster.client().await, random_bytes(bytes));
        let block = one_block(&client, &data).await;
        cluster.fault(0, Some(fault));
        for _ in 0..200 {
            assert!(client.read_block(&block).await.unwrap() == data, "{fault:?}");
        }
        let statistics = client.statistics().await.unwrap();
        assert!(
            statistics.hedged >= 1 && statistics.hedges_won >= 1,
            "{statistics:?}"
        );
        assert!(within_budget(&statistics), "{statistics:?}");
        let gets = |at: usize| cluster.world.volumes()[at].1.gets;
        let (slow, quick) = (gets(0), gets(1));
        assert!(
            slow < 40 && quick > 160,
            "{slow} of the slow one, {quick} of the other"
        );
        // The losers were cancelled, which the slow one hears late, and whatever they said late was not heard.
        assert_eq!(statistics.cancelled, statistics.hedged);
        until(|| cluster.world.volumes()[0].1.cancels > 0).await;
        let bad = cluster.volume_ids()[0];
        let reports = cluster.world.nameserver().reports.clone();
        match fault {
            // Probes are read to their end: they may find the damage.
            Fault::SlowFlip(_) => assert!(reports.iter().all(|report| report.1 == bad)),
            _ => assert!(reports.is_empty(), "{reports:?}"),
        }
    }
}

#[tokio::test]
async fn late_bytes_of_a_loser_spoil_nothing() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(9 * MIB);
    upload(&client, "/f", &data).await.unwrap();
    cluster.fault(0, Some(Fault::SlowGet(60)));
    // Some blocks at a time of both volumes, so that late packets come between wanted ones.
    for _ in 0..6 {
        let (done, bytes) = download(&client, "/f", None).await.unwrap();
        assert!(bytes == data && done.verified_whole && done.failovers == 0);
    }
}

#[tokio::test]
async fn a_volume_that_is_quick_again_is_read_again() {
    let cluster = Cluster::new(2);
    let (client, data) = (cluster.client().await, random_bytes(64 << 10));
    let block = one_block(&client, &data).await;
    let volume = cluster.volume_ids()[0];
    cluster.fault(0, Some(Fault::SlowGet(200)));
    while !of(&client, volume).await.slow_to_read {
        client.read_block(&block).await.unwrap();
    }
    cluster.fault(0, None);
    while of(&client, volume).await.slow_to_read {
        client.read_block(&block).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(client.statistics().await.unwrap().probes >= 3);
    let before = cluster.world.volumes()[0].1.gets;
    for _ in 0..20 {
        client.read_block(&block).await.unwrap();
    }
    assert!(cluster.world.volumes()[0].1.gets > before + 10);
}

#[tokio::test]
async fn the_only_replica_is_never_asked_twice() {
    let cluster = Cluster::new(1);
    cluster.world.nameserver().replication = 1;
    let (client, data) = (cluster.client().await, random_bytes(64 << 10));
    let block = one_block(&client, &data).await;
    for _ in 0..20 {
        client.read_block(&block).await.unwrap();
    }
    cluster.fault(0, Some(Fault::SlowGet(150)));
    for _ in 0..5 {
        assert!(client.read_block(&block).await.unwrap() == data);
    }
    let statistics = client.statistics().await.unwrap();
    assert_eq!((statistics.hedged, statistics.cancelled), (0, 0));
    assert_eq!(cluster.world.volumes()[0].1.gets, 25);
    assert_eq!(cluster.world.volumes()[0].1.cancels, 0);
}

#[tokio::test]
async fn nor_is_the_only_good_one() {
    let cluster = Cluster::new(2);
    let (client, data) = (cluster.client().await, random_bytes(64 << 10));
    let mut block = one_block(&client, &data).await;
    block.replicas[1].live = false;
    cluster.fault(0, Some(Fault::SlowGet(150)));
    for _ in 0..4 {
        assert!(client.read_block(&block).await.unwrap() == data);
    }
    assert_eq!(client.statistics().await.unwrap().hedged, 0);
    assert_eq!(cluster.world.volumes()[1].1.gets, 0);
}

#[tokio::test]
async fn the_loser_of_a_hedge_may_be_the_hedge() {
    // Both are slow: whoever is first, the bytes are right, and no more is asked for twice than may be.
    let cluster = Cluster::new(2);
    let (client, data) = (cluster.client().await, random_bytes(64 << 10));
    let block = one_block(&client, &data).await;
    cluster.fault(0, Some(Fault::SlowGet(60)));
    cluster.fault(1, Some(Fault::SlowGet(90)));
    for _ in 0..40 {
        assert!(client.read_block(&block).await.unwrap() == data);
    }
    let statistics = client.statistics().await.unwrap();
    assert!(within_budget(&statistics), "{statistics:?}");
    assert_eq!(statistics.hedged, statistics.cancelled, "{statistics:?}");
}

#[tokio::test]
async fn a_hedge_that_fails_leaves_the_first_answer() {
    let cluster = Cluster::new(2);
    let (client, data) = (cluster.client().await, random_bytes(64 << 10));
    let block = one_block(&client, &data).await;
    cluster.fault(0, Some(Fault::SlowGet(200)));
    cluster.fault(1, Some(Fault::NotFound));
    assert!(client.read_block(&block).await.unwrap() == data);
    let statistics = client.statistics().await.unwrap();
    assert_eq!((statistics.hedged, statistics.hedges_won), (1, 0));
    until(|| !cluster.world.nameserver().reports.is_empty()).await;
    assert_eq!(cluster.world.nameserver().reports[0].1, cluster.volume_ids()[1]);
}

#[tokio::test]
async fn new_chains_go_round_a_slow_hop() {
    let cluster = Cluster::new(3);
    let client = cluster.client().await;
    let ids = cluster.volume_ids();
    // The fakes' chains are the first two of all that are not avoided.
    for at in 0..4 {
        upload(&client, &format!("/before{at}"), &random_bytes(64 << 10))
            .await
            .unwrap();
    }
    assert!(!of(&client, ids[1]).await.slow_to_write);
    cluster.world.volume(ids[1], |state| state.lag_us = 2_000_000);
    for at in 0..8 {
        upload(&client, &format!("/slow{at}"), &random_bytes(64 << 10))
            .await
            .unwrap();
    }
    let told = [of(&client, ids[0]).await, of(&client, ids[1]).await];
    assert_eq!(told.map(|of| of.slow_to_write), [false, true]);
    let asked = [0, 2].map(|at| cluster.world.volumes()[at].1.blocks.len());
    let before = cluster.world.volumes()[1].1.blocks.len();
    // Chains that were reserved ahead go through it, and are not used; nor does an upload's allocation.
    for at in 0..6 {
        let uploaded = upload(&client, &format!("/round{at}"), &random_bytes(64 << 10)).await;
        assert_eq!(uploaded.unwrap().degraded, 0);
    }
    let uploaded = upload(&client, "/large", &random_bytes(9 * MIB)).await.unwrap();
    assert_eq!((uploaded.degraded, uploaded.retried_blocks), (0, 0));
    assert_eq!(cluster.world.volumes()[1].1.blocks.len(), before);
    let now = [0, 2].map(|at| cluster.world.volumes()[at].1.blocks.len());
    assert_eq!(now, asked.map(|blocks| blocks + 6 + 3));
    let avoided = cluster.world.nameserver().avoided.clone();
    assert!(avoided.contains(&vec![ids[1]]), "{avoided:?}");
}

#[tokio::test]
async fn a_slow_replica_is_better_than_none() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let slow = cluster.volume_ids()[1];
    cluster.world.volume(slow, |state| state.lag_us = 2_000_000);
    for at in 0..20 {
        let uploaded = upload(&client, &format!("/f{at}"), &random_bytes(64 << 10))
            .await
            .unwrap();
        assert_eq!((uploaded.degraded, uploaded.retried_blocks), (0, 0));
    }
    let uploaded = upload(&client, "/large", &random_bytes(9 * MIB)).await.unwrap();
    assert_eq!(uploaded.degraded, 0);
    assert!(of(&client, slow).await.slow_to_write);
    assert_eq!(cluster.world.volumes()[1].1.blocks.len(), 23);
    // Where there are no others, that is not found out anew for each block.
    let avoided = cluster.world.nameserver().avoided.clone();
    assert!(
        avoided.iter().filter(|avoid| !avoid.is_empty()).count() <= 3,
        "{avoided:?}"
    );
}

#[tokio::test]
async fn a_volume_that_says_no_hello_is_overtaken_too() {
    let cluster = Cluster::new(2);
    let (client, data) = (cluster.client().await, random_bytes(64 << 10));
    let mut block = one_block(&client, &data).await;
    // Its kernel takes connections for a stopped process.
    let stopped = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    block.replicas[0].hop.address = stopped.local_addr().unwrap().to_string();
    let reads = (0..8).map(|_| client.read_block(&block));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap() == data);
    }
    // None of them waited until connecting was given up.
    let statistics = client.statistics().await.unwrap();
    assert_eq!(
        (statistics.hedged, statistics.hedges_won),
        (8, 8),
        "{statistics:?}"
    );
}
