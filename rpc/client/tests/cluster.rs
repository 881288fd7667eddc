//! The client against the real nameserver and dataservers, all in one process.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use blockyard_client::types::Liveness;
use blockyard_client::{
    Client, ClusterSecret, DownloadOptions, ListOptions, Options, ProblemKind, UploadOptions,
};
use futures_util::TryStreamExt as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

const MIB: usize = 1 << 20;

/// One nameserver and some dataservers with a volume each.
struct Cluster {
    folder: TempDir,
    secret: ClusterSecret,
    nameserver: Option<blockyard_nameserver::Handle>,
    address: String,
    dataservers: Vec<Option<blockyard_dataserver::Handle>>,
}

impl Cluster {
    async fn new(dataservers: usize) -> (Self, Client) {
        let mut cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            secret: ClusterSecret::generate(),
            nameserver: None,
            address: "127.0.0.1:0".into(),
            dataservers: Vec::new(),
        };
        cluster.start_nameserver();
        for at in 0..dataservers {
            cluster.dataservers.push(None);
            cluster.start_dataserver(at);
        }
        let client = cluster.client().await;
        cluster.wait_for(&client, dataservers).await;
        (cluster, client)
    }

    async fn client(&self) -> Client {
        let options = Options::new(vec![self.address.clone()], self.secret.clone());
        Client::connect(options).await.unwrap()
    }

    fn start_nameserver(&mut self) {
        let config = blockyard_nameserver::Config {
            dir: self.folder.path().join("nameserver"),
            listen: self.address.parse().unwrap(),
            secret: Some(self.secret.clone()),
            heartbeat_ms: 100,
            journal_file_bytes: 3 << 20,
            ..blockyard_nameserver::Config::default()
        };
        let handle = blockyard_nameserver::start(config, |_| Box::pin(async {})).unwrap();
        self.address = handle.address().to_string();
        self.nameserver = Some(handle);
    }

    fn start_dataserver(&mut self, at: usize) {
        let volume = self.folder.path().join(format!("volume{at}"));
        std::fs::create_dir_all(&volume).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let nameservers = vec![self.address.clone()];
        let mut config =
            blockyard_dataserver::Config::new(vec![volume], listen, nameservers, self.secret.clone());
        config.capacity_bytes = Some(512 * MIB as u64);
        self.dataservers[at] = Some(blockyard_dataserver::start(config).unwrap());
    }

    fn stop_dataserver(&mut self, at: usize) {
        self.dataservers[at].take().unwrap().stop();
    }

    /// Waits until so many volumes are heard from.
    async fn wait_for(&self, client: &Client, volumes: usize) {
        loop {
            let status = client.status().await.unwrap();
            let alive = status.servers.iter().filter(|s| s.liveness == Liveness::Alive);
            if alive.map(|server| server.volumes.len()).sum::<usize>() == volumes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rngs::SmallRng::seed_from_u64(length as u64).fill(&mut bytes[..]);
    bytes
}

async fn put(client: &Client, path: &str, data: &[u8]) -> blockyard_client::Uploaded {
    let source = Cursor::new(data.to_vec());
    client
        .upload(path, source, UploadOptions::default())
        .await
        .unwrap()
}

async fn get(client: &Client, path: &str, folder: &Path) -> (blockyard_client::Downloaded, Vec<u8>) {
    let target = tempfile::NamedTempFile::new_in(folder).unwrap();
    let sink = Pipe(std::io::BufWriter::new(target.reopen().unwrap()));
    let done = client
        .download(path, sink, DownloadOptions::default())
        .await
        .unwrap();
    (done, std::fs::read(target.path()).unwrap())
}

/// A plain file as a sink.
struct Pipe(std::io::BufWriter<std::fs::File>);

impl tokio::io::AsyncWrite for Pipe {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(std::io::Write::write(&mut self.0, bytes))
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(std::io::Write::flush(&mut self.0))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.poll_flush(context)
    }
}

#[tokio::test]
async fn files_come_back_also_after_a_restart_of_everything() {
    let (mut cluster, client) = Cluster::new(2).await;
    let lengths = [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 13 * MIB];
    for length in lengths {
        let data = random_bytes(length);
        let uploaded = put(&client, &format!("/deep/er/f{length}"), &data).await;
        assert_eq!((uploaded.degraded, uploaded.retried_blocks), (0, 0), "{length}");
    }
    let (_, blocks) = client.info(&format!("/deep/er/f{}", 13 * MIB)).await.unwrap();
    assert_eq!(blocks.len(), 4);
    for block in &blocks {
        let servers: std::collections::HashSet<_> =
            block.replicas.iter().map(|replica| &replica.hop.server).collect();
        assert_eq!(servers.len(), 2, "{block:?}");
    }
    for round in 0..2 {
        for length in lengths {
            let path = format!("/deep/er/f{length}");
            let (done, bytes) = get(&client, &path, cluster.folder.path()).await;
            assert!(bytes == random_bytes(length), "{length} in round {round}");
            assert!(done.verified_whole);
        }
        if round == 0 {
            for at in 0..2 {
                cluster.stop_dataserver(at);
            }
            cluster.nameserver.take().unwrap().stop().unwrap();
            cluster.start_nameserver();
            for at in 0..2 {
                cluster.start_dataserver(at);
            }
            // The same client goes on.
            cluster.wait_for(&client, 2).await;
        }
    }
    let all: Vec<String> = client
        .list_all(
            "/",
            ListOptions {
                recursive: true,
                limit: 2,
                ..ListOptions::default()
            },
        )
        .map_ok(|file| file.path)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(all.len(), 2 + lengths.len(), "{all:?}");
    assert_eq!(client.status().await.unwrap().files, lengths.len() as u64);
    client.rename("/deep/er", "/moved", false).await.unwrap();
    let removed = client.remove("/moved", true).await.unwrap();
    assert_eq!(removed.files, lengths.len() as u64);
    let missing = client.lookup("/moved").await.unwrap_err();
    assert_eq!(missing.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn a_dataserver_that_stops_in_an_upload_and_in_a_download_is_gone_around() {
    let (mut cluster, client) = Cluster::new(3).await;
    let data = random_bytes(40 * MIB);
    let (mut source, from) = tokio::io::duplex(MIB);
    let uploading = tokio::spawn({
        let client = client.clone();
        async move { client.upload("/f", from, UploadOptions::default()).await }
    });
    source.write_all(&data[..20 * MIB]).await.unwrap();
    cluster.stop_dataserver(0);
    source.write_all(&data[20 * MIB..]).await.unwrap();
    drop(source);
    let uploaded = uploading.await.unwrap().unwrap();
    assert_eq!(uploaded.file.size_bytes, data.len() as u64);
    cluster.start_dataserver(0);
    cluster.wait_for(&client, 3).await;
    let (sink, mut pipe) = tokio::io::duplex(MIB);
    let downloading = tokio::spawn({
        let client = client.clone();
        async move { client.download("/f", sink, DownloadOptions::default()).await }
    });
    let mut bytes = vec![0; data.len()];
    let (first, rest) = bytes.split_at_mut(5 * MIB);
    tokio::io::AsyncReadExt::read_exact(&mut pipe, first)
        .await
        .unwrap();
    cluster.stop_dataserver(1);
    tokio::io::AsyncReadExt::read_exact(&mut pipe, rest)
        .await
        .unwrap();
    let done = downloading.await.unwrap().unwrap();
    assert!(bytes == data && done.verified_whole);
}
