// The remote tier on a real server: the seam's suite, a memory on top of it, and a network that fails.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/clock.js";
import { TierError } from "../../src/errors.js";
import { systemRandom } from "../../src/random.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { type TierFixture, tierConformance } from "../../src/testing/index.js";
import { type RedisTierOptions, redisTier } from "../../src/tier/redis.js";
import type { Tier } from "../../src/tier/tier.js";
import { type FaultyProxy, type ProxyFault, startProxy } from "../support/faulty-proxy.js";
import { closeMemory, openMemory } from "../support/oracle.js";
import {
  freePort,
  NO_REDIS,
  type RedisServer,
  startCluster,
  startRedis,
} from "../support/redis-server.js";
import { keyOf, objectOf, put, SWAPPED, versionAt } from "../support/stacks.js";

const MIB = 2 ** 20;
const TIMEOUT_MS = 200;
/** Where nothing fails: the machine may be busy. */
const PATIENT_MS = 20_000;
const parts = { clock: systemClock, random: systemRandom };
const code = (name: string) => expect.objectContaining({ code: name });

let server: RedisServer;
let prefixCount = 0;

const nextPrefix = () => `test-${++prefixCount}`;
const tierOn = (options: RedisTierOptions, capacityBytes = 2 ** 30): Tier =>
  redisTier({ timeoutMs: PATIENT_MS, ...options })({ ...parts, capacityBytes });

async function open(options: RedisTierOptions, capacityBytes?: number): Promise<Tier> {
  const tier = tierOn(options, capacityBytes);
  await tier.open();
  return tier;
}

if (NO_REDIS !== undefined) console.log(`the remote tier is not tested: ${NO_REDIS}`);

describe.skipIf(NO_REDIS !== undefined)(`Redis${NO_REDIS ? ` (${NO_REDIS})` : ""}`, () => {
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(async () => {
    await server.stop();
  });

  const suites: readonly [string, () => RedisTierOptions][] = [
    ["over a socket", () => ({ socketPath: server.socketPath, prefix: nextPrefix() })],
    [
      "over TCP, in short chunks",
      () => ({
        url: `redis://127.0.0.1:${suiteProxy.port}`,
        prefix: "a*b[c]",
        chunkBytes: 1024,
        // What a failed deletion takes, and all others may take.
        timeoutMs: 5 * TIMEOUT_MS,
      }),
    ],
  ];
  let suiteProxy: FaultyProxy;
  beforeAll(async () => {
    suiteProxy = await startProxy(server.port, 3 * TIMEOUT_MS);
  });
  afterAll(async () => {
    await suiteProxy.stop();
  });
  for (const [name, makeOptions] of suites) {
    describe(`Tier: Redis ${name}`, () => {
      const make = async ({ capacityBytes }: { capacityBytes: number }): Promise<TierFixture> => {
        await server.ask("FLUSHALL");
        const options = makeOptions();
        const again = () => tierOn(options, capacityBytes);
        const failDeletions = (isFailing: boolean) => {
          suiteProxy.fault = isFailing ? "hang" : "none";
        };
        return {
          tier: again(),
          reopened: async () => again(),
          ...("url" in options ? { failDeletions } : {}),
          dispose: async () => {},
        };
      };
      const lacks = name.includes("socket") ? { failures: "no proxy is between" } : {};
      for (const { name: each, skip, run } of tierConformance(make, lacks)) {
        if (skip === undefined) it(each, run);
        else it.skip(`${each} (${skip})`, () => {});
      }
    });
  }

  it("keeps the keys of an object in one slot of a cluster", async () => {
    const prefix = nextPrefix();
    const tier = await open({ url: server.url, prefix, chunkBytes: 1024 });
    await put(tier, 1, objectOf(1, 1, 5000));
    const names = (await server.ask("KEYS", `${prefix}:*`)).match(/test-\S+/g) ?? [];
    expect(names.length).toBe(6);
    const tags = new Set(names.map((name) => /\{(.*?)\}/.exec(name)?.[1]));
    expect([...tags]).toEqual([keyOf(1)]);
    await tier.delete(keyOf(1));
    expect(await server.ask("KEYS", `${prefix}:*`)).toBe("*0\r\n");
    await tier.close();
  });

  describe("on a cluster of three servers", () => {
    let cluster: Awaited<ReturnType<typeof startCluster>>;
    beforeAll(async () => {
      cluster = await startCluster(3);
    }, 60_000);
    afterAll(async () => {
      await cluster.stop();
    });
    const everywhere = (...words: readonly string[]) =>
      Promise.all(cluster.nodes.map((node) => node.ask(...words)));
    const places = () => cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port }));

    const make = async ({ capacityBytes }: { capacityBytes: number }): Promise<TierFixture> => {
      await everywhere("FLUSHALL");
      const options = { nodes: places().slice(0, 1), chunkBytes: 4096, timeoutMs: 2 * TIMEOUT_MS };
      const again = () => tierOn(options, capacityBytes);
      return {
        tier: again(),
        reopened: async () => again(),
        failDeletions: async (isFailing) => {
          if (isFailing) await everywhere("CLIENT", "PAUSE", "60000", "WRITE");
          else await everywhere("CLIENT", "UNPAUSE");
        },
        dispose: async () => {},
      };
    };
    for (const { name, skip, run } of tierConformance(make)) {
      if (skip === undefined) it(name, run);
      else it.skip(`${name} (${skip})`, () => {});
    }

    it("spreads objects over the servers, and asks the right one", async () => {
      await everywhere("FLUSHALL");
      const count = 60;
      const tier = await open({ nodes: places(), chunkBytes: 1024 });
      for (let key = 0; key < count; key++) await put(tier, key, objectOf(key, 1, 3000));
      const sizes = (await everywhere("DBSIZE")).map((reply) => Number(reply.slice(1)));
      // A commit record and three chunks each; no server has few of them.
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(4 * count);
      expect(Math.min(...sizes)).toBeGreaterThan((4 * count) / 10);
      for (let key = 0; key < count; key++) expect(await versionAt(tier, key)).toBe(1);
      const redirects = await everywhere("INFO", "errorstats");
      expect(redirects.join("")).not.toContain("MOVED");
      await tier.close();
      const again = await open({ nodes: places().slice(2) });
      expect(again.stats().objectCount).toBe(count);
      for (let key = 0; key < count; key++) expect(await again.delete(keyOf(key))).toBe(true);
      expect(await everywhere("DBSIZE")).toEqual([":0\r\n", ":0\r\n", ":0\r\n"]);
      await again.close();
    });
  });

  it("lets the server drop what has expired", async () => {
    const prefix = nextPrefix();
    // Long enough for the two objects and a look at one of them on a busy machine.
    const ttlMs = 800;
    const tier = await open({ url: server.url, prefix, ttlMs }, 1000);
    await put(tier, 1, objectOf(1, 1, 800));
    await put(tier, 2, objectOf(2, 1, 100), { ...SWAPPED, expiresMs: Date.now() + 60_000 });
    expect(await versionAt(tier, 1)).toBe(1);
    await systemClock.sleep(ttlMs + 100);
    // The room is there again, before anybody has looked.
    expect(await put(tier, 3, objectOf(3, 1, 900))).toBe("stored");
    expect(await versionAt(tier, 1)).toBe(0);
    expect(await versionAt(tier, 2)).toBe(0);
    const left = () => server.ask("KEYS", `${prefix}:*`);
    await expect.poll(left, { timeout: 10_000 }).toBe("*0\r\n");
    await tier.close();
  });

  it("never shows what was cut off, and sweeps it", async () => {
    const prefix = nextPrefix();
    const options = { url: server.url, prefix, chunkBytes: 1024 };
    const tier = await open(options);
    await put(tier, 1, objectOf(1, 1, 3000));
    const writer = await tier.begin(keyOf(1), 5000);
    if (writer === "no-space") throw new Error("no room");
    await writer.write(objectOf(1, 2, 5000));
    // The process is gone before the commit.
    const again = await open(options);
    expect(await versionAt(again, 1)).toBe(1);
    expect((await server.ask("KEYS", `${prefix}:*`)).startsWith("*4\r\n")).toBe(true);
    await again.close();
    await tier.close();
  });

  it("says that there is no space when the server says so", async () => {
    const small = await startRedis(["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]);
    try {
      const tier = await open({ url: small.url });
      let storedCount = 0;
      for (let key = 0; key < 20; key++) {
        if ((await put(tier, key, objectOf(key, 1, 256 * 1024))) === "stored") storedCount += 1;
      }
      expect(storedCount).toBeGreaterThan(0);
      expect(storedCount).toBeLessThan(20);
      for (let key = 0; key < storedCount; key++) expect(await versionAt(tier, key)).toBe(1);
      await tier.close();
    } finally {
      await small.stop();
    }
  });

  it("refuses options that mean nothing", () => {
    for (const options of [
      {},
      { url: "redis://x", socketPath: "/x" },
      { nodes: [] },
      { url: "redis://x", prefix: "a{b}" },
      { url: "redis://x", timeoutMs: 0 },
      { url: "redis://x", ttlMs: 0 },
      { url: "redis://x", chunkBytes: 5 },
    ]) {
      expect(() => redisTier(options), JSON.stringify(options)).toThrow(code("bad-option"));
    }
  });

  describe("as a memory's lowest tier", () => {
    function fill(memory: TensorMemory, id: string, value: number, byteLength = MIB / 4) {
      const tensor = memory.allocate({ kind: "KV_CACHE", id, byteLength });
      using pin = tensor.pin();
      pin.view.fill(value);
    }
    async function holds(memory: TensorMemory, id: string, value: number): Promise<boolean> {
      using lease = await memory.acquire(id, { access: "read" });
      return lease?.view.every((byte) => byte === value) ?? false;
    }
    const openRemote = (options: RedisTierOptions, warm = "1MiB") =>
      openMemory({
        budgets: { ram: "16MiB", warm },
        codecs: { default: "raw" },
        remote: redisTier(options),
        seams: parts,
      });

    it("takes what RAM has no room for, and gives it back after a restart", async () => {
      const options = { url: server.url, prefix: nextPrefix() };
      const memory = await openRemote(options);
      for (let index = 0; index < 16; index++) {
        fill(memory, `chat/${index}`, index + 1);
        await memory.swapOut(`chat/${index}`);
      }
      for (let index = 0; index < 16; index++) {
        expect(await holds(memory, `chat/${index}`, index + 1)).toBe(true);
      }
      const remote = memory.stats().tiers.at(-1);
      expect(remote?.name).toBe("remote");
      expect(remote?.loads).toBeGreaterThan(5);
      expect(remote?.bytesPerSecond).toBeGreaterThan(0);
      await closeMemory(memory);
      const again = await openRemote(options);
      for (let index = 0; index < 16; index++) {
        expect(await holds(again, `chat/${index}`, index + 1)).toBe(true);
        await again.delete(`chat/${index}`);
      }
      expect(await server.ask("KEYS", `${options.prefix}:*`)).toBe("*0\r\n");
    });

    it("opens without it, and finds it when it comes", async () => {
      const port = await freePort();
      const memory = await openRemote({ url: `redis://127.0.0.1:${port}`, timeoutMs: TIMEOUT_MS });
      fill(memory, "a", 1);
      await memory.swapOut("a");
      expect(await holds(memory, "a", 1)).toBe(true);
      await expect(memory.acquire("unknown")).rejects.toEqual(code("io"));
      expect(memory.stats().tiers.at(-1)?.breaker).not.toBe("closed");
    });
  });

  describe("behind a network that fails", () => {
    const faults: readonly ProxyFault[] = [
      ...(["refuse", "hang", "reset", "partial", "flip", "flip-long", "swap"] as const),
    ];
    let proxy: FaultyProxy;
    beforeAll(async () => {
      proxy = await startProxy(server.port, 3 * TIMEOUT_MS);
    });
    afterAll(async () => {
      await proxy.stop();
    });

    it.each([...faults, "slow" as const])("never gives wrong bytes: %s", async (fault) => {
      const options = { prefix: nextPrefix(), timeoutMs: TIMEOUT_MS, chunkBytes: 4096 };
      const behind = { ...options, url: `redis://127.0.0.1:${proxy.port}` };
      proxy.fault = "none";
      const tier = await open(behind);
      for (let key = 1; key <= 4; key++) await put(tier, key, objectOf(key, 1, 20_000));
      const before = proxy.counts[fault];
      let failedCount = 0;
      let slowestMs = 0;
      // Fewer of those that end with the deadline.
      const rounds = { hang: 12, slow: 12, swap: 24 }[fault as string] ?? 60;
      for (let round = 0; round < rounds; round++) {
        const key = 1 + (round % 4);
        proxy.fault = round % 3 === 0 ? "none" : fault;
        const startMs = performance.now();
        try {
          if (round % 5 === 4) await put(tier, key, objectOf(key, 1 + round, 20_000));
          else {
            const reader = await tier.openRead(keyOf(key));
            if (reader !== null) {
              const bytes = objectOf(9, 9, reader.byteLength);
              const count = await reader.read(0, bytes);
              await reader.close();
              const expected = objectOf(key, bytes[1] as number, bytes.byteLength);
              expect(count).toBe(20_000);
              expect(bytes.every((byte, index) => byte === expected[index])).toBe(true);
            } else expect.fail("an object that is there was said to be missing");
          }
        } catch (error) {
          if (!(error instanceof TierError)) throw error;
          expect(["io", "timeout", "busy"]).toContain(error.code);
          failedCount += 1;
          slowestMs = Math.max(slowestMs, performance.now() - startMs);
        }
      }
      proxy.fault = "none";
      // Each is there whole, as it was or as it was to become.
      for (let key = 1; key <= 4; key++) {
        expect(await versionAt(tier, key), `key ${key}`).toBeGreaterThan(0);
      }
      await tier.close();
      // Floors: the fault was there, and it was noticed.
      expect(proxy.counts[fault] - before).toBeGreaterThanOrEqual(5);
      expect(failedCount).toBeGreaterThanOrEqual(5);
      console.log(`${fault}: ${failedCount} errors, slowest ${slowestMs.toFixed(0)} ms`);
    });

    it("keeps its deadline within a tenth", async () => {
      const url = `redis://127.0.0.1:${proxy.port}`;
      proxy.fault = "none";
      const tier = await open({ url, prefix: nextPrefix(), timeoutMs: TIMEOUT_MS });
      await put(tier, 1, objectOf(1, 1, 1000));
      proxy.fault = "hang";
      const overruns: number[] = [];
      for (let round = 0; round < 9; round++) {
        // Beside a bare timer, which a busy machine holds up as well.
        const barely = systemClock.sleep(TIMEOUT_MS).then(() => performance.now());
        await expect(tier.openRead(keyOf(1))).rejects.toEqual(code("timeout"));
        const endMs = performance.now();
        overruns.push((endMs - (await barely)) / TIMEOUT_MS);
      }
      overruns.sort((one, other) => one - other);
      console.log(`deadline overrun, median of ${overruns.length}: ${overruns[4]?.toFixed(3)}`);
      expect(overruns[0]).toBeGreaterThan(-0.05);
      expect(overruns[4]).toBeLessThanOrEqual(0.1);
      proxy.fault = "none";
      expect(await versionAt(tier, 1)).toBe(1);
      await tier.close();
    });

    it("gives nobody the reply to a call that was given up", async () => {
      const url = `redis://127.0.0.1:${proxy.port}`;
      proxy.fault = "none";
      const tier = await open({ url, prefix: nextPrefix(), timeoutMs: 300, chunkBytes: 1024 });
      for (let key = 1; key <= 8; key++) await put(tier, key, objectOf(key, 1, 3000));
      let givenUpCount = 0;
      for (let round = 0; round < 10; round++) {
        proxy.fault = "slow";
        await versionAt(tier, 1 + (round % 8)).catch(() => {
          givenUpCount += 1;
        });
        proxy.fault = "none";
        const keys = [1, 2, 3, 4, 5, 6, 7, 8];
        const versions = await Promise.all(keys.map((key) => versionAt(tier, key)));
        expect(versions).toEqual(keys.map(() => 1));
      }
      expect(givenUpCount).toBe(10);
      await tier.close();
    });

    it("undoes nothing by what was given up and comes late", async () => {
      const prefix = nextPrefix();
      const options = { prefix, timeoutMs: 2 * TIMEOUT_MS, chunkBytes: 1024 };
      const tier = await open({ ...options, url: `redis://127.0.0.1:${proxy.port}` });
      const direct = await open({ url: server.url, prefix, chunkBytes: 1024 });
      const begun = async (key: number, version: number) => {
        const writer = await tier.begin(keyOf(key), 3000, SWAPPED);
        if (writer === "no-space") throw new Error("no room");
        await writer.write(objectOf(key, version, 3000));
        return writer;
      };
      const before = proxy.counts.late;
      for (let key = 1; key <= 2; key++) await put(tier, key, objectOf(key, 1, 3000));
      const commits = await Promise.all([begun(2, 2), begun(3, 2)]);
      // A deletion and two commits are on their way when their deadline comes.
      proxy.fault = "late";
      const late = [
        tier.delete(keyOf(1)),
        ...commits.map((writer) => writer.commit({ durable: false })),
      ];
      const outcomes = await Promise.allSettled(late);
      expect(outcomes.map(({ status }) => status)).toEqual(Array(3).fill("rejected"));
      proxy.fault = "none";
      // What is acknowledged now counts: new objects under two keys, and that there is none.
      expect(await put(tier, 1, objectOf(1, 3, 3000))).toBe("stored");
      expect(await put(tier, 2, objectOf(2, 3, 3000))).toBe("stored");
      await tier.delete(keyOf(3));
      const all = () => Promise.all([1, 2, 3].map((key) => versionAt(direct, key)));
      expect(await all()).toEqual([3, 3, 0]);
      await systemClock.sleep(6 * TIMEOUT_MS);
      expect(proxy.counts.late - before).toBeGreaterThanOrEqual(3);
      expect(await all()).toEqual([3, 3, 0]);
      const keys: string[] = [];
      for await (const key of tier.list()) keys.push(key);
      expect(keys.sort()).toEqual([keyOf(1), keyOf(2)]);
      await direct.close();
      await tier.close();
    });

    it("leaves what is in RAM alone", async () => {
      const url = `redis://127.0.0.1:${proxy.port}`;
      proxy.fault = "none";
      const memory = await openMemory({
        budgets: { ram: "16MiB", warm: "1MiB" },
        codecs: { default: "raw" },
        remote: redisTier({ url, prefix: nextPrefix(), timeoutMs: 2000 }),
        seams: parts,
      });
      memory.allocate({ kind: "KV_CACHE", id: "hot", byteLength: 1000 });
      memory.allocate({ kind: "KV_CACHE", id: "far", byteLength: MIB });
      await memory.swapOut("far");
      expect(memory.stats().tiers.at(-1)?.objectCount).toBe(1);
      proxy.fault = "hang";
      let isSettled = false;
      const far = expect(memory.acquire("far").finally(() => (isSettled = true))).rejects.toEqual(
        code("timeout"),
      );
      for (let round = 0; round < 200; round++) {
        using lease = await memory.acquire("hot");
        expect(lease).not.toBe(null);
      }
      expect(isSettled).toBe(false);
      await far;
      proxy.fault = "none";
      using lease = await memory.acquire("far");
      expect(lease?.view.byteLength).toBe(MIB);
    });
  });
});
