// The lossless codec beside zstd, level 1, on the same planes, and on the bytes as they are.
import { compress, decompress, init } from "@bokuweb/zstd-wasm";
import { CodecEngine } from "../../../dist/src/codec/engine.js";
import { CodecWorkspace } from "../../../dist/src/core/codec-workspace.js";
import { createUnsharedMemory } from "../../../dist/src/core/linear-memory.js";
import { makeHead } from "../data/heads.mjs";
import { atLeast, median, pair, plain, speedup } from "../timing.mjs";

const HEADS = ["mid", "mid2", "sharp", "diffuse", "strong-outlier", "no-outlier"];
const CHUNK_BYTES = 262144;
const PIECE_BYTES = CHUNK_BYTES / 2;
const TARGETS = { keys: 1.465, values: 1.493 };

/** f32 to bf16, rounded, as bytes. */
function brains(parts) {
  const count = parts.reduce((sum, part) => sum + part.length, 0);
  const halves = new Uint16Array(count);
  let at = 0;
  for (const part of parts) {
    for (const bits of new Uint32Array(part.slice().buffer)) {
      halves[at++] = (bits + 0x7fff + ((bits >> 16) & 1)) >>> 16;
    }
  }
  return new Uint8Array(halves.buffer);
}

function planesOf(bytes) {
  const halves = new Uint16Array(bytes.buffer);
  const low = new Uint8Array(halves.length);
  const high = new Uint8Array(halves.length);
  halves.forEach((half, i) => {
    const turned = (half << 1) | (half >> 15);
    low[i] = turned;
    high[i] = turned >> 8;
  });
  // In the pieces that our chunks have.
  return [low, high].flatMap((plane) => {
    const pieces = [];
    for (let at = 0; at < plane.length; at += PIECE_BYTES) {
      pieces.push(plane.subarray(at, at + PIECE_BYTES));
    }
    return pieces;
  });
}

export async function run({ isQuick }) {
  await init();
  const workspace = await CodecWorkspace.create(2 ** 26, createUnsharedMemory);
  const engine = new CodecEngine(workspace);
  const heads = HEADS.map((type) => makeHead(type, 100, { queryCount: 64 }));
  const tensors = {
    keys: brains(heads.map(({ keys }) => keys)),
    values: brains(heads.map(({ values }) => values)),
  };
  const figures = [];
  for (const [name, bytes] of Object.entries(tensors)) {
    const matrix = { bytes, dtype: "bf16", rows: bytes.byteLength / 256, columns: 128 };
    const unit = engine.encode(matrix, { codec: "plane" });
    const back = engine.decode(unit.bytes);
    if (Buffer.compare(back.bytes, bytes) !== 0) throw new Error("plane is not lossless");
    const ratio = bytes.byteLength / unit.bytes.byteLength;
    const planes = planesOf(bytes);
    const packed = planes.map((plane) => compress(plane, 1));
    packed.forEach((each, i) => {
      if (Buffer.compare(decompress(each), planes[i]) !== 0)
        throw new Error("zstd is not lossless");
    });
    const theirs = bytes.byteLength / packed.reduce((sum, each) => sum + each.byteLength, 0);
    const raw = bytes.byteLength / compress(bytes, 1).byteLength;
    const beside = `zstd-wasm 1: planes ${theirs.toFixed(3)}, raw ${raw.toFixed(3)}`;
    figures.push(atLeast(`plane-ratio-bf16/${name}`, ratio, TARGETS[name], beside));
    // One chunk at a time, as a page that is demoted or comes back.
    const part = { ...matrix, bytes: bytes.subarray(0, CHUNK_BYTES), rows: CHUNK_BYTES / 256 };
    const chunk = engine.encode(part, { codec: "plane" }).bytes;
    const target = new Uint8Array(CHUNK_BYTES);
    const samples = pair(
      {
        encode: () => engine.encode(part, { codec: "plane" }),
        "zstd-encode": () => {
          compress(planes[0], 1);
          compress(planes[planes.length / 2], 1);
        },
        decode: () => engine.decodeInto(chunk, target),
        "zstd-decode": () => {
          decompress(packed[0]);
          decompress(packed[planes.length / 2]);
        },
      },
      { rounds: isQuick ? 40 : 200, repeats: 1, warmUp: 30 },
    );
    const speed = (key) => `${(CHUNK_BYTES / median(samples[key]) / 1e3).toFixed(0)} MB/s`;
    const encode = speedup(samples, "encode", "zstd-encode");
    const decode = speedup(samples, "decode", "zstd-decode");
    const id = `over-zstd/${name}`;
    figures.push(
      atLeast(
        `plane-encode-${id}`,
        encode,
        2.2,
        `${speed("encode")}, theirs ${speed("zstd-encode")}`,
      ),
      atLeast(
        `plane-decode-${id}`,
        decode,
        1.9,
        `${speed("decode")}, theirs ${speed("zstd-decode")}`,
      ),
    );
  }
  const halves = makeHead("mid", 100, { queryCount: 64 }).keys;
  const f32 = { bytes: new Uint8Array(halves.buffer), dtype: "f32", rows: 2048, columns: 128 };
  const unit = engine.encode(f32, { codec: "plane" });
  figures.push(
    plain("plane-ratio-f32/keys", f32.bytes.byteLength / unit.bytes.byteLength, "ratio"),
  );
  return { figures };
}
