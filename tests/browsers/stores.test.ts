// The stores in Firefox and in WebKit: the shared suites where they work, what the package falls back to where they
// do not. Run by `npm run test:browsers`; an engine that is not installed is a named skip.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fileSystemConformance, tierConformance } from "../../src/testing/index.js";
import { buildAndServe, type Site, TEST_PAGE } from "../browser/browser.js";
import type { Suite } from "../browser/page/main.js";
import { type Engine, findFirefox, launchFirefox, launchWebKit, missingWebKit } from "./engine.js";

let site: Site;

beforeAll(async () => {
  site = await buildAndServe(TEST_PAGE);
});

afterAll(() => site?.close());

const inPage = () => Promise.reject(new Error("cases run in the page"));
const CASES: Readonly<Record<Suite, ReturnType<typeof tierConformance>>> = {
  indexeddb: tierConformance(inPage),
  opfs: tierConformance(inPage),
  files: fileSystemConformance(inPage),
};

/** Runs a suite in a page; a case that is skipped says why. */
function conformance(suite: Suite, engine: () => Engine): void {
  describe(`conformance of ${suite}`, () => {
    for (const { name, skip } of CASES[suite]) {
      it(name, async (context) => {
        if (skip !== undefined) return context.skip(skip);
        expect(await engine().call("tierheap", "runCase", suite, name)).toBeNull();
      });
    }
    it("has cases", () => expect(CASES[suite].length).toBeGreaterThan(10));
  });
}

interface Saved {
  readonly outcome: string;
  readonly isBack: boolean;
  readonly told: readonly string[];
}

const firefox = findFirefox();
describe.skipIf("missing" in firefox)(
  `Firefox${"missing" in firefox ? `: ${firefox.missing}` : ""}`,
  () => {
    let engine: Engine;

    beforeAll(async () => {
      if ("missing" in firefox) return;
      engine = await launchFirefox(firefox.path);
      await engine.open(site.url);
    });

    afterAll(() => engine?.close());

    for (const suite of ["indexeddb", "opfs", "files"] as const) conformance(suite, () => engine);

    it.each(["opfs", "indexeddb"])("%s restores after a reload what was saved", async (store) => {
      const outcomes = await engine.call("tierheap", "saveSome", store, "reload", 3);
      expect(outcomes).toEqual(["stored", "stored", "stored"]);
      await engine.open(site.url);
      const found = await engine.call("tierheap", "inspect", store, "reload");
      expect(found).toEqual({ intact: 3, damaged: [] });
    });

    it("uses the private file system by itself", async () => {
      const found = await engine.call("tierheap", "saveSomewhere", { directory: "auto" });
      expect(found).toEqual({
        outcome: "stored",
        isBack: true,
        told: [],
        hasFolder: true,
        hasDatabase: false,
      });
    });
  },
);

const missing = missingWebKit();
describe.skipIf(missing !== null)(`WebKit${missing === null ? "" : `: ${missing}`}`, () => {
  describe.each([
    ["without a private file system", ""],
    ["with one that does not work", "+StorageAPI,+FileSystem,+AccessHandle"],
  ])("%s", (_name, features) => {
    let engine: Engine;

    beforeAll(async () => {
      engine = await launchWebKit(features);
      await engine.open(site.url);
    });

    afterAll(() => engine?.close());

    it("falls back to the database, and says so", async () => {
      const found = await engine.call<Saved>("tierheap", "saveSomewhere", { directory: "auto" });
      expect(found).toMatchObject({ outcome: "stored", isBack: true, hasDatabase: true });
      expect(found.told).toEqual([expect.stringContaining("does not work here")]);
    });

    it("restores after a reload what was saved", async () => {
      const outcomes = await engine.call("tierheap", "saveSome", "indexeddb", "reload", 3);
      expect(outcomes).toEqual(["stored", "stored", "stored"]);
      await engine.open(site.url);
      const found = await engine.call("tierheap", "inspect", "indexeddb", "reload");
      expect(found).toEqual({ intact: 3, damaged: [] });
    });

    conformance("indexeddb", () => engine);
  });
});
