@0x87f67128643a121c;
# Headers of frames: a 16-byte prefix (FORMAT.md), this message in one segment, then the payload.
# The same frames open every connection (hello … welcome); after welcome a control connection turns
# into Cap'n Proto RPC, a data connection goes on with frames.

using Types = import "types.capnp";

struct Frame {
  stream @0 :UInt32;           # chosen by the connection's opener; 0 for hello … pong
  union {
    hello @1 :Hello;
    challenge @2 :Challenge;
    proof @3 :Proof;
    welcome @4 :Proof;
    put @5 :Put;
    packet @6 :Packet;
    putDone @7 :PutDone;
    get @8 :Get;
    grant @9 :Grant;
    cancel @10 :Void;          # by the opener: the stream is no longer wanted
    abort @11 :Abort;          # by either side: the stream has failed
    ping @12 :Void;
    pong @13 :Void;
  }
}

enum Role {
  client @0;
  dataserver @1;               # control: registers; data: a chain's predecessor, or repair
}

enum Purpose {
  control @0;                  # Cap'n Proto RPC follows
  data @1;                     # frames follow
}

struct Hello {
  versionMin @0 :UInt16;
  versionMax @1 :UInt16;
  role @2 :Role;
  purpose @3 :Purpose;
  features @4 :UInt64;         # bits offered
  nonce @5 :Data;              # 32 random bytes
  cluster @6 :Types.Id128;     # zero where the opener does not know it yet
}

struct Challenge {
  version @0 :UInt16;          # chosen
  features @1 :UInt64;         # bits both know
  nonce @2 :Data;              # 32 random bytes
  cluster @3 :Types.Id128;
}

struct Proof {
  mac @0 :Data;                # HMAC-SHA256 over side and both nonces and choices, FORMAT.md
}

struct Put {
  # Writes one block through a chain. The receiver is chain[0]; it sends the rest on to chain[1].
  block @0 :UInt64;
  version @1 :UInt64;
  index @2 :UInt32;
  length @3 :UInt32;           # bytes, 1 to 4 MiB
  position @4 :UInt8;          # of the receiver in the whole chain, 0 the head
  chain @5 :List(Types.Hop);
  unitCrcs @6 :List(UInt32);   # with a payload: the whole block, at most 64 KiB, sent without being asked for. A
                               # receiver without a buffer skips it, and grants when it has one.
}

struct Packet {
  # The payload behind this header: whole checksum units, only the block's last one shorter.
  offset @0 :UInt32;           # bytes from the block's start, a multiple of 64 KiB
  unitCrcs @1 :List(UInt32);   # CRC32C of each unit of the payload
  last @2 :Bool;               # nothing more comes on this stream in this direction
  spans @3 :GetSpans;          # with the last packet of a Get: where its time went
}

struct GetSpans {
  # Microseconds since the volume was asked, by its own clock, until
  bufferUs @0 :UInt32;         # it had a buffer to read into
  readUs @1 :UInt32;           # the disk had answered; as bufferUs for what is cached
  checkedUs @2 :UInt32;        # every unit was verified
}

struct PutDone {
  # Durable on the sender and on all behind it in the chain.
  length @0 :UInt32;
  crc32c @1 :UInt32;
  proofs @2 :List(Types.ReplicaProof);   # in chain order, the sender's first
  spans @3 :List(HopSpans);              # as proofs: where each hop's time went
}

struct HopSpans {
  # Microseconds since the hop was asked, by its own clock, until
  grantedUs @0 :UInt32;        # it had a buffer
  receivedUs @1 :UInt32;       # the last packet was there and verified
  writtenUs @2 :UInt32;        # the slot was written
  durableUs @3 :UInt32;        # slot and record were flushed
  behindUs @4 :UInt32;         # the next hop said done; 0 for the tail
}

struct Get {
  block @0 :UInt64;
  offset @1 :UInt32;
  length @2 :UInt32;           # the answer covers the whole units that [offset, offset + length) touches
  ticket @3 :Types.Ticket;
}

struct Grant {
  bytes @0 :UInt32;            # how many payload bytes of this stream the sender may take in all
}

struct Abort {
  kind @0 :Types.ProblemKind;
  message @1 :Text;
  blame @2 :Types.Id128;       # the volume that failed; zero where none is to blame
}
