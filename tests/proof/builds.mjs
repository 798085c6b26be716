// Control planes of every build of the core, with the memory that each takes.
import { readFile } from "node:fs/promises";
import * as abi from "../../dist/assembly/abi.js";
import { ControlPlane } from "../../dist/src/core/control-plane.js";
import { arenaMetadataBytesMax } from "../../dist/src/core/metadata-bytes.js";

const root = new URL("../../", import.meta.url);

/** Builds of the core, by the name of their file. */
export const BUILDS = ["core", "core.shared", "core.debug", "core.debug.shared"];

const createShared = (pages) =>
  new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
const createUnshared = (pages) => new WebAssembly.Memory({ initial: pages, maximum: pages });

const compiled = new Map();

/** The module of a build, compiled once. */
export function moduleOf(build) {
  if (!compiled.has(build)) {
    const binary = readFile(new URL(`build/${build}.wasm`, root));
    compiled.set(
      build,
      binary.then((bytes) => WebAssembly.compile(bytes)),
    );
  }
  return compiled.get(build);
}

/**
 * A control plane without arenas.
 *
 * @param {object} options
 * @param {string} options.build
 * @param {readonly {capacityBytes: number, granuleShift: number}[]} options.arenas That are to be
 *   open at a time.
 * @param {number} options.slotCount Most blocks live at once.
 * @param {WebAssembly.Module} [options.wasm] In place of the build's own.
 * @returns {Promise<{plane: any, memory: WebAssembly.Memory, base: number}>}
 */
export async function openPlane({ build, arenas, slotCount, wasm }) {
  const metadataBytes = arenas.reduce(
    (sum, { capacityBytes, granuleShift }) =>
      sum + arenaMetadataBytesMax(capacityBytes, 2 ** granuleShift, capacityBytes),
    0,
  );
  /** @type {any} */
  let memory;
  const module = wasm ?? (await moduleOf(build));
  const plane = await ControlPlane.create({
    slotCapacity: slotCount + 1,
    arenaCapacity: arenas.length + 1,
    metadataBytes,
    createMemory: (pages) => {
      memory = build.includes("shared") ? createShared(pages) : createUnshared(pages);
      return memory;
    },
    wasm: module,
  });
  const core = instantiate(module, memory);
  return { plane, memory, base: core.controlHeapBase() };
}

/** The exports of a build of the core, as the lane that made the plane. */
export function instantiate(module, memory) {
  const imports = { env: { memory }, lock: { LANE: abi.LANE_FIRST } };
  return new WebAssembly.Instance(module, imports).exports;
}

/** Word of the status of the last refusal, in `words` of the control memory. */
export function statusWordOf(words, base) {
  const lanes = words[(base + abi.CONTROL_OFF_LANES) / 4];
  if (lanes === 0) return (base + abi.CONTROL_OFF_STATUS) / 4;
  return (base + lanes + abi.LANE_FIRST * abi.LANE_BYTES + abi.LANE_OFF_STATUS) / 4;
}

/** Words of the control memory that a refusal may change: its status, and the counters of the lock. */
export function noteWordsOf(words, base) {
  const counters = [
    abi.CONTROL_OFF_LOCK_ENTERED,
    abi.CONTROL_OFF_LOCK_CONTENDED,
    abi.CONTROL_OFF_LOCK_REFUSED,
  ];
  return new Set([statusWordOf(words, base), ...counters.map((offset) => (base + offset) / 4)]);
}
