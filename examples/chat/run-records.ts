/**
 * What a run keeps on disk beside the KV: its plan, once, and the state of each chat after each
 * turn. Both are ordinary tensors that are saved and freed; saving again replaces the record whole.
 */
import { CorruptionError, type TensorMemory } from "tierheap";
import type { ChatState } from "./conversation.js";
import { prefixOf } from "./kv-store.js";
import type { ChatPrompts } from "./prompts.js";
import type { Visit } from "./schedule.js";

/** Everything that decides which tokens a run must give. */
export interface RunPlan {
  readonly visits: readonly Visit[];
  readonly prompts: readonly ChatPrompts[];
  readonly answerTokens: number;
}

const PLAN_ID = "run/plan";

/** The disk is full where a record had to be written. */
export class DiskFullError extends Error {
  constructor() {
    super("the SSD tier is full: raise --ssd, or free some disk");
  }
}

/**
 * Saves bytes under an id, in place of what was saved there before; they leave RAM at once.
 *
 * @throws {DiskFullError}
 */
export async function saveBytes(
  memory: TensorMemory,
  id: string,
  bytes: Uint8Array,
): Promise<void> {
  await memory.reserve({ kind: "KV_CACHE", bytes: bytes.byteLength });
  const tensor = memory.allocate({ kind: "KV_CACHE", id, byteLength: bytes.byteLength });
  try {
    const pin = tensor.pin();
    pin.view.set(bytes);
    pin[Symbol.dispose]();
    if ((await memory.save(id, { mode: "durable" })) === "no-space") throw new DiskFullError();
  } finally {
    tensor.free();
  }
}

/** @returns null when there is no such record, or a damaged one. */
export async function loadBytes(memory: TensorMemory, id: string): Promise<Uint8Array | null> {
  try {
    const lease = await memory.acquire<"u8">(id, { access: "read" });
    if (lease === null) return null;
    const bytes = lease.view.slice();
    lease[Symbol.dispose]();
    memory.free(id);
    return bytes;
  } catch (error) {
    if (error instanceof CorruptionError) {
      // A damaged header never became a tensor.
      if (memory.tensor(id) !== null) memory.free(id);
      return null;
    }
    throw error;
  }
}

export async function savePlan(memory: TensorMemory, plan: RunPlan): Promise<void> {
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  const prompts = plan.prompts.map(({ opening, followUps }) => [opening, ...followUps].map(text));
  const json = JSON.stringify({ version: 1, ...plan, prompts });
  await saveBytes(memory, PLAN_ID, Buffer.from(json));
}

export async function loadPlan(memory: TensorMemory): Promise<RunPlan | null> {
  const bytes = await loadBytes(memory, PLAN_ID);
  if (bytes === null) return null;
  const plan = JSON.parse(Buffer.from(bytes).toString()) as Omit<RunPlan, "prompts"> & {
    prompts: string[][];
  };
  return {
    visits: plan.visits,
    answerTokens: plan.answerTokens,
    prompts: plan.prompts.map((lines) => {
      const [opening, ...followUps] = lines.map(
        (line) => new Uint8Array(Buffer.from(line, "base64")),
      );
      return { opening: opening as Uint8Array, followUps };
    }),
  };
}

/** Words: turn, cached tokens, then the tokens. */
export async function saveState(memory: TensorMemory, state: ChatState): Promise<void> {
  const words = Uint32Array.of(state.turn, state.cachedTokens, ...state.tokens);
  await saveBytes(memory, `${prefixOf(state.chat)}state`, new Uint8Array(words.buffer));
}

export async function loadState(memory: TensorMemory, chat: number): Promise<ChatState | null> {
  const bytes = await loadBytes(memory, `${prefixOf(chat)}state`);
  if (bytes === null) return null;
  const [turn, cachedTokens, ...tokens] = new Uint32Array(bytes.buffer, 0, bytes.byteLength / 4);
  return { chat, turn: turn as number, cachedTokens: cachedTokens as number, tokens };
}

/** Deletes everything that this program has ever saved under this model. @returns Records deleted. */
export async function deleteRun(memory: TensorMemory): Promise<number> {
  let count = 0;
  for await (const { id } of memory.list()) {
    if (await memory.delete(id)) count += 1;
  }
  return count;
}
