// A real Chromium with its profile on disk, and built pages served as `vite preview` serves them.
import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { build, type InlineConfig, type PreviewServer, preview } from "vite";
import { CHROMIUM_OPTIONS, findChromium } from "../../scripts/browser.mjs";

const path = (relative: string) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));

export const DEMO: InlineConfig = { configFile: path("examples/demo/vite.config.ts") };

export const TEST_PAGE: InlineConfig = {
  configFile: false,
  root: path("tests/browser/page"),
  resolve: {
    alias: [
      { find: /^tierheap\/browser$/, replacement: path("src/browser.ts") },
      { find: /^tierheap\/testing$/, replacement: path("src/testing/index.ts") },
    ],
  },
  build: { outDir: path("build/test-page"), emptyOutDir: true, target: "es2022" },
  worker: { format: "es" },
};

/** The same page, served with headers. */
function withHeaders(folder: string, headers: Readonly<Record<string, string>>): InlineConfig {
  return {
    ...TEST_PAGE,
    build: { ...TEST_PAGE.build, outDir: path(`build/${folder}`) },
    plugins: [
      {
        name: "headers",
        configurePreviewServer: ({ middlewares }) => {
          middlewares.use((_request, response, next) => {
            for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
            next();
          });
        },
      },
    ],
  };
}

/** Isolated: what shared memory needs. */
export const ISOLATED_PAGE = withHeaders("isolated-page", {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
});

/** Nothing but its own files, and no code from texts. */
export const STRICT_PAGE = withHeaders("strict-page", {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'",
});

export interface Site {
  readonly url: string;
  close(): Promise<void>;
}

/** Builds a page and serves it on a port, so from an origin, of its own. */
export async function buildAndServe(config: InlineConfig): Promise<Site> {
  await build({ ...config, logLevel: "error" });
  return serve(config);
}

/** Serves a page that is built already. */
export async function serve(config: InlineConfig): Promise<Site> {
  const server: PreviewServer = await preview({
    ...config,
    logLevel: "error",
    preview: { host: "127.0.0.1", port: 0 },
  });
  const url = server.resolvedUrls?.local[0];
  if (url === undefined) throw new Error("the preview server has no address");
  return { url, close: () => server.close() };
}

async function launchOn(directory: string, args: readonly string[]): Promise<BrowserContext> {
  const executablePath = findChromium();
  if (executablePath === undefined) throw new Error("no Chromium: run scripts/browser.mjs");
  return chromium.launchPersistentContext(directory, {
    ...CHROMIUM_OPTIONS,
    args: [...CHROMIUM_OPTIONS.args, ...args],
    executablePath,
  });
}

/** A browser profile on disk. What its pages complain about is kept in `complaints`. */
export class Browser {
  readonly complaints: string[] = [];
  readonly #directory: string;
  readonly #args: readonly string[];
  #context: BrowserContext;

  private constructor(directory: string, args: readonly string[], context: BrowserContext) {
    this.#directory = directory;
    this.#args = args;
    this.#context = context;
  }

  /** @param args More arguments for the browser. */
  static async launch(args: readonly string[] = []): Promise<Browser> {
    // The default context keeps its storage in RAM, with a quota of its own.
    const directory = await mkdtemp(join(tmpdir(), "tierheap-browser-"));
    return new Browser(directory, args, await launchOn(directory, args));
  }

  async open(url: string): Promise<Page> {
    const page = await this.#context.newPage();
    page.on("pageerror", (error) => this.complaints.push(`uncaught: ${error.message}`));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) this.complaints.push(message.text());
    });
    await page.goto(url);
    return page;
  }

  /** Limits what the page's origin may store. Chromium notices at once only on a fresh origin. */
  async limitQuota(page: Page, quotaBytes: number): Promise<void> {
    const session = await this.#context.newCDPSession(page);
    const { origin } = new URL(page.url());
    await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: quotaBytes });
  }

  /** Kills the page's renderer. */
  async crash(page: Page): Promise<void> {
    const session = await this.#context.newCDPSession(page);
    const crashed = page.waitForEvent("crash");
    session.send("Page.crash").catch(() => {
      // The renderer is gone before it can answer.
    });
    await crashed;
    await page.close();
  }

  /** Kills every process of the browser at once, and starts it again on the same profile. */
  async killAndRelaunch(): Promise<void> {
    const closed = new Promise((resolve) => this.#context.once("close", resolve));
    spawnSync("pkill", ["-KILL", "-f", this.#directory]);
    await closed;
    this.#context = await launchOn(this.#directory, this.#args);
  }

  async close(): Promise<void> {
    await this.#context.close();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
