//! What the control thread asks of a volume's thread, and how the volume obeys.

use std::rc::Rc;

use blockyard_engine as engine;
use blockyard_wire::digest::{self, Digest};
use blockyard_wire::types::{
    BlockId, ClusterId, Epoch, Replica, ReplicaProof, ReplicaState, ScrubOrder, VolumeReport,
};
use blockyard_wire::{Problem, Result};
use futures_channel::{mpsc, oneshot};

use crate::error::problem_of;
use crate::node::Node;
use crate::{read, repair, report};

/// Commands that a volume works on at a time; further ones wait in the channel.
pub(crate) const COMMANDS_MAX: u32 = 64;
/// Replicas of one answer: far below the limit of a control message.
const REPLICAS_MAX: usize = 10_000;
/// Replicas looked at before other tasks get their turn.
const PAGE: usize = 16 * 1024;
/// The bucket that stands for all of them.
const ALL_BUCKETS: u16 = digest::BUCKETS as u16;

/// Where the answer to a command goes. A lost asker is no error.
pub(crate) type Answer<T> = oneshot::Sender<Result<T>>;

/// Everything that a volume's thread is asked for.
pub(crate) enum Command {
    /// The cluster is known: format and open the volume if that had to wait.
    Open(ClusterId, Answer<()>),
    Report(oneshot::Sender<VolumeReport>),
    /// Replicas that are not served, and why.
    Unwell(Answer<Vec<Replica>>),
    Raise(Epoch, Answer<()>),
    Digest(Answer<Digest>),
    Replicas {
        bucket: u16,
        after: BlockId,
        limit: usize,
        answer: Answer<(Vec<Replica>, bool)>,
    },
    Delete {
        blocks: Vec<BlockId>,
        epoch: Epoch,
        answer: Answer<Vec<BlockId>>,
    },
    Copy {
        order: Box<repair::Order>,
        epoch: Epoch,
        answer: Answer<ReplicaProof>,
    },
    Verify(BlockId, Answer<ReplicaState>),
    Settle {
        block: BlockId,
        wanted: bool,
        epoch: Epoch,
        answer: Answer<()>,
    },
    Scrub(ScrubOrder, Answer<()>),
    /// Finish what runs and close.
    Stop,
}

impl Command {
    /// Answers a command of a volume that does not serve.
    pub fn refuse(self, problem: &Problem) {
        fn no<T>(answer: Answer<T>, problem: &Problem) {
            let _ = answer.send(Err(problem.clone()));
        }
        match self {
            Self::Open(_, answer)
            | Self::Raise(_, answer)
            | Self::Settle { answer, .. }
            | Self::Scrub(_, answer) => no(answer, problem),
            Self::Unwell(answer) => no(answer, problem),
            Self::Digest(answer) => no(answer, problem),
            Self::Replicas { answer, .. } => no(answer, problem),
            Self::Delete { answer, .. } => no(answer, problem),
            Self::Copy { answer, .. } => no(answer, problem),
            Self::Verify(_, answer) => no(answer, problem),
            Self::Report(_) | Self::Stop => {}
        }
    }
}

/// Asks a volume for its report. A clone of the channel's end has room of its own; from a thread that has ended there is
/// just no answer.
pub(crate) fn ask_report(commands: &mpsc::Sender<Command>) -> oneshot::Receiver<VolumeReport> {
    let (answer, answered) = oneshot::channel();
    let _ = commands.clone().try_send(Command::Report(answer));
    answered
}

/// Obeys one command of a volume that serves.
pub(crate) async fn obey(node: Rc<Node>, command: Command) {
    let _in_flight = node.begin();
    match command {
        Command::Open(cluster, answer) => {
            let _ = answer.send(same_cluster(&node, cluster));
        }
        Command::Raise(epoch, answer) => {
            let _ = answer.send(raise(&node, epoch).await);
        }
        Command::Unwell(answer) => {
            let _ = answer.send(Ok(unwell(&node).await));
        }
        Command::Digest(answer) => {
            let mut replicas = Vec::new();
            each(&node, BlockId(0), |replica| {
                replicas.push(replica);
                true
            })
            .await;
            let _ = answer.send(Ok(Digest::of(replicas)));
        }
        Command::Replicas {
            bucket,
            after,
            limit,
            answer,
        } => {
            let _ = answer.send(Ok(replicas(&node, bucket, after, limit).await));
        }
        Command::Delete {
            blocks,
            epoch,
            answer,
        } => {
            let _ = answer.send(delete(&node, &blocks, epoch).await);
        }
        Command::Copy { order, epoch, answer } => {
            let copied = async {
                raise(&node, epoch).await?;
                repair::copy(&node, *order).await
            };
            let _ = answer.send(copied.await);
        }
        Command::Verify(block, answer) => {
            let _ = answer.send(read::verify(&node, block).await);
        }
        Command::Settle {
            block,
            wanted,
            epoch,
            answer,
        } => {
            let _ = answer.send(settle(&node, block, wanted, epoch).await);
        }
        Command::Scrub(order, answer) => {
            let _ = answer.send(node.scrubbing.tell(order));
        }
        Command::Report(_) | Command::Stop => unreachable!("the volume's own loop takes these"),
    }
}

fn same_cluster(node: &Node, cluster: ClusterId) -> Result<()> {
    if node.cluster == cluster {
        return Ok(());
    }
    Err(Problem::invalid(format!(
        "volume {} belongs to cluster {}, the nameserver to {cluster}",
        node.id, node.cluster
    )))
}

/// Persists the nameserver's epoch, or refuses it: `Stale` when a newer one or a twin has been here.
async fn raise(node: &Node, epoch: Epoch) -> Result<()> {
    let epoch = engine::Epoch {
        number: epoch.number,
        incarnation: epoch.incarnation.0,
    };
    node.volume
        .raise_epoch(epoch)
        .await
        .map_err(|error| problem_of(&error))
}

async fn delete(node: &Node, blocks: &[BlockId], epoch: Epoch) -> Result<Vec<BlockId>> {
    raise(node, epoch).await?;
    let deleted = node
        .volume
        .delete(blocks)
        .await
        .map_err(|error| problem_of(&error))?;
    Ok(deleted
        .into_iter()
        .filter_map(|(block, was_here)| was_here.then_some(block))
        .collect())
}

async fn settle(node: &Node, block: BlockId, wanted: bool, epoch: Epoch) -> Result<()> {
    raise(node, epoch).await?;
    let settled = if wanted {
        node.volume.confirm_suspect(block).await
    } else {
        node.volume.forget_suspect(block).await
    };
    settled.map_err(|error| problem_of(&error))
}

async fn unwell(node: &Node) -> Vec<Replica> {
    let stat = node.volume.stat();
    let mut found = Vec::new();
    if stat.suspects + stat.corrupt > 0 {
        each(node, BlockId(0), |replica| {
            if replica.state != ReplicaState::Good {
                found.push(replica);
            }
            found.len() < REPLICAS_MAX
        })
        .await;
    }
    found
}

async fn replicas(node: &Node, bucket: u16, after: BlockId, limit: usize) -> (Vec<Replica>, bool) {
    let limit = limit.clamp(1, REPLICAS_MAX);
    let mut found = Vec::new();
    let mut more = false;
    each(node, after, |replica| {
        if bucket != ALL_BUCKETS && digest::bucket(replica.block) != usize::from(bucket) {
            return true;
        }
        more = found.len() == limit;
        if !more {
            found.push(replica);
        }
        !more
    })
    .await;
    (found, more)
}

/// Shows replicas with ids above `after` in order, page by page, until `look` has seen enough.
async fn each(node: &Node, after: BlockId, mut look: impl FnMut(Replica) -> bool) {
    // No block has the id 0: the first reign is 1.
    let mut after = (after.0 > 0).then_some(after);
    loop {
        let page = node.volume.list(after, PAGE);
        let ends = page.len() < PAGE;
        after = page.last().map(|info| info.block);
        if !page.iter().map(report::replica).all(&mut look) || ends {
            return;
        }
        give_way().await;
    }
}

/// Lets the thread's other tasks run.
async fn give_way() {
    let mut gave = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut gave, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
