// The writer of tiers that publish an object as a whole, out of RAM.
import { TierError } from "../errors.js";
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";
import type { TierMeter } from "./meter.js";
import type { TierKey, TierWriter } from "./tier.js";

type Outcome = "stored" | "no-space";

export interface WholeObjectOptions {
  /** Of the tier, for errors. */
  readonly name: string;
  readonly key: TierKey;
  readonly byteLength: number;
  readonly meter: TierMeter;
  /** @throws {TierError} when the tier cannot be used. */
  readonly check: () => void;
  /** Stores the object. The meter learns of it in the same turn, so no deletion comes between. */
  publish(object: PrivateBytes, options: { readonly durable: boolean }): Outcome | Promise<Outcome>;
}

/** Costs the object's own size in RAM until it ends. @returns `"no-space"` when the meter has no room. */
export function wholeObjectWriter(options: WholeObjectOptions): TierWriter | "no-space" {
  const { name, key, byteLength, meter, check } = options;
  check();
  if (!meter.tryBegin(byteLength)) return "no-space";
  const object = privateBytes(byteLength);
  let writtenBytes = 0;
  let isPending = true;
  const end = () => {
    if (isPending) meter.end(byteLength);
    isPending = false;
  };
  return {
    write: async (source) => {
      check();
      if (writtenBytes + source.byteLength > byteLength) {
        throw new TierError("io", name, "the object is longer than announced");
      }
      object.set(source, writtenBytes);
      writtenBytes += source.byteLength;
      return "written";
    },
    commit: async (commitOptions) => {
      check();
      if (writtenBytes !== byteLength) {
        throw new TierError("io", name, "the object is incomplete");
      }
      const publishing = options.publish(object, commitOptions);
      const outcome = publishing instanceof Promise ? await publishing : publishing;
      if (outcome === "no-space") {
        meter.noSpaceCount += 1;
        return "no-space";
      }
      end();
      meter.put(key, byteLength);
      meter.bytesWritten += byteLength;
      meter.commitCount += 1;
      return "stored";
    },
    abort: async () => end(),
  };
}
