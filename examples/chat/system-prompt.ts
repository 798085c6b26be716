/**
 * What every chat begins with. Each chat has it as a tensor of its own, for what it says belongs to the chat;
 * the heap keeps equal contents once.
 */
import type { TensorMemory } from "tierheap";
import { prefixOf } from "./kv-store.js";

/** In bytes of ASCII: four pages of KV. */
export const SYSTEM_PROMPT = new TextEncoder().encode(
  "System: You help readers of a software project. Answer in plain words, say what you do not know, and keep to the passage that is given. Do not repeat the question. Prefer short sentences. When a term needs a definition, give it where the term is first used.\n".padStart(
    256,
  ),
);

const idOf = (chat: number) => `${prefixOf(chat)}system`;

/** Gives each of the chats its system prompt. */
export async function shareSystemPrompts(memory: TensorMemory, chats: number): Promise<void> {
  // Beside the KV: a kind of its own would take a whole arena of a small budget.
  const prompt = { kind: "KV_CACHE", byteLength: SYSTEM_PROMPT.length } as const;
  for (let chat = 0; chat < chats; chat++) {
    await memory.intern({ ...prompt, id: idOf(chat), bytes: SYSTEM_PROMPT });
  }
}

/** The system prompt of a chat, from the heap. */
export async function readSystemPrompt(memory: TensorMemory, chat: number): Promise<Uint8Array> {
  const lease = await memory.acquire<"u8">(idOf(chat), { access: "read" });
  if (lease === null) throw new Error(`chat ${chat} has no system prompt`);
  const bytes = lease.view.slice();
  lease[Symbol.dispose]();
  return bytes;
}
