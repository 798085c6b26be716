// Packs the package, installs it in an empty project without a network, and uses it as its users do:
// in Node of several versions, from CommonJS, type-checked, bundled by vite and by esbuild, and as
// plain modules in a page. Run it after `npm run build`.
//
//   node scripts/consumers.mjs [--download] [--json FILE]
//   --download   fetches Node 22 and 24, Bun and Deno from the npm registry into build/runtimes
//   TIERHEAP_NO_BROWSER=1   leaves the pages out, and says so
import { spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { arch, platform, tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";
import { build as esbuild } from "esbuild";
import { chromium } from "playwright-core";
import { build as vite } from "vite";
import { writeFigures } from "../bench/support.mjs";
import { CHROMIUM_OPTIONS, ensureChromium } from "./browser.mjs";
import { binary, root } from "./steps.mjs";

const { values } = parseArgs({
  options: {
    download: { type: "boolean", default: false },
    json: { type: "string" },
    // Given to every nightly script; nothing here is random.
    seed: { type: "string" },
  },
});
const IS_WINDOWS = platform() === "win32";
/** A consumer that compared less has not used the package. */
const COMPARED_COUNT_MIN = 40;
const PAGE_MS_MAX = 120_000;
const RUNTIMES = join(root, "build", "runtimes");
/** Engines beside the one that runs this, as packages of the npm registry. */
const ENGINES = [
  { id: "node-22", name: `node-${platform()}-${arch()}`, version: "22", path: "bin/node" },
  { id: "node-24", name: `node-${platform()}-${arch()}`, version: "24", path: "bin/node" },
  { id: "bun", name: `@oven/bun-${platform()}-${arch()}`, version: "1", path: "bin/bun" },
  {
    id: "deno",
    name: `@deno/${platform()}-${arch()}${platform() === "linux" ? "-glibc" : ""}`,
    version: "2",
    path: "deno",
    args: ["run", "--allow-all"],
  },
];
const MIME = { ".html": "text/html", ".wasm": "application/wasm", ".json": "application/json" };

function npm(args, cwd) {
  const { status, stdout, stderr } = spawnSync(IS_WINDOWS ? "npm.cmd" : "npm", args, {
    cwd,
    encoding: "utf8",
    shell: IS_WINDOWS,
  });
  if (status !== 0) throw new Error(`npm ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** An empty project with the packed package and its one dependency, both from files. */
function createProject() {
  const project = mkdtempSync(join(tmpdir(), "tierheap-consumers-"));
  const pack = (folder) => {
    const args = ["pack", "--json", "--ignore-scripts", "--pack-destination", project];
    return `./${JSON.parse(npm(args, folder))[0].filename}`;
  };
  const archives = [root, join(root, "node_modules", "@assemblyscript", "loader")].map(pack);
  writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }\n');
  npm(["install", "--offline", "--no-audit", "--no-fund", ...archives], project);
  cpSync(join(root, "tests", "consumers"), project, { recursive: true });
  return project;
}

function run(command, args, cwd) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    const chunks = { stdout: "", stderr: "" };
    child.stdout.on("data", (chunk) => (chunks.stdout += chunk));
    child.stderr.on("data", (chunk) => (chunks.stderr += chunk));
    child.on("error", (error) => resolve({ code: 1, ...chunks, stderr: error.message }));
    child.on("close", (code) => resolve({ code: code ?? 1, ...chunks }));
  });
}

/** The outcome that a program printed, or what stopped it. */
async function outcomeOf(command, args, cwd) {
  const { code, stdout, stderr } = await run(command, args, cwd);
  const line = stdout.trim().split("\n").at(-1) ?? "";
  if (code !== 0 || !line.startsWith("{")) {
    return { comparedCount: 0, wrong: [`exit code ${code}: ${stderr.trim() || stdout.trim()}`] };
  }
  return JSON.parse(line);
}

/** Serves a folder to pages. */
function serve(folder) {
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? "/", "http://localhost").pathname);
    const file = join(folder, path === "/" ? "index.html" : path);
    if (!existsSync(file) || !statSync(file).isFile()) {
      response.writeHead(404).end();
      return;
    }
    response.setHeader("Content-Type", MIME[extname(file)] ?? "text/javascript");
    createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

/** What a page of the folder leaves as its outcome. What it complains about is wrong, too. */
async function pageOutcome(folder) {
  const server = await serve(folder);
  const executablePath = ensureChromium();
  const browser = await chromium.launch({ ...CHROMIUM_OPTIONS, executablePath });
  try {
    const page = await browser.newPage();
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const isThere = () => page.evaluate(() => globalThis.outcome !== undefined);
    const endMs = performance.now() + PAGE_MS_MAX;
    while (!(await isThere()) && complaints.length === 0 && performance.now() < endMs) {
      await page.waitForTimeout(100);
    }
    const outcome = (await page.evaluate(() => globalThis.outcome)) ?? {
      comparedCount: 0,
      wrong: [],
    };
    return { ...outcome, wrong: [...outcome.wrong, ...complaints] };
  } finally {
    await browser.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const pageText = (head, script) =>
  `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">${head}\n` +
  `<script type="module" src="${script}"></script>\n`;

async function inVite(project) {
  writeFileSync(join(project, "index.html"), pageText("", "./page.mjs"));
  const outDir = join(project, "by-vite");
  await vite({
    configFile: false,
    root: project,
    logLevel: "error",
    build: { outDir, target: "es2022" },
    worker: { format: "es" },
  });
  return pageOutcome(outDir);
}

async function inEsbuild(project) {
  const outdir = join(project, "by-esbuild");
  await esbuild({
    absWorkingDir: project,
    entryPoints: ["page.mjs"],
    outdir,
    bundle: true,
    splitting: true,
    minify: true,
    format: "esm",
    target: "es2022",
    logLevel: "error",
  });
  writeFileSync(join(outdir, "index.html"), pageText("", "./page.js"));
  return pageOutcome(outdir);
}

/** As files, with the import map that the guide shows. */
async function inPage(project) {
  const guide = readFileSync(join(root, "docs", "guides", "platforms.md"), "utf8");
  const map = /<script type="importmap">[\s\S]*?<\/script>/.exec(guide)?.[0];
  if (map === undefined) throw new Error("the guide shows no import map");
  writeFileSync(join(project, "index.html"), pageText(map, "./page.mjs"));
  return pageOutcome(project);
}

async function inTypeScript(project) {
  const args = ["--noEmit", "--ignoreConfig", "--strict", "--module", "nodenext", "--types", ""];
  const lib = ["--target", "es2022", "--lib", "es2024,esnext.disposable,dom,dom.asynciterable"];
  const tsc = binary("typescript", "bin/tsc");
  const { code, stdout } = await run(process.execPath, [tsc, ...args, ...lib, "types.ts"], project);
  return { comparedCount: COMPARED_COUNT_MIN, wrong: code === 0 ? [] : [stdout.trim()] };
}

function fetchEngines() {
  mkdirSync(RUNTIMES, { recursive: true });
  writeFileSync(join(RUNTIMES, "package.json"), '{ "private": true }\n');
  for (const { id, name, version } of ENGINES) {
    try {
      npm(
        ["install", "--ignore-scripts", "--no-audit", "--no-fund", `${id}@npm:${name}@${version}`],
        RUNTIMES,
      );
    } catch (error) {
      console.log(`${id} could not be fetched: ${error.message.split("\n")[0]}`);
    }
  }
}

if (values.download) fetchEngines();
const isWithoutBrowser =
  process.env.TIERHEAP_NO_BROWSER === "1"
    ? "TIERHEAP_NO_BROWSER=1 asks for it"
    : ensureChromium() === undefined && "there is no Chromium";
const project = createProject();
const own = `node-${process.versions.node.split(".")[0]}`;
const consumers = [
  { id: own, run: () => outcomeOf(process.execPath, ["node.mjs"], project) },
  {
    id: "commonjs",
    comparedMin: 1,
    run: () => outcomeOf(process.execPath, ["require.cjs"], project),
  },
  { id: "types", run: () => inTypeScript(project) },
  ...ENGINES.filter(({ id }) => id !== own).map(({ id, path, args = [] }) => {
    const command = join(RUNTIMES, "node_modules", id, path);
    return {
      id,
      skip: !existsSync(command) && "not fetched; --download does",
      run: () => outcomeOf(command, [...args, "node.mjs"], project),
    };
  }),
  { id: "vite", skip: isWithoutBrowser, run: () => inVite(project) },
  { id: "esbuild", skip: isWithoutBrowser, run: () => inEsbuild(project) },
  { id: "page", skip: isWithoutBrowser, run: () => inPage(project) },
];

const figures = [];
try {
  for (const { id, skip = false, comparedMin = COMPARED_COUNT_MIN, run: use } of consumers) {
    if (skip) {
      console.log(`skip consumers/${id}: ${skip}`);
      continue;
    }
    const { comparedCount, wrong } = await use().catch((error) => ({
      comparedCount: 0,
      wrong: [String(error?.stack ?? error)],
    }));
    if (comparedCount < comparedMin) wrong.push(`it compared ${comparedCount}, not ${comparedMin}`);
    const met = wrong.length === 0;
    figures.push({ id: `consumers/${id}`, value: wrong.length, unit: "faults", target: 0, met });
    console.log(`${met ? "ok  " : "FAIL"} consumers/${id}${met ? "" : `: ${wrong.join("; ")}`}`);
  }
} finally {
  rmSync(project, { recursive: true, force: true });
}
if (values.json !== undefined) writeFigures(values.json, figures);
if (figures.some(({ met }) => !met)) process.exitCode = 1;
