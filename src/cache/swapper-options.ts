// What a swapper is made of.

import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { CodecRules } from "../memory/codec-options.js";
import type { EventHub } from "../memory/events.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { ByteShares } from "./byte-shares.js";
import type { Directory } from "./directory.js";
import type { Guards } from "./guards.js";
import type { TensorRecord } from "./tensor-record.js";
import type { TransferEngine } from "./transfer-engine.js";

export interface MemorySwapperOptions {
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
  readonly engine: TransferEngine;
  readonly directory: Directory;
  readonly policy: EvictionPolicy;
  readonly events: EventHub;
  readonly clock: Clock;
  readonly sink: StatsSink;
  readonly codecRules: CodecRules;
  /** null: no kind has a byte target. */
  readonly shares: ByteShares | null;
  /** Only in debug mode. */
  readonly guards: Guards | null;
  /** Called when a named tensor leaves the heap: evicted, demoted or freed. */
  readonly onLeaving: (record: TensorRecord) => void;
}
