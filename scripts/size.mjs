// Prints what the package costs: the modules, the host's bundle in a browser, the published archive.
// Run it after `npm run build`. Exits with 1 when a target is missed.
//
//   node scripts/size.mjs [--json FILE]
import { spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { writeFigures } from "../bench/support.mjs";
import { root } from "./steps.mjs";

const KIB = 1024;
const WASM_BYTES_MODULE = /wasm-bytes(?:-shared)?\.generated\.js$/;
const WASM_BYTES_STUB = `export const CORE_WASM_GZIP_BASE64 = "", KERNELS_WASM_GZIP_BASE64 = "",
  CORE_SHARED_WASM_GZIP_BASE64 = "";`;
/** What every memory is made of; imported by the first one. */
const COMPOSITION = join("dist", "src", "presets", "browser.js");

/** Bundles what a browser gets for `import "tierheap"`, from the files that are published. */
async function bundle({ hasWasm }) {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const stub = {
    name: "without-wasm",
    load: (id) => (!hasWasm && WASM_BYTES_MODULE.test(id) ? WASM_BYTES_STUB : null),
  };
  const result = await build({
    configFile: false,
    root,
    logLevel: "error",
    plugins: [stub],
    build: {
      write: false,
      target: "es2022",
      rolldownOptions: {
        input: join(root, exports["."].default),
        preserveEntrySignatures: "strict",
        external: (id) => id.startsWith("node:") || builtinModules.includes(id),
        output: { format: "es", minify: true },
      },
    },
  });
  const chunks = (Array.isArray(result) ? result : [result])
    .flatMap(({ output }) => output)
    .filter(({ type }) => type === "chunk");
  const byName = new Map(chunks.map((chunk) => [chunk.fileName, chunk]));
  const withImports = (some) => {
    const loaded = new Set(some);
    for (const { imports } of loaded) {
      for (const imported of imports) if (byName.has(imported)) loaded.add(byName.get(imported));
    }
    return [...loaded];
  };
  // What a page loads at once; with its first memory; and when something is first used.
  const atOnce = withImports(chunks.filter(({ isEntry }) => isEntry));
  const composition = chunks.filter(({ moduleIds }) =>
    moduleIds.some((id) => id.endsWith(COMPOSITION)),
  );
  if (composition.length !== 1) throw new Error(`no chunk has ${COMPOSITION}`);
  const ofMemory = withImports([...atOnce, ...composition]);
  const gzipBytesOf = (some) =>
    gzipSync(some.map(({ code }) => code).join("\n"), { level: 9 }).length;
  return {
    entryGzipBytes: gzipBytesOf(atOnce),
    memoryGzipBytes: gzipBytesOf(ofMemory),
    lazyGzipBytes: gzipBytesOf(chunks.filter((chunk) => !ofMemory.includes(chunk))),
    // Without those of one chunk by another.
    imports: chunks
      .flatMap((chunk) => [...chunk.imports, ...chunk.dynamicImports])
      .filter((imported) => !chunks.some(({ fileName }) => fileName === imported)),
    exportCount: chunks.flatMap((chunk) => chunk.exports).length,
  };
}

/** What an adapter adds to a bundle that has the host: its own files. */
async function adapterGzipBytes(file) {
  const adapters = join(root, "dist", "src", "adapters");
  const { output } = await build({
    configFile: false,
    root,
    logLevel: "error",
    build: {
      write: false,
      target: "es2022",
      rolldownOptions: {
        input: join(root, file),
        preserveEntrySignatures: "strict",
        external: (id, importer) =>
          importer !== undefined && !resolve(dirname(importer), id).startsWith(adapters),
        output: { format: "es", minify: true },
      },
    },
  });
  return gzipSync(output.map(({ code }) => code).join("\n"), { level: 9 }).length;
}

function packed() {
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const { status, stdout, stderr } = spawnSync(npm, ["pack", "--dry-run", "--json"], {
    cwd: root,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`npm pack failed: ${stderr}`);
  return JSON.parse(stdout)[0];
}

function figure(id, value, unit, target, beside) {
  const met = target === undefined ? true : value <= target;
  return { id, value, unit, ...(target === undefined ? {} : { target }), met, beside };
}

const wasmBytes = (name) => statSync(join(root, "build", `${name}.wasm`)).size;
const host = await bundle({ hasWasm: false });
const whole = await bundle({ hasWasm: true });
if (host.exportCount === 0) throw new Error("the bundle exports nothing: it was not measured");
const archive = packed();
const { exports: subpaths } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const adapterFigures = [];
for (const [subpath, conditions] of Object.entries(subpaths)) {
  if (!subpath.startsWith("./adapters/")) continue;
  const bytes = await adapterGzipBytes(conditions.default);
  if (bytes === 0) throw new Error(`the bundle of ${subpath} is empty: it was not measured`);
  const id = `size/${subpath.slice(2).replace("/", "-")}-gzip`;
  adapterFigures.push(figure(id, bytes, "bytes", undefined, "beside the host"));
}

const figures = [
  figure("size/core-wasm", wasmBytes("core"), "bytes", 44 * KIB),
  figure("size/core-shared-wasm", wasmBytes("core.shared"), "bytes", 44 * KIB),
  figure("size/kernels-wasm", wasmBytes("kernels"), "bytes", 48 * KIB, "loaded on first use"),
  figure("size/entry-gzip", whole.entryGzipBytes, "bytes", 30 * KIB, "core.wasm inside"),
  figure(
    "size/memory-gzip",
    host.memoryGzipBytes,
    "bytes",
    56 * KIB,
    "the entry and what its first memory loads, without the modules",
  ),
  figure("size/lazy-bundle-gzip", host.lazyGzipBytes, "bytes", 80 * KIB, "loaded on first use"),
  figure(
    "size/whole-bundle-gzip",
    whole.memoryGzipBytes + whole.lazyGzipBytes,
    "bytes",
    undefined,
    "modules inline",
  ),
  figure("size/browser-node-imports", whole.imports.length, "imports", 0, whole.imports.join(" ")),
  ...adapterFigures,
  figure("size/package", archive.size, "bytes", undefined, `${archive.entryCount} files`),
  figure("size/package-unpacked", archive.unpackedSize, "bytes"),
];

for (const { id, value, unit, target, met, beside } of figures) {
  const limit = target === undefined ? "" : `, at most ${target}`;
  const note = beside ? ` (${beside})` : "";
  console.log(`${met ? "ok  " : "FAIL"} ${id}: ${value} ${unit}${limit}${note}`);
}
const file = process.argv[process.argv.indexOf("--json") + 1];
if (process.argv.includes("--json")) writeFigures(file, figures);
if (figures.some(({ met }) => !met)) process.exitCode = 1;
