//! Uploads and downloads where nothing goes wrong.

mod common;

use std::sync::{Arc, Mutex};

use blockyard_client::{DownloadOptions, ListOptions, ProblemKind, Progress, ReadTrace, UploadOptions};
use blockyard_engine::checksum;
use common::{Cluster, Fault, MIB, Sink, download, random_bytes, until, upload};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn files_of_all_lengths_come_back() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    for length in [0, 1, 65_536, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 13 * MIB + 5] {
        let (path, data) = (format!("/f{length}"), random_bytes(length));
        let uploaded = upload(&client, &path, &data).await.unwrap();
        assert_eq!((uploaded.degraded, uploaded.retried_blocks), (0, 0));
        assert_eq!(uploaded.file.size_bytes, length as u64);
        assert_eq!(uploaded.file.crc32c, checksum::crc(&data));
        assert_eq!(uploaded.file.blocks as usize, length.div_ceil(4 * MIB));
        for volume in 0..2 {
            assert!(
                cluster.stored(&path, volume) == data,
                "{length} on volume {volume}"
            );
        }
        let (done, bytes) = download(&client, &path, None).await.unwrap();
        assert!(bytes == data, "{length}");
        assert!(done.verified_whole);
        assert_eq!((done.bytes, done.failovers), (length as u64, 0));
        assert_eq!(done.crc32c, checksum::crc(&data));
    }
    assert!(cluster.world.nameserver().leases.is_empty());
}

#[tokio::test]
async fn ranges_are_cut_to_the_byte() {
    let cluster = Cluster::new(2);
    cluster.world.nameserver().page_max = 2;
    let client = cluster.client().await;
    let data = random_bytes(9 * MIB + 77);
    upload(&client, "/f", &data).await.unwrap();
    let all = data.len() as u64;
    let block = 4 * MIB as u64;
    for range in [
        0..0,
        0..1,
        65_535..65_537,
        block - 1..block + 1,
        1..all,
        0..all,
        2 * block..all,
        all - 1..all + 100,
        all..all + 1,
        block..2 * block,
    ] {
        let (done, bytes) = download(&client, "/f", Some(range.clone())).await.unwrap();
        let expected = &data[range.start as usize..range.end.min(all) as usize];
        assert!(bytes == expected, "{range:?}");
        assert_eq!(done.crc32c, checksum::crc(expected), "{range:?}");
        assert_eq!(done.verified_whole, range == (0..all), "{range:?}");
    }
    let beyond = download(&client, "/f", Some(all + 1..all + 2)).await.unwrap_err();
    assert_eq!(beyond.kind, ProblemKind::Invalid);
}

#[tokio::test]
async fn blocks_of_any_length_make_up_a_file() {
    let cluster = Cluster::new(1);
    cluster.world.nameserver().replication = 1;
    let client = cluster.client().await;
    // Three files' blocks are strung together to one file of odd blocks.
    let parts = [random_bytes(10), random_bytes(4 * MIB), random_bytes(70_000)];
    for (at, part) in parts.iter().enumerate() {
        upload(&client, &format!("/part{at}"), part).await.unwrap();
    }
    let data = parts.concat();
    {
        let mut state = cluster.world.nameserver();
        let mut blocks = Vec::new();
        for at in 0..3 {
            let mut block = state.files[&format!("/part{at}")].1[0].clone();
            block.index = at;
            blocks.push(block);
        }
        let mut file = state.files["/part0"].0.clone();
        file.path = "/odd".into();
        file.version = 9_999;
        file.blocks = 3;
        file.size_bytes = data.len() as u64;
        file.crc32c = checksum::crc(&data);
        state.files.insert("/odd".into(), (file, blocks));
    }
    let (done, bytes) = download(&client, "/odd", None).await.unwrap();
    assert!(bytes == data && done.verified_whole);
    let (_, bytes) = download(&client, "/odd", Some(5..4 * MIB as u64 + 15))
        .await
        .unwrap();
    assert!(bytes == data[5..4 * MIB + 15]);
}

#[tokio::test]
async fn a_slow_source_keeps_its_lease() {
    let cluster = Cluster::new(2);
    cluster.world.nameserver().lease_ms = 300;
    let client = cluster.client().await;
    let (mut source, from) = tokio::io::duplex(MIB);
    let uploading = client.upload("/slow", from, UploadOptions::default());
    let data = random_bytes(6 * MIB);
    let (first, last) = data.split_at(5 * MIB);
    let feeding = async {
        source.write_all(first).await.unwrap();
        until(|| cluster.world.nameserver().renewals >= 3).await;
        source.write_all(last).await.unwrap();
        drop(source);
    };
    let (uploaded, ()) = tokio::join!(uploading, feeding);
    uploaded.unwrap();
    assert!(download(&client, "/slow", None).await.unwrap().1 == data);
}

#[tokio::test]
async fn heads_may_grant_bit_by_bit() {
    let cluster = Cluster::new(2);
    cluster.fault(0, Some(Fault::GrantBitByBit));
    let client = cluster.client().await;
    let data = random_bytes(MIB + 9);
    upload(&client, "/f", &data).await.unwrap();
    assert!(cluster.stored("/f", 1) == data);
}

#[tokio::test]
async fn progress_is_told_by_the_block() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(9 * MIB);
    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let telling = |seen: &Arc<Mutex<Vec<Progress>>>| {
        let seen = seen.clone();
        let tell: blockyard_client::ProgressFn =
            Arc::new(move |progress| seen.lock().unwrap().push(progress));
        Some(tell)
    };
    let options = UploadOptions {
        progress: telling(&seen),
        length_hint: Some(data.len() as u64),
        ..UploadOptions::default()
    };
    let source = std::io::Cursor::new(data.clone());
    client.upload("/f", source, options).await.unwrap();
    let options = DownloadOptions {
        progress: telling(&seen),
        ..DownloadOptions::default()
    };
    let (closed, receiver) = Sink::new();
    drop(receiver);
    let problem = client.download("/f", closed, options).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Failed);
    let (sink, _keep) = Sink::new();
    let options = DownloadOptions {
        progress: telling(&seen),
        ..DownloadOptions::default()
    };
    client.download("/f", sink, options).await.unwrap();
    let seen = seen.lock().unwrap();
    let total = data.len() as u64;
    assert_eq!(
        seen.len(),
        6,
        "three blocks up, three down, none into a closed sink"
    );
    for run in [&seen[..3], &seen[3..]] {
        assert!(run.is_sorted_by_key(|progress| progress.bytes));
        assert_eq!(run[2].bytes, total);
        assert!(run.iter().all(|progress| progress.total_bytes == Some(total)));
    }
}

#[tokio::test]
async fn every_piece_that_was_read_tells_where_its_time_went() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(9 * MIB);
    upload(&client, "/f", &data).await.unwrap();
    let seen: Arc<Mutex<Vec<ReadTrace>>> = Arc::default();
    let tell = seen.clone();
    let (sink, _keep) = Sink::new();
    let options = DownloadOptions {
        range: Some(3 * MIB as u64 + 1..9 * MIB as u64),
        trace: Some(Arc::new(move |trace| tell.lock().unwrap().push(trace))),
        ..DownloadOptions::default()
    };
    client.download("/f", sink, options).await.unwrap();
    let mut seen = seen.lock().unwrap();
    seen.sort_by_key(|trace| trace.index);
    let pieces: Vec<_> = seen.iter().map(|trace| (trace.index, trace.bytes)).collect();
    let mib = MIB as u32;
    assert_eq!(
        pieces,
        [(0, mib), (1, 4 * mib), (2, mib)],
        "whole units, of each block once"
    );
    for trace in seen.iter() {
        assert!(
            trace.answered < trace.done && !trace.checksum.is_zero(),
            "{trace:?}"
        );
        assert!(trace.checksum < trace.done, "{trace:?}");
    }
}

#[tokio::test]
async fn many_transfers_share_one_client() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let tasks = (0..24usize).map(|at| {
        let client = client.clone();
        tokio::spawn(async move {
            let (path, data) = (format!("/many{at}"), random_bytes(300_000 * at));
            upload(&client, &path, &data).await.unwrap();
            let (done, bytes) = download(&client, &path, None).await.unwrap();
            assert!(bytes == data && done.verified_whole, "{path}");
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(cluster.world.nameserver().logins, 1);
}

#[tokio::test]
async fn who_is_slow_holds_up_nobody() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(13 * MIB);
    upload(&client, "/quick", &data).await.unwrap();
    // More of each than blocks are read, sent or asked for at once.
    let slow = 16;
    let mut ends = Vec::new();
    for at in 0..slow {
        let (mut source, from) = tokio::io::duplex(MIB);
        let uploading = client.clone();
        tokio::spawn(async move {
            let path = format!("/slow{at}");
            uploading.upload(&path, from, UploadOptions::default()).await
        });
        source.write_all(&data[..5 * MIB]).await.unwrap();
        let (to, sink) = tokio::io::duplex(1);
        let downloading = client.clone();
        tokio::spawn(async move {
            downloading
                .download("/quick", to, DownloadOptions::default())
                .await
        });
        ends.push((source, sink));
    }
    until(|| cluster.world.nameserver().leases.len() == slow).await;
    upload(&client, "/other", &data).await.unwrap();
    assert!(download(&client, "/other", None).await.unwrap().1 == data);
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_abandoned() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let (mut source, from) = tokio::io::duplex(MIB);
    let uploading = tokio::spawn({
        let client = client.clone();
        async move { client.upload("/half", from, UploadOptions::default()).await }
    });
    source.write_all(&random_bytes(5 * MIB)).await.unwrap();
    until(|| !cluster.world.nameserver().leases.is_empty()).await;
    uploading.abort();
    until(|| cluster.world.nameserver().abandoned.len() == 1).await;
    assert!(cluster.world.nameserver().files.is_empty());
    // Also when the client is closed right behind it.
    let (mut source, from) = tokio::io::duplex(MIB);
    let uploading = tokio::spawn({
        let client = client.clone();
        async move { client.upload("/half", from, UploadOptions::default()).await }
    });
    source.write_all(&random_bytes(5 * MIB)).await.unwrap();
    until(|| !cluster.world.nameserver().leases.is_empty()).await;
    uploading.abort();
    let _ = uploading.await;
    client.close().await;
    assert_eq!(cluster.world.nameserver().abandoned.len(), 2);
}

#[tokio::test]
async fn a_source_that_fails_publishes_nothing() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    for begun in [false, true] {
        let bytes = if begun { 5 * MIB } else { MIB };
        let world = cluster.world.clone();
        let tears = async move {
            until(|| !begun || !world.nameserver().leases.is_empty()).await;
            Err(std::io::Error::other("the tape tore"))
        };
        let whole = futures_util::stream::iter([Ok(bytes::Bytes::from(random_bytes(bytes)))]);
        let broken =
            tokio_util::io::StreamReader::new(whole.chain(Box::pin(futures_util::stream::once(tears))));
        let problem = client
            .upload("/f", broken, UploadOptions::default())
            .await
            .unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Failed);
        assert!(problem.message.contains("the tape tore"), "{problem}");
    }
    until(|| cluster.world.nameserver().abandoned.len() == 1).await;
    assert!(cluster.world.nameserver().files.is_empty());
}

#[tokio::test]
async fn names_are_taken_missing_and_listed() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    upload(&client, "/f", b"one").await.unwrap();
    assert_eq!(
        upload(&client, "/f", b"two").await.unwrap_err().kind,
        ProblemKind::Exists
    );
    let options = UploadOptions {
        overwrite: true,
        ..UploadOptions::default()
    };
    client.upload("/f", &b"two"[..], options).await.unwrap();
    assert_eq!(download(&client, "/f", None).await.unwrap().1, b"two");
    assert_eq!(
        download(&client, "/g", None).await.unwrap_err().kind,
        ProblemKind::NotFound
    );
    for at in 0..5 {
        upload(&client, &format!("/n{at}"), b"x").await.unwrap();
    }
    let options = ListOptions {
        prefix: "n".into(),
        limit: 2,
        ..ListOptions::default()
    };
    let (page, more) = client.list("/", options.clone()).await.unwrap();
    assert_eq!((page.len(), more), (2, true));
    let all: Vec<String> = client
        .list_all("/", options)
        .map_ok(|file| file.name)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(all, ["n0", "n1", "n2", "n3", "n4"]);
    let removed = client.remove("/f", false).await.unwrap();
    assert_eq!((removed.files, removed.bytes), (1, 3));
    let (file, blocks) = client.info("/n0").await.unwrap();
    assert_eq!((file.size_bytes, blocks.len()), (1, 1));
    assert_eq!(client.read_block(&blocks[0]).await.unwrap(), &b"x"[..]);
    let located = client.locate(blocks[0].block).await.unwrap();
    assert_eq!(
        (located.path.as_str(), located.info.crc32c),
        ("/n0", blocks[0].crc32c)
    );
}
