// A real Chromium with its profile on disk, and built pages served as `vite preview` serves them.
import { spawnSync } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { build, type InlineConfig, type PreviewServer, preview } from "vite";
import { CHROMIUM_OPTIONS, findChromium } from "../../scripts/browser.mjs";

const path = (relative: string) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));

export const DEMO: InlineConfig = { configFile: path("examples/demo/vite.config.ts") };

const SOURCES = [
  { find: /^tierheap\/browser$/, replacement: path("src/browser.ts") },
  { find: /^tierheap\/testing$/, replacement: path("src/testing/index.ts") },
  { find: /^tierheap\/tiers\/webgpu$/, replacement: path("src/webgpu.ts") },
  { find: /^tierheap\/adapters\/(.*)$/, replacement: path("src/adapters/$1.ts") },
];

export const TEST_PAGE: InlineConfig = {
  configFile: false,
  root: path("tests/browser/page"),
  resolve: { alias: SOURCES },
  build: { outDir: path("build/test-page"), emptyOutDir: true, target: "es2022" },
  worker: { format: "es" },
};

type Middleware = (
  request: IncomingMessage,
  response: ServerResponse,
  next: () => unknown,
) => unknown;

/** Asks `middleware` first for whatever a built page wants. */
function withMiddleware(config: InlineConfig, name: string, middleware: Middleware): InlineConfig {
  const configurePreviewServer = ({ middlewares }: PreviewServer) => {
    middlewares.use(middleware);
  };
  return { ...config, plugins: [{ name, configurePreviewServer }, ...(config.plugins ?? [])] };
}

/** Nothing but a page's own files, and no code from texts. */
export const CONTENT_SECURITY_POLICY = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'",
};

/** The same page as it was built, served with headers. */
export function withHeaders(
  config: InlineConfig,
  headers: Readonly<Record<string, string>>,
): InlineConfig {
  return withMiddleware(config, "headers", (_request, response, next) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    next();
  });
}

/** The same page, isolated: what shared memory needs. */
export function withIsolation(config: InlineConfig): InlineConfig {
  return withHeaders(config, {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
  });
}

/** A page whose memories have a GPU above RAM. */
export const GPU_PAGE: InlineConfig = {
  ...TEST_PAGE,
  root: path("tests/browser/gpu-page"),
  build: { ...TEST_PAGE.build, outDir: path("build/gpu-page") },
};

const RUNTIME_FILES = /^\/onnxruntime-web\/([\w.-]+\.(mjs|wasm))$/;

/** A page with onnxruntime-web; the runtime's own files come from the package, not over the network. */
export const ORT_PAGE: InlineConfig = withMiddleware(
  {
    ...TEST_PAGE,
    root: path("tests/browser/ort-page"),
    resolve: { alias: SOURCES, conditions: ["onnxruntime-web-use-extern-wasm", "browser"] },
    build: { ...TEST_PAGE.build, outDir: path("build/ort-page") },
  },
  "runtime-files",
  (request, response, next) => {
    const [, name, extension] = RUNTIME_FILES.exec(request.url?.split("?")[0] ?? "") ?? [];
    if (name === undefined) return next();
    const type = extension === "wasm" ? "application/wasm" : "text/javascript";
    response.setHeader("Content-Type", type);
    createReadStream(path(`node_modules/onnxruntime-web/dist/${name}`)).pipe(response);
  },
);

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

/** One that has ended by itself is what was wanted. */
function kill(processId: number): void {
  try {
    process.kill(processId, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** WebGPU without a GPU: an adapter in software. */
export const WEBGPU_ARGUMENTS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

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

  /** Resident bytes of the processes that pages and their workers live in. */
  residentBytes(): number {
    const { stdout } = spawnSync("pgrep", ["-f", `type=renderer.*${this.#directory}`], {
      encoding: "utf8",
    });
    let byteLength = 0;
    for (const id of stdout.match(/\d+/g) ?? []) {
      const status = spawnSync("cat", [`/proc/${id}/status`], { encoding: "utf8" }).stdout;
      byteLength += Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
    }
    return byteLength;
  }

  /** What the browser does for a user who deletes the site's data. */
  async clearData(page: Page): Promise<void> {
    const session = await this.#context.newCDPSession(page);
    const { origin } = new URL(page.url());
    await session.send("Storage.clearDataForOrigin", { origin, storageTypes: "all" });
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

  /** Ends the process that owns the GPU, as a driver's fault does. Once for each browser: then it stays away. */
  async crashGpu(): Promise<void> {
    const session = await this.#context.browser()?.newBrowserCDPSession();
    const answer = await session?.send("SystemInfo.getProcessInfo");
    const gpu = answer?.processInfo.find(({ type }) => type === "GPU");
    if (gpu === undefined) throw new Error("this browser has no process for the GPU");
    process.kill(gpu.id, "SIGKILL");
  }

  /** Kills every process of the browser at once, and starts it again on the same profile. */
  async killAndRelaunch(): Promise<void> {
    const closed = new Promise((resolve) => this.#context.once("close", resolve));
    const { stdout } = spawnSync("pgrep", ["-f", this.#directory], { encoding: "utf8" });
    for (const id of stdout.match(/\d+/g) ?? []) kill(Number(id));
    await closed;
    this.#context = await launchOn(this.#directory, this.#args);
  }

  async close(): Promise<void> {
    await this.#context.close();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
