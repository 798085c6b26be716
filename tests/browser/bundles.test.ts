// The package as it is published, in an application that vite or esbuild has bundled, or nobody: in a page without isolation
// and in one with a strict security policy, with workers as the package starts them and with the application's own.
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build as esbuild } from "esbuild";
import { build as vite } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Browser, CONTENT_SECURITY_POLICY, serve, withHeaders } from "./browser.js";
import type {} from "./bundle-app/app.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const source = fileURLToPath(new URL("bundle-app", import.meta.url));

let folder: string;
let browser: Browser;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tierheap-bundles-"));
  await cp(source, folder, { recursive: true });
  await mkdir(join(folder, "node_modules"));
  await symlink(root, join(folder, "node_modules", "tierheap"));
  browser = await Browser.launch();
});

afterAll(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

async function page(name: string, script: string, map: string | null = null): Promise<void> {
  const text = await readFile(join(source, "index.html"), "utf8");
  const head = map === null ? "" : `<script type="importmap">${map}</script>`;
  const html = text.replace("</head>", `${head}</head>`).replace("./main.js", script);
  await writeFile(join(folder, name), html);
}

const BUNDLERS = {
  vite: async (outDir: string) => {
    await page("index.html", "./main-vite.ts");
    await vite({
      configFile: false,
      root: folder,
      logLevel: "error",
      build: { outDir, emptyOutDir: true, target: "es2022" },
      worker: { format: "es" },
    });
  },
  esbuild: async (outdir: string) => {
    await esbuild({
      absWorkingDir: folder,
      entryPoints: ["main-esbuild.ts", "store-worker.ts", "codec-worker.ts"],
      bundle: true,
      minify: true,
      splitting: true,
      format: "esm",
      target: "es2022",
      outdir,
      logLevel: "error",
    });
    await page(join(outdir, "index.html"), "./main-esbuild.js");
  },
  /** Modules as they are, found by an import map. */
  nobody: async (outdir: string) => {
    const entryPoints = ["app.ts", "main-plain.ts"];
    await esbuild({ absWorkingDir: folder, entryPoints, format: "esm", target: "es2022", outdir });
    const modules = join(folder, outdir, "node_modules");
    for (const [name, part] of [
      ["tierheap", "dist"],
      ["@assemblyscript/loader", "index.js"],
    ] as const) {
      const from = name === "tierheap" ? root : join(root, "node_modules", name);
      await cp(join(from, part), join(modules, name, part), { recursive: true });
    }
    await page(join(outdir, "index.html"), "./main-plain.js", importMap);
  },
};

const importMap = JSON.stringify({
  imports: {
    tierheap: "./node_modules/tierheap/dist/src/browser.js",
    "@assemblyscript/loader": "./node_modules/@assemblyscript/loader/index.js",
  },
});
const mapHash = createHash("sha256").update(importMap).digest("base64");

/** A page must name the import map that it has inline. */
function withImportMap(policy: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(policy).map(([name, value]) => [
    name,
    value.replace("script-src 'self'", `script-src 'self' 'sha256-${mapHash}'`),
  ]);
  return Object.fromEntries(entries);
}

describe.each(["vite", "esbuild", "nobody"] as const)("a bundle made by %s", (bundler) => {
  const outDir = `out-${bundler}`;

  beforeAll(() => BUNDLERS[bundler](outDir));

  describe.each([
    ["without isolation", {}, false],
    ["with a strict security policy", CONTENT_SECURITY_POLICY, true],
  ] as const)("in a page %s", (_name, headers, isStrict) => {
    it.each([
      ["the package's own workers", false],
      ["the application's workers", true],
    ])("saves and finds again with %s", async (_workers, hasOwn) => {
      const config = { configFile: false, root: folder, build: { outDir } } as const;
      const site = await serve(withHeaders(config, withImportMap(headers)));
      const open = await browser.open(site.url);
      const saved = await open.evaluate((own) => window.bundled.save(own), hasOwn);
      expect(saved).toMatchObject({ outcome: "stored", isIsolated: false });
      await open.reload();
      expect(await open.evaluate((own) => window.bundled.restore(own), hasOwn)).toBe(true);
      const mayStartStore = hasOwn || !isStrict;
      expect(await open.evaluate(() => window.bundled.place())).toBe(
        mayStartStore ? "opfs" : "indexeddb",
      );
      expect(saved.told).toEqual(
        mayStartStore ? [] : [expect.stringContaining("does not work here")],
      );
      // esbuild leaves the scripts of a package's workers where they are: the page's thread codes then.
      const mayStartCodec = hasOwn || bundler !== "esbuild";
      expect(saved.failureCount > 0).toBe(!mayStartCodec);
      expect(saved.jobCount > 10).toBe(mayStartCodec);
      await open.close();
      await site.close();
    });
  });
});
