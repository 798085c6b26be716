// One session of the soak: chats, tensors of every kind of life, and what a program does around them,
// by a seeded generator. Every byte that comes back is compared with what went in.
import { CorruptionError, OutOfMemoryError } from "tierheap";
import { openKvCaches } from "tierheap/kv";

const LAYERS = [
  { heads: 1, headDim: 64, dtype: "f32" },
  { heads: 1, headDim: 64, dtype: "f32" },
];
const PROMPT = Array.from({ length: 160 }, (_, index) => 7 + index);
const CHAT_COUNT = 16;
const CHAT_TOKENS_MAX = 900;
const TENSOR_COUNT_MAX = 200;
const KINDS = ["KV_CACHE", "IMAGE_FEATURES", "TEXT_EMBEDDINGS", "ACTIVATIONS"];

/** The rows of a token tell which one it is, and in which layer they are. */
function rowsOf(tokens) {
  return LAYERS.map(({ headDim }, layer) => {
    const keys = new Float32Array(headDim * tokens.length);
    tokens.forEach((token, index) => {
      keys.fill(token + layer / 2, headDim * index, headDim * (index + 1));
    });
    return { keys, values: keys };
  });
}

function fill(tensor, byte) {
  const pin = tensor.pin();
  pin.bytes.fill(byte);
  pin[Symbol.dispose]();
}

export class SoakSession {
  counts = { visits: 0, tensors: 0, steps: 0, refused: 0, wrong: 0, lost: 0 };
  #memory;
  #random;
  #caches;
  #chats = Array.from({ length: CHAT_COUNT }, () => ({ tokens: [], isSaved: false }));
  /** Named tensors by id: the byte that fills them. */
  #named = new Map();
  #nextId = 0;

  constructor(memory, random) {
    this.#memory = memory;
    this.#random = random;
    this.#caches = openKvCaches(memory, { fingerprint: "soak", layers: LAYERS });
  }

  #below(limit) {
    return this.#random.uint32() % limit;
  }

  /** One operation, drawn at random. What does not fit is counted and left. */
  async step() {
    this.counts.steps += 1;
    const works = [
      () => this.#visit(),
      () => this.#visit(),
      () => this.#add(),
      () => this.#add(),
      () => this.#use(),
      () => this.#use(),
      () => this.#free(),
      () => this.#share(),
      () => this.#pass(),
      () => this.#around(),
    ];
    try {
      await works[this.#below(works.length)]();
    } catch (error) {
      if (error instanceof CorruptionError) this.counts.lost += 1;
      else if (error instanceof OutOfMemoryError) this.counts.refused += 1;
      else throw error;
    }
  }

  /** A turn of a chat: what is known of it comes back, the rest is computed again, some is new. */
  async #visit() {
    const chat = this.#chats[this.#below(CHAT_COUNT)];
    if (chat.tokens.length > CHAT_TOKENS_MAX) chat.tokens.length = 0;
    if (chat.tokens.length === 0) chat.tokens.push(...PROMPT);
    const cache = await this.#caches.restore({ tokens: chat.tokens });
    try {
      const found = cache.tokenCount;
      const into = new Float32Array(64);
      for (let look = 0; look < Math.min(3, found); look++) {
        const at = this.#below(found);
        await cache.read(1, "keys", at, at + 1, into);
        if (into.some((value) => value !== chat.tokens[at] + 0.5)) this.counts.wrong += 1;
      }
      for (let count = 16 + this.#below(64); count > 0; count--) {
        chat.tokens.push(this.#below(50_000));
      }
      const rest = chat.tokens.slice(found);
      await cache.append(rest, rowsOf(rest));
      if (this.#below(4) === 0) cache.fork().free();
      if (this.#below(4) === 0) {
        await cache.truncate(cache.tokenCount - 8);
        chat.tokens.length = cache.tokenCount;
      }
      if (this.#below(6) === 0) await this.#caches.save(cache, `chat-${this.#below(4)}`);
      this.counts.visits += 1;
    } finally {
      cache.free();
    }
  }

  async #add() {
    const kind = KINDS[this.#below(KINDS.length)];
    if (this.#named.size >= TENSOR_COUNT_MAX) await this.#free();
    const byteLength = 1 + this.#below(this.#below(8) === 0 ? 700_000 : 60_000);
    const id = `tensor/${this.#nextId++}`;
    const disposable = this.#below(4) === 0;
    await this.#memory.reserve({ kind, bytes: byteLength });
    const tensor = this.#memory.allocate({ kind, id, byteLength, disposable });
    this.#named.set(id, { fill: this.#nextId & 0xff, disposable });
    fill(tensor, this.#nextId & 0xff);
    this.counts.tensors += 1;
    const next = this.#below(10);
    if (next < 2) await this.#memory.swapOut(id);
    else if (next < 4) await this.#memory.save(id, { ttlMs: 3_600_000 });
  }

  #anyId() {
    const ids = [...this.#named.keys()];
    return ids[this.#below(Math.max(1, ids.length))];
  }

  async #use() {
    const id = this.#anyId();
    if (id === undefined) return;
    const ids = [id, this.#anyId(), this.#anyId()];
    if (this.#below(4) === 0) await this.#memory.prefetch(ids);
    const signal = this.#below(8) === 0 ? AbortSignal.timeout(60_000) : undefined;
    const lease = await this.#memory.acquire(id, { access: "read", stream: "soak", signal });
    const { fill, disposable } = this.#named.get(id);
    if (lease === null) {
      if (!disposable) this.counts.wrong += 1;
      this.#memory.free(id);
      this.#named.delete(id);
      return;
    }
    if (lease.bytes.some((byte) => byte !== fill)) this.counts.wrong += 1;
    lease[Symbol.dispose]();
  }

  async #free() {
    const id = this.#anyId();
    if (id === undefined) return;
    this.#named.delete(id);
    if (this.#below(2) === 0) await this.#memory.delete(id);
    else {
      this.#memory.free(id);
      await this.#memory.delete(id);
    }
  }

  /** Equal contents under several ids, one of which is written. */
  async #share() {
    const bytes = new Uint8Array(20_000).fill(this.#below(256));
    const of = (id) => ({ kind: "IMAGE_FEATURES", id, byteLength: bytes.length, bytes });
    const base = `shared/${this.#nextId++}`;
    const tensors = [];
    try {
      tensors.push(await this.#memory.intern(of(`${base}/a`)));
      tensors.push(await this.#memory.intern(of(`${base}/b`)));
      tensors.push(await this.#memory.tie(`${base}/c`, `${base}/a`));
      fill(tensors[1], 1);
    } finally {
      for (const tensor of tensors) tensor.free();
    }
  }

  /** What a forward pass makes and leaves: a scope, a fixed shape, a plan. */
  async #pass() {
    const scope = this.#memory.scope("pass");
    for (let count = 20; count > 0; count--) {
      scope.allocate({ kind: "ACTIVATIONS", byteLength: 1 + this.#below(9000) });
    }
    const pool = this.#memory.fixedShapePool({ kind: "ACTIVATIONS", shape: [64], dtype: "f32" });
    for (let count = 3; count > 0; count--) pool.allocate().free();
    const recorder = this.#memory.recordPlan({ kind: "ACTIVATIONS" });
    recorder.allocate({ shape: [256], dtype: "f32" }).free();
    const plan = recorder.finish();
    plan.begin();
    plan.next([256], "f32");
    plan.end();
    for (const held of [plan, pool, scope]) held[Symbol.dispose]();
  }

  /** What is done now and then beside the work. */
  async #around() {
    const controller = new AbortController();
    const events = this.#memory.events({ signal: controller.signal });
    const told = events.next();
    this.#memory.compact({ bytesMovedMax: 1 << 20 });
    this.#memory.stats();
    controller.abort();
    await told;
    if (this.#below(8) === 0) this.#memory.trim();
  }

  /** Gives up everything that the session has made. */
  async end() {
    await this.#caches.clear();
    this.#caches.close();
    for (const id of this.#named.keys()) {
      if (this.#memory.tensor(id) !== null) this.#memory.free(id);
    }
    this.#named.clear();
    for await (const { id } of this.#memory.list()) await this.#memory.delete(id);
  }
}
