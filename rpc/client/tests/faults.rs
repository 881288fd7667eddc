//! Uploads and downloads around volumes that refuse, die, lie, corrupt, or fall silent.

mod common;

use std::time::Duration;

use blockyard_client::{Client, Options, ProblemKind};
use common::{Cluster, Fault, MIB, download, random_bytes, until, upload};

/// Deadlines short enough to be waited for. Nothing that is meant to succeed depends on them: whoever
/// is called silent too early is only tried again elsewhere.
async fn hasty(cluster: &Cluster) -> Client {
    let options = Options {
        connect_timeout: Duration::from_millis(500),
        read_stall: Duration::from_secs(1),
        write_stall: Duration::from_secs(1),
        ..cluster.options()
    };
    Client::connect(options).await.unwrap()
}

#[tokio::test]
async fn an_upload_goes_around_a_failing_head() {
    for fault in [Fault::AbortPut, Fault::DieInPut, Fault::LieInPut, Fault::Silent] {
        let cluster = Cluster::new(3);
        cluster.fault(0, Some(fault));
        let client = hasty(&cluster).await;
        let data = random_bytes(9 * MIB);
        let uploaded = upload(&client, "/f", &data).await.unwrap();
        assert!(uploaded.retried_blocks >= 1, "{fault:?}");
        assert_eq!(uploaded.degraded, 0, "{fault:?}");
        assert!(cluster.stored("/f", 1) == data, "{fault:?}");
        assert!(cluster.stored("/f", 2) == data, "{fault:?}");
        let (done, bytes) = download(&client, "/f", None).await.unwrap();
        assert!(bytes == data && done.verified_whole, "{fault:?}");
    }
}

#[tokio::test]
async fn the_one_behind_is_avoided_when_it_is_to_blame() {
    for fault in [Fault::BlameNext, Fault::Stuck] {
        let cluster = Cluster::new(3);
        cluster.fault(0, Some(fault));
        let ids = cluster.volume_ids();
        let client = hasty(&cluster).await;
        let data = random_bytes(MIB);
        let mended = async {
            until(|| {
                cluster
                    .world
                    .nameserver()
                    .avoided
                    .iter()
                    .any(|avoid| !avoid.is_empty())
            })
            .await;
            cluster.fault(0, None);
        };
        let (uploaded, ()) = tokio::join!(upload(&client, "/f", &data), mended);
        assert_eq!(uploaded.unwrap().retried_blocks, 1, "{fault:?}");
        let avoided = cluster.world.nameserver().avoided.clone();
        assert!(avoided.contains(&vec![ids[1]]), "{fault:?}: {avoided:?}");
    }
}

#[tokio::test]
async fn too_few_volumes_degrade_an_upload() {
    let cluster = Cluster::new(2);
    cluster.volume_down(0, true);
    let client = cluster.client().await;
    let data = random_bytes(5 * MIB);
    let uploaded = upload(&client, "/f", &data).await.unwrap();
    assert_eq!(uploaded.degraded, uploaded.file.blocks);
    assert!(cluster.stored("/f", 1) == data);
}

#[tokio::test]
async fn an_upload_waits_for_volumes_that_come_back() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    upload(&client, "/before", b"a connection that will be lost")
        .await
        .unwrap();
    cluster.volume_down(0, true);
    cluster.volume_down(1, true);
    let data = random_bytes(5 * MIB);
    let back = async {
        until(|| {
            cluster
                .world
                .nameserver()
                .avoided
                .iter()
                .any(|avoid| avoid.len() == 2)
        })
        .await;
        cluster.volume_down(0, false);
        cluster.volume_down(1, false);
    };
    let (uploaded, ()) = tokio::join!(upload(&client, "/f", &data), back);
    assert_eq!(uploaded.unwrap().file.size_bytes, data.len() as u64);
    assert!(download(&client, "/f", None).await.unwrap().1 == data);
}

#[tokio::test]
async fn an_upload_that_nobody_takes_fails_in_time() {
    let cluster = Cluster::new(2);
    let client = Client::connect(Options {
        retry_for: Duration::from_millis(300),
        ..cluster.options()
    })
    .await
    .unwrap();
    for (fault, kind) in [
        (Fault::AbortPut, ProblemKind::NoSpace),
        (Fault::DieInPut, ProblemKind::Retry),
        (Fault::Busy(u32::MAX), ProblemKind::Retry),
    ] {
        cluster.fault(0, Some(fault));
        cluster.fault(1, Some(fault));
        for megabytes in [1, 5] {
            let problem = upload(&client, "/f", &random_bytes(megabytes * MIB))
                .await
                .unwrap_err();
            assert_eq!(problem.kind, kind, "{fault:?}: {problem}");
            assert!(problem.message.contains("/f"), "{problem}");
        }
    }
    until(|| cluster.world.nameserver().abandoned.len() == 3).await;
    assert!(cluster.world.nameserver().files.is_empty());
}

#[tokio::test]
async fn busy_volumes_are_asked_again() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    cluster.fault(0, Some(Fault::Busy(3)));
    let data = random_bytes(MIB);
    let uploaded = upload(&client, "/f", &data).await.unwrap();
    assert_eq!((uploaded.retried_blocks, uploaded.degraded), (1, 0));
    assert!(cluster.world.nameserver().avoided.iter().all(Vec::is_empty));
    cluster.fault(0, Some(Fault::Busy(2)));
    cluster.fault(1, Some(Fault::Busy(2)));
    let (done, bytes) = download(&client, "/f", None).await.unwrap();
    assert!(bytes == data && done.failovers == 4, "{}", done.failovers);
    assert!(cluster.world.nameserver().reports.is_empty());
}

#[tokio::test]
async fn a_download_turns_to_another_replica() {
    let cluster = Cluster::new(2);
    let data = random_bytes(9 * MIB);
    upload(&cluster.client().await, "/f", &data).await.unwrap();
    let bad = cluster.volume_ids()[0];
    for (fault, reported) in [
        (Fault::FlipBit, Some(ProblemKind::Corrupt)),
        (Fault::OtherBytes, Some(ProblemKind::Corrupt)),
        (Fault::NotFound, Some(ProblemKind::NotFound)),
        (Fault::ShortGet, Some(ProblemKind::OtherReplica)),
        (Fault::DieInGet, None),
        (Fault::Garbage, None),
        (Fault::Silent, None),
        (Fault::Stuck, None),
    ] {
        cluster.world.nameserver().reports.clear();
        cluster.fault(0, Some(fault));
        // A client that does not know yet.
        let client = hasty(&cluster).await;
        let (done, bytes) = download(&client, "/f", None).await.unwrap();
        assert!(bytes == data, "{fault:?}");
        // Whoever only says nothing is overtaken before it has failed.
        let turned = u64::from(done.failovers) + client.statistics().await.unwrap().hedges_won;
        assert!(done.verified_whole && turned >= 1, "{fault:?}");
        match reported {
            None => assert!(cluster.world.nameserver().reports.is_empty(), "{fault:?}"),
            Some(kind) => {
                until(|| !cluster.world.nameserver().reports.is_empty()).await;
                let reports = cluster.world.nameserver().reports.clone();
                assert!(
                    reports.iter().all(|report| (report.1, report.2) == (bad, kind)),
                    "{reports:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_volume_that_dies_is_left_for_the_other_one() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(17 * MIB);
    upload(&client, "/f", &data).await.unwrap();
    cluster.volume_down(0, true);
    let (done, bytes) = download(&client, "/f", None).await.unwrap();
    assert!(bytes == data && done.failovers >= 1);
    // It is asked last for a while.
    let gets = cluster.world.volumes()[1].1.gets;
    let (done, _) = download(&client, "/f", None).await.unwrap();
    assert_eq!(done.failovers, 0);
    assert_eq!(cluster.world.volumes()[1].1.gets, gets + 5);
}

#[tokio::test]
async fn a_connection_that_was_lost_meanwhile_does_not_count() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(MIB);
    upload(&client, "/f", &data).await.unwrap();
    // Restarted: the old connection is gone, the volume is there.
    cluster.volume_down(0, true);
    cluster.volume_down(0, false);
    let (done, bytes) = download(&client, "/f", None).await.unwrap();
    assert!(bytes == data);
    assert_eq!(done.failovers, 0);
    cluster.volume_down(0, true);
    cluster.volume_down(0, false);
    let uploaded = upload(&client, "/g", &data).await.unwrap();
    assert_eq!(uploaded.degraded, 0);
    assert!(cluster.world.nameserver().avoided.iter().all(Vec::is_empty));
}

#[tokio::test]
async fn what_can_be_read_nowhere_names_block_and_servers() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    upload(&client, "/f", &random_bytes(MIB)).await.unwrap();
    for (fault, kind) in [
        (Fault::FlipBit, ProblemKind::Corrupt),
        (Fault::DieInGet, ProblemKind::Retry),
    ] {
        cluster.fault(0, Some(fault));
        cluster.fault(1, Some(fault));
        let problem = download(&client, "/f", None).await.unwrap_err();
        assert_eq!(problem.kind, kind, "{problem}");
        let block = cluster.world.nameserver().files["/f"].1[0].block;
        for part in [block.to_string(), "server-of-127.0.0.1".into(), "/f".into()] {
            assert!(problem.message.contains(&part), "{part}: {problem}");
        }
    }
}

#[tokio::test]
async fn a_version_that_is_gone_is_said_to_be() {
    let cluster = Cluster::new(2);
    cluster.world.nameserver().page_max = 1;
    let client = cluster.client().await;
    let uploaded = upload(&client, "/f", &random_bytes(9 * MIB)).await.unwrap();
    cluster.world.nameserver().gone.push(uploaded.file.version);
    let problem = download(&client, "/f", None).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Gone);
}

#[tokio::test]
async fn tickets_that_ran_out_are_asked_for_anew() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(9 * MIB);
    upload(&client, "/f", &data).await.unwrap();
    let (_, blocks) = client.info("/f").await.unwrap();
    let mut block = blocks[0].clone();
    for replica in &mut block.replicas {
        replica.hop.ticket.expires_unix_ms = 1;
    }
    assert!(client.read_block(&block).await.unwrap() == data[..4 * MIB]);
    // All that are given out are short of time: every block is looked up once more, and works.
    cluster.world.nameserver().ticket_ms = 1000;
    let (done, bytes) = download(&client, "/f", None).await.unwrap();
    assert!(bytes == data && done.failovers == 0);
}
