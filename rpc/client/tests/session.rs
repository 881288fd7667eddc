//! The nameserver's connection: lost answers, restarts, refusals, lists of nameservers.

mod common;

use std::time::Duration;

use blockyard_client::{Client, ClusterSecret, Options, Problem, ProblemKind};
use common::{Cluster, MIB, download, random_bytes, until, upload};

#[tokio::test]
async fn a_mutation_whose_answer_is_lost_applies_once() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let calls = ["mkdir", "begin", "add_blocks", "commit", "remove"];
    cluster.world.nameserver().lose_answer_of = calls.to_vec();
    client.mkdir("/d", false).await.unwrap();
    let data = random_bytes(5 * MIB);
    let uploaded = upload(&client, "/f", &data).await.unwrap();
    assert!(download(&client, "/f", None).await.unwrap().1 == data);
    let removed = client.remove("/f", false).await.unwrap();
    assert_eq!(removed.bytes, data.len() as u64);
    let state = cluster.world.nameserver();
    assert!(state.lose_answer_of.is_empty());
    assert_eq!(state.repeated, calls.len() as u32);
    assert_eq!(state.commits, 1);
    assert_eq!(uploaded.file.size_bytes, data.len() as u64);
    assert!(state.leases.is_empty() && state.abandoned.is_empty());
}

#[tokio::test]
async fn transfers_outlive_a_restart_of_the_nameserver() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let data = random_bytes(6 * MIB);
    let (mut source, from) = tokio::io::duplex(MIB);
    let uploading = client.upload("/f", from, blockyard_client::UploadOptions::default());
    let feeding = async {
        use tokio::io::AsyncWriteExt as _;
        source.write_all(&data[..5 * MIB]).await.unwrap();
        until(|| !cluster.world.nameserver().leases.is_empty()).await;
        cluster.nameserver_down(true);
        source.write_all(&data[5 * MIB..]).await.unwrap();
        drop(source);
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.nameserver_down(false);
    };
    let (uploaded, ()) = tokio::join!(uploading, feeding);
    uploaded.unwrap();
    assert!(cluster.world.nameserver().logins > 1);
    assert!(download(&client, "/f", None).await.unwrap().1 == data);
}

#[tokio::test]
async fn a_nameserver_that_stays_away_is_given_up() {
    let cluster = Cluster::new(1);
    let options = Options {
        retry_for: Duration::from_millis(300),
        ..cluster.options()
    };
    let client = Client::connect(options).await.unwrap();
    cluster.nameserver_down(true);
    let problem = client.lookup("/f").await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Retry);
    assert!(problem.message.contains(&cluster.address), "{problem}");
    cluster.nameserver_down(false);
    assert_eq!(client.lookup("/f").await.unwrap_err().kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn the_first_connection_fails_at_once_and_says_where() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let options = Options::new(vec![address.clone()], ClusterSecret::generate());
    let problem = Client::connect(options).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Retry);
    assert!(problem.message.contains(&address), "{problem}");
    let none = Options::new(Vec::new(), ClusterSecret::generate());
    assert_eq!(
        Client::connect(none).await.unwrap_err().kind,
        ProblemKind::Invalid
    );
}

#[tokio::test]
async fn a_wrong_secret_is_told() {
    let cluster = Cluster::new(1);
    let options = Options::new(vec![cluster.address.clone()], ClusterSecret::generate());
    let problem = Client::connect(options).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Denied);
}

#[tokio::test]
async fn the_next_nameserver_of_the_list_serves() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let cluster = Cluster::new(1);
    let options = Options {
        nameservers: vec![dead, cluster.address.clone()],
        ..cluster.options()
    };
    let client = Client::connect(options).await.unwrap();
    assert_eq!(client.cluster().await.unwrap().cluster, cluster.world.cluster);
}

#[tokio::test]
async fn refusals_are_passed_on_and_what_passes_is_asked_again() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    let refuse = |kind| {
        let refusal = ("cluster", Problem::new(kind, "not now"));
        cluster.world.nameserver().refuse.push(refusal);
    };
    refuse(ProblemKind::Busy);
    client.cluster().await.unwrap();
    refuse(ProblemKind::NotLeader);
    client.cluster().await.unwrap();
    refuse(ProblemKind::Denied);
    assert_eq!(client.cluster().await.unwrap_err().kind, ProblemKind::Denied);
    // A commit that misses replicas for the moment, and no space for the moment.
    let retry = Problem::retry("block 7 has no live replica");
    let full = Problem::new(ProblemKind::Retry, "no dataserver is connected");
    cluster.world.nameserver().refuse = vec![("commit", retry), ("allocate", full)];
    upload(&client, "/f", &random_bytes(5 * MIB)).await.unwrap();
    assert!(cluster.world.nameserver().refuse.is_empty());
    let full = Problem::new(ProblemKind::Retry, "no dataserver is connected");
    cluster.world.nameserver().refuse = vec![("reserve", full)];
    upload(&client, "/g", b"x").await.unwrap();
    assert!(cluster.world.nameserver().refuse.is_empty());
}

#[tokio::test]
async fn a_short_file_is_published_once_though_the_answer_is_lost() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    cluster.world.nameserver().lose_answer_of = vec!["publish"];
    let data = random_bytes(70_000);
    upload(&client, "/f", &data).await.unwrap();
    upload(&client, "/empty", b"").await.unwrap();
    assert!(download(&client, "/f", None).await.unwrap().1 == data);
    assert!(download(&client, "/empty", None).await.unwrap().1.is_empty());
    let state = cluster.world.nameserver();
    assert_eq!((state.repeated, state.commits), (1, 2));
    assert!(state.leases.is_empty(), "no upload was opened");
}

#[tokio::test]
async fn a_block_whose_reservation_is_forgotten_is_written_anew() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    upload(&client, "/before", b"reserves more than it takes")
        .await
        .unwrap();
    cluster.world.nameserver().reserved.clear();
    let data = random_bytes(70_000);
    let uploaded = upload(&client, "/f", &data).await.unwrap();
    assert_eq!(uploaded.degraded, 0);
    assert!(download(&client, "/f", None).await.unwrap().1 == data);
}

#[tokio::test]
async fn many_short_files_are_told_apart() {
    let cluster = Cluster::new(2);
    let client = cluster.client().await;
    upload(&client, "/3", b"there before").await.unwrap();
    let uploads = (0..40u8).map(|number| {
        let (path, client) = (format!("/{number}"), client.clone());
        async move {
            let options = blockyard_client::UploadOptions::default();
            client
                .upload(&path, std::io::Cursor::new(vec![number; 5000]), options)
                .await
        }
    });
    for (number, uploaded) in (0..).zip(futures_util::future::join_all(uploads).await) {
        match uploaded {
            Err(problem) => assert!(number == 3 && problem.kind == ProblemKind::Exists, "{problem}"),
            Ok(uploaded) => assert_eq!(uploaded.file.path, format!("/{number}")),
        }
        let (_, data) = download(&client, &format!("/{number}"), None).await.unwrap();
        assert!(number == 3 || data == [number; 5000]);
    }
}
