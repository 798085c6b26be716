// Copies whole objects between the levels of a stack, and says whether the copy can be relied on.
import type { TierReader, TierWriter } from "../tier/tier.js";
import { type PrivateBytes, privatePart } from "../util/private-bytes.js";
import type { CodecStats } from "./codec-meter.js";
import type { ObjectInspector } from "./record-inspector.js";
import { inChunks, type RecordTranscoder, type Transcoding } from "./record-transcoder.js";
import type { Staging } from "./staging.js";
import type { StackObject, TierLevel } from "./tier-level.js";
import type { TranscodingBalance } from "./transcode-gate.js";

export type CopyOutcome =
  | "copied"
  /** It was coded anew: the copy says the same in fewer bytes. */
  | "recoded"
  | "no-space"
  /** The source does not hold it. */
  | "missing"
  /** Its bytes do not fit its digest. */
  | "damaged";

export class ObjectMover {
  readonly #staging: Staging;
  readonly #inspector: ObjectInspector | null;
  readonly #transcoder: RecordTranscoder | null;

  /**
   * @param inspector null: objects are opaque, and only what is read back is compared.
   * @param transcoder null: all objects move as they are.
   */
  constructor(
    staging: Staging,
    inspector: ObjectInspector | null,
    transcoder: RecordTranscoder | null = null,
  ) {
    this.#staging = staging;
    this.#inspector = inspector;
    this.#transcoder = transcoder;
  }

  /** What was coded anew on its way down, by codec. */
  /** null: all objects move as they are. */
  transcodingBalance(): TranscodingBalance | null {
    return this.#transcoder?.gate.balance ?? null;
  }

  transcoded(): CodecStats[] {
    return this.#transcoder?.stats() ?? [];
  }

  /** Finds out what an object is of which nobody has told. @throws {TierError} As the level. */
  async describe(object: StackObject, level: TierLevel): Promise<void> {
    if (object.isSaved !== null && object.byteLength !== null) return;
    const reader = await level.run(() => level.tier.openRead(object.key));
    if (reader === null) return;
    try {
      object.byteLength = reader.byteLength;
      const hints = await this.#staging.use(async ({ halves: [buffer] }) => {
        const head = privatePart(buffer, 0, Math.min(buffer.byteLength, reader.byteLength));
        const count = await level.timed(() => reader.read(0, head));
        return this.#inspector?.describe(head.subarray(0, count)) ?? null;
      });
      object.kind ??= hints?.kind ?? null;
      // What does not say is given every promise.
      object.isDurable ??= hints?.isDurable ?? true;
      object.isSaved ??= hints?.isSaved ?? true;
      object.expiresMs = hints?.expiresMs ?? object.expiresMs;
    } finally {
      await reader.close();
    }
  }

  /**
   * Copies an object, and reads the copy back where the target may be wrong about what it was given.
   *
   * @param begin Starts the copy, of so many bytes, in the target.
   * @throws {TierError} As either level. After `onCommit` was called the target may hold the object.
   */
  async copy(
    object: StackObject,
    from: TierLevel,
    to: TierLevel,
    begin: (byteLength: number) => Promise<TierWriter | "no-space">,
    onCommit: () => void,
  ): Promise<CopyOutcome> {
    const reader = await from.run(() => from.tier.openRead(object.key));
    if (reader === null) return "missing";
    let writer: TierWriter | "no-space" | null = null;
    try {
      const transcoding = await this.#planAnew(object, reader, from, to);
      if (transcoding === "damaged") return transcoding;
      writer = await begin(transcoding?.byteLength ?? reader.byteLength);
      if (writer === "no-space") return writer;
      const opened = writer;
      const sink = (chunk: PrivateBytes) => to.run(() => opened.write(chunk));
      const outcome = await this.#staging.use(({ halves: [buffer, other] }) =>
        transcoding === null
          ? this.#pass(reader, from, buffer, sink)
          : this.#passAnew(transcoding, piecesOf(reader, from, buffer), other, sink),
      );
      if (outcome !== "copied") return outcome;
      onCommit();
      const durable = object.isDurable !== false && to.tier.capabilities.hasDurableCommit;
      if ((await to.run(() => opened.commit({ durable }))) === "no-space") return "no-space";
      if (transcoding !== null) {
        const isWhole = !to.tier.capabilities.needsReadBack || (await this.isIntact(object, to));
        if (!isWhole) return "damaged";
        transcoding.count();
        object.byteLength = transcoding.byteLength;
        return "recoded";
      }
      if (!to.tier.capabilities.needsReadBack) return "copied";
      return (await this.#isEqual(object, reader, { from, to })) ? "copied" : "damaged";
    } finally {
      if (writer !== null && writer !== "no-space") await writer.abort();
      await reader.close();
    }
  }

  /** Whether an object reads back as a record that was once written. @throws {TierError}. */
  async isIntact(object: StackObject, level: TierLevel): Promise<boolean> {
    const reader = await level.run(() => level.tier.openRead(object.key));
    if (reader === null) return false;
    try {
      return await this.#staging.use(async ({ halves: [buffer] }) => {
        const outcome = await this.#pass(reader, level, buffer, async () => "written");
        return outcome === "copied";
      });
    } finally {
      await reader.close();
    }
  }

  /** @returns What becomes of an object on its way down; null: nothing else. */
  async #planAnew(
    object: StackObject,
    reader: TierReader,
    from: TierLevel,
    to: TierLevel,
  ): Promise<Transcoding | "damaged" | null> {
    const transcoder = this.#transcoder;
    const { recoding } = object;
    // Levels that hold the same object hold the same bytes.
    const isAlone = object.held === from.bit && to.priority > from.priority;
    if (transcoder === null || recoding === null || !isAlone) return null;
    const { bytesPerSecond } = to.speed;
    const { physicalBytes, capacityBytes } = to.tier.stats();
    const colder = { bytesPerSecond, physicalBytes, capacityBytes };
    if (!transcoder.gate.asks(object.kind ?? "", reader.byteLength, colder)) return null;
    return this.#staging.use(async ({ halves: [buffer] }) => {
      const check = this.#inspector?.openCheck(reader.byteLength);
      try {
        const source = () => piecesOf(reader, from, buffer, (chunk) => check?.update(chunk));
        const plan = await transcoder.plan(source, recoding === "exact" ? null : recoding);
        if (plan === null) return null;
        return check?.end() === false ? "damaged" : plan;
      } finally {
        check?.discard();
      }
    });
  }

  async #passAnew(
    transcoding: Transcoding,
    source: AsyncIterable<Uint8Array>,
    buffer: PrivateBytes,
    sink: (chunk: PrivateBytes) => Promise<"written" | "no-space">,
  ): Promise<CopyOutcome> {
    let writtenBytes = 0;
    for await (const chunk of inChunks(
      transcoding.pieces(() => source),
      buffer,
    )) {
      if ((await sink(chunk)) === "no-space") return "no-space";
      writtenBytes += chunk.byteLength;
    }
    return writtenBytes === transcoding.byteLength ? "copied" : "damaged";
  }

  /** Reads a whole object and gives each piece to `sink`. */
  async #pass(
    reader: TierReader,
    level: TierLevel,
    buffer: PrivateBytes,
    sink: (chunk: PrivateBytes) => Promise<"written" | "no-space">,
  ): Promise<CopyOutcome> {
    // One for each buffer, so that there are always enough.
    const check = this.#inspector?.openCheck(reader.byteLength);
    try {
      for (let offset = 0; offset < reader.byteLength; ) {
        const length = Math.min(buffer.byteLength, reader.byteLength - offset);
        const chunk = privatePart(buffer, 0, length);
        const at = offset;
        if ((await level.timed(() => reader.read(at, chunk))) !== length) return "damaged";
        check?.update(chunk);
        if ((await sink(chunk)) === "no-space") return "no-space";
        offset += length;
      }
      return (check?.end() ?? true) ? "copied" : "damaged";
    } finally {
      check?.discard();
    }
  }

  async #isEqual(
    object: StackObject,
    source: TierReader,
    levels: { readonly from: TierLevel; readonly to: TierLevel },
  ): Promise<boolean> {
    const { from, to } = levels;
    const copy = await to.run(() => to.tier.openRead(object.key));
    if (copy === null) return false;
    try {
      if (copy.byteLength !== source.byteLength) return false;
      return await this.#staging.use(async ({ halves: [left, right] }) => {
        for (let offset = 0; offset < source.byteLength; offset += left.byteLength) {
          const length = Math.min(left.byteLength, source.byteLength - offset);
          const one = privatePart(left, 0, length);
          const other = privatePart(right, 0, length);
          await from.run(() => source.read(offset, one));
          await to.timed(() => copy.read(offset, other));
          for (let index = 0; index < length; index++)
            if (one[index] !== other[index]) return false;
        }
        return true;
      });
    } finally {
      await copy.close();
    }
  }
}

/** An object in pieces of a buffer; it ends early where there is less than there should be. */
async function* piecesOf(
  reader: TierReader,
  level: TierLevel,
  buffer: PrivateBytes,
  onPiece: (piece: Uint8Array) => void = () => {},
): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < reader.byteLength; ) {
    const at = offset;
    const chunk = privatePart(buffer, 0, Math.min(buffer.byteLength, reader.byteLength - at));
    if ((await level.timed(() => reader.read(at, chunk))) !== chunk.byteLength) return;
    onPiece(chunk);
    yield chunk;
    offset += chunk.byteLength;
  }
}
