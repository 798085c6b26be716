// Reloads, crashes and kills while tensors are saved, in both stores of a real browser. What was
// acknowledged is there afterwards, and no byte is wrong. scripts/browser-kill.mjs runs it for longer.
import { writeFileSync } from "node:fs";
import type { Page } from "playwright-core";
import { expect, it } from "vitest";
import { seededRandom } from "../../src/testing/index.js";
import type { Store } from "./page/main.js";
import { useBrowser } from "./suite.js";

const CYCLE_COUNT = Number(process.env["TIERHEAP_KILL_CYCLES"] ?? 10);
const SEED = Number(process.env["TIERHEAP_KILL_SEED"] ?? 20_261_121);
const JSON_FILE = process.env["TIERHEAP_KILL_JSON"];
/** A cycle ends at a random moment before so many were acknowledged, and not before a few were. */
const ACKS_MIN = 5;
const ACKS_MAX = 60;
const KEY_COUNT = 5;
const STORES: readonly Store[] = ["opfs", "indexeddb"];
const ENDS = ["reload", "crash", "kill"] as const;

const suite = useBrowser();

/** Resolves when so many saves were acknowledged; `acked` goes on counting. */
function untilAcked(page: Page, acked: number[], count: number): Promise<void> {
  let seen = 0;
  return new Promise((resolve, reject) => {
    page.on("pageerror", reject);
    page.on("console", (message) => {
      const [word, key, version] = message.text().split(" ");
      if (word !== "saved") return;
      acked[Number(key)] = Number(version);
      seen += 1;
      if (seen === count) resolve();
    });
  });
}

it(
  `keeps what was acknowledged over ${CYCLE_COUNT} reloads, crashes and kills`,
  async () => {
    console.log(`seed ${SEED}`);
    const { browser, site } = suite;
    const random = seededRandom(SEED);
    const acked = new Map(STORES.map((store) => [store, Array<number>(KEY_COUNT).fill(0)]));
    const counts = { acks: 0, lost: 0, wrong: 0, stuck: 0 };
    let version = 1;
    for (let cycle = 0; cycle < CYCLE_COUNT; cycle++) {
      const store = STORES[cycle % STORES.length] as Store;
      const end = ENDS[cycle % ENDS.length] as (typeof ENDS)[number];
      const known = acked.get(store) as number[];
      const before = version;
      let page = await browser.open(site.url);
      const count = ACKS_MIN + (random.uint32() % (ACKS_MAX - ACKS_MIN));
      const enough = untilAcked(page, known, count);
      // Ends with the page.
      page
        .evaluate(([given, first]) => window.tierheap.saveVersions(given, "kill", first), [
          store,
          version,
        ] as const)
        .catch(() => {});
      await enough;
      if (end === "reload") {
        await page.reload();
      } else {
        if (end === "crash") await browser.crash(page);
        else await browser.killAndRelaunch();
        page = await browser.open(site.url);
      }
      version = Math.max(...known, version) + 1000;
      const found = await page
        .evaluate((given) => window.tierheap.readVersions(given, "kill"), store)
        .catch((error: unknown) => {
          counts.stuck += 1;
          throw error;
        });
      expect(found.problems).toEqual([]);
      for (const [key, seen] of found.versions.entries()) {
        // A save that was not acknowledged may have come through.
        if (seen === -1 || seen >= version) counts.wrong += 1;
        else if (seen < (known[key] as number)) counts.lost += 1;
        known[key] = Math.max(seen, 0);
      }
      counts.acks += Math.max(count, Math.max(...known) - before);
      await page.close();
      browser.complaints.splice(0);
    }
    console.log(`${CYCLE_COUNT} cycles: ${JSON.stringify(counts)}`);
    if (JSON_FILE !== undefined) {
      const figures = [
        { id: "browser/kill-cycles", value: CYCLE_COUNT, unit: "cycles", target: 200 },
        { id: "browser/kill-acks", value: counts.acks, unit: "acknowledged", target: 5000 },
        { id: "browser/kill-lost", value: counts.lost, unit: "saves", target: 0 },
        { id: "browser/kill-wrong", value: counts.wrong, unit: "objects", target: 0 },
        { id: "browser/kill-stuck", value: counts.stuck, unit: "openings", target: 0 },
      ].map((each) => ({
        ...each,
        met: each.target === 0 ? each.value === 0 : each.value >= each.target,
      }));
      writeFileSync(JSON_FILE, `${JSON.stringify({ seed: SEED, figures }, null, 2)}\n`);
    }
    expect(counts).toMatchObject({ lost: 0, wrong: 0, stuck: 0 });
    expect(counts.acks).toBeGreaterThanOrEqual(CYCLE_COUNT * ACKS_MIN);
  },
  CYCLE_COUNT * 60_000,
);
