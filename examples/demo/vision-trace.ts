// Requests of a vision-language model, as an allocator sees them: features of an image, embeddings of a
// prompt, activations that come and go, and a KV cache that grows and is taken up again later.
//
// Shapes are those of Qwen3-VL-2B; the KV of four of its 28 layers stands for all, so that a tab has room.
// Source: Qwen3-VL-2B-Instruct, config.json — hidden 2048, intermediate 6144, 8 KV heads of 128, patches
// of 16 merged two by two, three DeepStack levels.
import type { Random, Tensor, TensorKind, TensorMemory } from "tierheap";
import { between, type Workload } from "./workload.js";

const HIDDEN = 2048;
const INTERMEDIATE = 6144;
const KV_HEADS = 8;
const HEAD_DIM = 128;
const LAYERS_SHOWN = 4;
const PAGE_TOKENS = 16;
const BF16_BYTES = 2;
const DEEPSTACK_LEVELS = 3;
/** Edge of an image in patches after merging: an image of 32 times as many pixels. */
const IMAGE_EDGES = { least: 8, most: 14 };
const SESSION_COUNT = 7;
const SESSION_TOKENS_MAX = 900;
/** Words of every page that are compared when it comes back. */
const CHECKED_WORDS = 64;

const PAGE_SHAPE = [2, KV_HEADS, PAGE_TOKENS, HEAD_DIM];
const PAGE_BYTES = PAGE_SHAPE.reduce((product, length) => product * length, BF16_BYTES);

interface Session {
  readonly name: string;
  /** Ids of its KV pages, oldest first, layer by layer. */
  readonly pages: string[];
  tokens: number;
  /** Tokens until it falls silent. */
  left: number;
  readonly featureIds: string[];
}

let openedCount = 0;

export class VisionTrace implements Workload {
  readonly #memory: TensorMemory;
  readonly #random: Random;
  /** Names of one visit are not those of another. */
  readonly #run = `trace/${Date.now().toString(36)}${(openedCount++).toString(36)}`;
  readonly #sessions: Session[] = [];
  readonly #noise: Uint16Array;
  #active: Session | null = null;
  #sessionCount = 0;
  #tokenCount = 0;
  #equalCount = 0;
  #damagedCount = 0;
  #lostCount = 0;

  constructor(memory: TensorMemory, random: Random) {
    this.#memory = memory;
    this.#random = random;
    this.#noise = new Uint16Array(PAGE_BYTES / BF16_BYTES + 4096);
    // Values such as keys have: small, of either sign.
    for (let index = 0; index < this.#noise.length; index++) {
      const word = random.uint32();
      this.#noise[index] =
        ((word & 1) << 15) | ((0x7a + ((word >>> 1) % 6)) << 7) | ((word >>> 8) & 0x7f);
    }
  }

  get summary(): string {
    const { length } = this.#sessions;
    const tokens = this.#tokenCount.toLocaleString("en");
    const pages = this.#equalCount.toLocaleString("en");
    const bad = this.#damagedCount + this.#lostCount;
    const damage = bad === 0 ? "" : `, ${bad} not`;
    return `${length} requests open, ${tokens} tokens so far; ${pages} KV pages found again and equal${damage}`;
  }

  async step(): Promise<void> {
    const session = this.#active;
    if (session === null) await this.#next();
    else if (session.left <= 0) await this.#fallSilent(session);
    else await this.#decode(session);
  }

  async end(): Promise<void> {
    for (const session of this.#sessions.splice(0)) await this.#forget(session);
    this.#active = null;
  }

  /** Takes up a request of before, or begins one. */
  async #next(): Promise<void> {
    const hasRoom = this.#sessions.length < SESSION_COUNT;
    const index = this.#random.uint32() % Math.max(1, this.#sessions.length);
    const session = hasRoom ? undefined : this.#sessions[index];
    if (session === undefined) {
      this.#active = await this.#prefill();
    } else if (session.tokens > SESSION_TOKENS_MAX) {
      this.#sessions.splice(index, 1);
      await this.#forget(session);
    } else {
      await this.#takeUp(session);
      session.left = between(this.#random, 24, 96);
      this.#active = session;
    }
  }

  async #prefill(): Promise<Session> {
    const name = `${this.#run}/${this.#sessionCount++}`;
    const { least, most } = IMAGE_EDGES;
    const imageTokens = between(this.#random, least, most) * between(this.#random, least, most);
    const textTokens = between(this.#random, 24, 160);
    const tokens = imageTokens + textTokens;
    const session: Session = { name, pages: [], tokens: 0, left: 0, featureIds: [] };
    this.#sessions.push(session);
    for (let level = 0; level <= DEEPSTACK_LEVELS; level++) {
      const id = `${name}/image.${level}`;
      const shape = [imageTokens, HIDDEN];
      await this.#memory.reserve({
        kind: "IMAGE_FEATURES",
        bytes: imageTokens * HIDDEN * BF16_BYTES,
      });
      this.#memory.allocate({ kind: "IMAGE_FEATURES", id, shape, dtype: "bf16", disposable: true });
      session.featureIds.push(id);
    }
    const scratch = [
      this.#scratch("TEXT_EMBEDDINGS", [textTokens, HIDDEN]),
      this.#scratch("ACTIVATIONS", [tokens, INTERMEDIATE]),
    ];
    try {
      for (let done = 0; done < tokens; done += PAGE_TOKENS) await this.#addPages(session);
    } finally {
      for (const tensor of scratch) tensor?.free();
    }
    session.tokens = tokens;
    session.left = between(this.#random, 48, 160);
    return session;
  }

  /** Its image is not needed any more: what it says is in the KV. */
  async #fallSilent(session: Session): Promise<void> {
    this.#active = null;
    for (const id of session.featureIds.splice(0)) await this.#memory.delete(id);
  }

  /** One token: activations come and go, and every sixteenth token needs another page. */
  async #decode(session: Session): Promise<void> {
    this.#scratch("ACTIVATIONS", [1, INTERMEDIATE])?.free();
    session.tokens += 1;
    session.left -= 1;
    this.#tokenCount += 1;
    const pageCount = session.pages.length / LAYERS_SHOWN;
    if (pageCount * PAGE_TOKENS < session.tokens) await this.#addPages(session);
  }

  /** A step's own tensor; where there is no room a real model would wait, this one goes without. */
  #scratch(kind: TensorKind, shape: number[]): Tensor | null {
    return this.#memory.tryAllocate({ kind, shape, dtype: "bf16" });
  }

  /** The next tokens' page, in each layer. */
  async #addPages(session: Session): Promise<void> {
    const number = session.pages.length / LAYERS_SHOWN;
    for (let layer = 0; layer < LAYERS_SHOWN; layer++) {
      const id = `${session.name}/kv.${number}.${layer}`;
      await this.#memory.reserve({ kind: "KV_CACHE", bytes: PAGE_BYTES });
      const place = { kind: "KV_CACHE", id, shape: PAGE_SHAPE, dtype: "bf16" } as const;
      const tensor = this.#memory.allocate(place);
      session.pages.push(id);
      using pin = tensor.pin();
      pin.view.set(this.#wordsOf(id));
    }
  }

  /** The words that a page must hold follow from its name. */
  #wordsOf(id: string): Uint16Array {
    let from = 0;
    for (let index = 0; index < id.length; index++)
      from = (from * 31 + id.charCodeAt(index)) % 4096;
    return this.#noise.subarray(from, from + PAGE_BYTES / BF16_BYTES);
  }

  /** Its user is back: all pages are needed, and each must be what it was. */
  async #takeUp(session: Session): Promise<void> {
    for (const id of session.pages) {
      using lease = await this.#memory.acquire<"bf16">(id, {
        access: "read",
        stream: session.name,
      });
      if (lease === null) {
        this.#lostCount += 1;
        continue;
      }
      const words = this.#wordsOf(id);
      const stride = Math.floor(words.length / CHECKED_WORDS);
      let isEqual = true;
      for (let at = 0; at < words.length; at += stride) isEqual &&= lease.view[at] === words[at];
      if (isEqual) this.#equalCount += 1;
      else this.#damagedCount += 1;
    }
  }

  async #forget({ pages, featureIds }: Session): Promise<void> {
    for (const id of [...pages, ...featureIds]) await this.#memory.delete(id);
  }
}
