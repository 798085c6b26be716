// A memory with several tiers below its arenas. Loaded when there is one.
import { ObjectMover } from "../cache/object-mover.js";
import { recordInspector } from "../cache/record-inspector.js";
import { RecordTranscoder } from "../cache/record-transcoder.js";
import { Staging } from "../cache/staging.js";
import { TierManager } from "../cache/tier-manager.js";
import { TierStack } from "../cache/tier-stack.js";
import type { Clock } from "../clock.js";
import type { Codec } from "../codec/codec.js";
import type { Hasher } from "../core/hash-stream.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import type { EventHub } from "../memory/events.js";
import type { CheckedOptions, TensorMemoryOptions } from "../memory/options.js";
import { reuseIntervals } from "../predictor/reuse-intervals.js";
import { unknownReuse } from "../predictor/unknown-reuse.js";
import { systemRandom } from "../random.js";
import { memoryTier } from "../tier/memory.js";
import type { Tier } from "../tier/tier.js";
import type { Observer } from "./observe.js";

export function createStack(parts: {
  readonly checked: CheckedOptions;
  readonly options: TensorMemoryOptions;
  /** Buffers for what moves between tiers. */
  readonly moveCount: number;
  readonly chunkBytes: number;
  readonly clock: Clock;
  readonly profile: HardwareProfile;
  readonly hasher: Hasher;
  readonly events: EventHub;
  /** null: off. */
  readonly ssd: Tier | null;
  readonly hdd: Tier | null;
  /** null: records stay as they are written. */
  readonly codec: Codec | null;
  readonly observer: Observer;
}): TierStack {
  const {
    checked,
    options,
    moveCount,
    chunkBytes,
    clock,
    hasher,
    events,
    ssd,
    hdd,
    codec,
    observer,
  } = parts;
  const transcoder =
    codec !== null && checked.codecRules.isColderSmaller && !observer.isOff("transcoding")
      ? new RecordTranscoder({ codec, hasher, clock, roomCount: moveCount })
      : null;
  const seams = options.seams ?? {};
  const tiers: Tier[] = [];
  if (checked.warmBytes > 0) {
    const { warmBytes: capacityBytes } = checked;
    // What it was given and what it gives are the same memory.
    tiers.push(memoryTier({ name: "warm", capacityBytes, needsReadBack: false }));
  }
  if (ssd !== null) tiers.push(ssd);
  if (hdd !== null) tiers.push(hdd);
  const mayBeAbsent: string[] = [];
  if (options.remote !== undefined) {
    const random = seams.random ?? systemRandom;
    const remote = options.remote({ capacityBytes: checked.remoteBytes, clock, random });
    tiers.push(remote);
    mayBeAbsent.push(remote.name);
  }
  const predictor = observer.isOff("placement") ? unknownReuse : reuseIntervals();
  return new TierStack({
    tiers,
    mayBeAbsent,
    manager: new TierManager(seams.tierPredictor ?? predictor),
    placement: observer.feature("placement"),
    sink: observer.sink,
    mover: new ObjectMover(new Staging(moveCount, chunkBytes), recordInspector(hasher), transcoder),
    clock,
    ...(parts.profile.tiers && { figures: parts.profile.tiers }),
    checksRecords: true,
    onFailure: (tier, error) => events.emit({ type: "tier-error", tier, error }),
  });
}
