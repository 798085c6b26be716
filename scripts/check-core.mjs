// Gate on the built wasm modules and on what the specs of the core name. Run it after the release
// builds: `node scripts/check-core.mjs`. Prints one line per check and exits with 1 if any fails.
//
// The modules may hold no state of their own: two instances on one memory must agree. So there is
// no data segment, no mutable global, no start function and no runtime, and the memory is all they
// import.
import { existsSync, readdirSync, readFileSync } from "node:fs";

const root = new URL("../", import.meta.url);
const KERNELS_BYTES_MAX = 48 * 1024;
const CORE_BYTES_MAX = 44 * 1024;
const STATUS_OK = 0;

/** Each module with its entry; `shared` says which kind of memory it takes. */
const modules = [
  { name: "core", entry: "assembly/index.ts", shared: false },
  { name: "core.shared", entry: "assembly/index.ts", shared: true },
  { name: "kernels", entry: "assembly/kernels.ts", shared: false },
  { name: "kernels.shared", entry: "assembly/kernels.ts", shared: true },
  { name: "kernels.scalar", entry: "assembly/kernels.ts", shared: false },
];

let failureCount = 0;

function report(isOk, text) {
  if (!isOk) failureCount += 1;
  console.log(`${isOk ? "ok  " : "FAIL"} ${text}`);
}

function readText(path) {
  return readFileSync(new URL(path, root), "utf8");
}

/** Value of an integer constant of assembly/abi.ts. */
function abiConstant(name) {
  const match = new RegExp(`^export const ${name} = (\\S+);`, "m").exec(
    readText("assembly/abi.ts"),
  );
  if (match === null) throw new Error(`assembly/abi.ts has no constant ${name}`);
  return Number(match[1]);
}

/** Names of the functions that a TypeScript file exports, its own or another file's, sorted. */
function exportedFunctions(path) {
  const text = readText(path);
  const own = Array.from(text.matchAll(/^export function (\w+)/gm), (match) => match[1]);
  const passedOn = Array.from(text.matchAll(/^export \{([^}]+)\} from/gm), (match) =>
    match[1].split(",").map((name) => name.trim()),
  );
  return [...own, ...passedOn.flat()].sort();
}

function checkText(name) {
  const text = readText(`build/${name}.wat`);
  report(!/^\s*\(data\b/m.test(text), `${name}: no data segment`);
  report(!/^\s*\(global\b.*\(mut\b/m.test(text), `${name}: no mutable global`);
  report(!/^\s*\(start\b/m.test(text), `${name}: no start function`);
  report(!text.includes("~lib/rt"), `${name}: no runtime`);
}

function checkInterface(name, entry, module) {
  const imports = WebAssembly.Module.imports(module)
    .map((entryOfImport) => `${entryOfImport.module}.${entryOfImport.name}`)
    .sort()
    .join(", ");
  // Each instance of the shared core belongs to one lane, which it cannot change.
  const expectedImports = name === "core.shared" ? "env.memory, lock.LANE" : "env.memory";
  report(imports === expectedImports, `${name}: imports ${imports}`);

  const actual = WebAssembly.Module.exports(module)
    .map((entryOfExport) => entryOfExport.name)
    .sort();
  const expected = exportedFunctions(entry);
  const difference = [
    ...expected.filter((exported) => !actual.includes(exported)).map((exported) => `-${exported}`),
    ...actual.filter((exported) => !expected.includes(exported)).map((exported) => `+${exported}`),
  ];
  report(
    difference.length === 0,
    `${name}: ${actual.length} exports equal ${entry} ${difference.join(" ")}`.trimEnd(),
  );
}

/** Formats a control plane with the module itself and reads the version that it wrote. */
function checkAbiVersion(name, module, shared) {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared });
  const core = new WebAssembly.Instance(module, { env: { memory }, lock: { LANE: 1 } }).exports;
  const base = core.controlHeapBase() >>> 0;
  const totalBytes = core.controlBytes(16, 4, core.arenaMetadataBytes(64, 6)) >>> 0;
  const status = core.controlInit(base, totalBytes, 16, 4);
  const view = new DataView(memory.buffer);
  const version = view.getUint32(base + abiConstant("CONTROL_OFF_ABI_VERSION"), true);
  report(
    status === STATUS_OK && version === abiConstant("ABI_VERSION") && core.check(base) === 0,
    `${name}: writes ABI version ${version}, and its check passes`,
  );
}

function checkModule({ name, entry, shared }) {
  if (!existsSync(new URL(`build/${name}.wasm`, root))) {
    report(false, `${name}: build/${name}.wasm is missing`);
    return;
  }
  const binary = readFileSync(new URL(`build/${name}.wasm`, root));
  const module = new WebAssembly.Module(binary);
  checkText(name);
  checkInterface(name, entry, module);
  if (name.startsWith("core")) {
    checkAbiVersion(name, module, shared);
    report(binary.length <= CORE_BYTES_MAX, `${name}: ${binary.length} of ${CORE_BYTES_MAX} bytes`);
  } else {
    report(
      binary.length <= KERNELS_BYTES_MAX,
      `${name}: ${binary.length} of ${KERNELS_BYTES_MAX} bytes`,
    );
  }
}

/** Every status and every invariant is named by the title of a test. */
function checkSpecTitles() {
  const specs = readdirSync(new URL("tests/core/", root), { recursive: true })
    .filter((path) => path.endsWith(".spec.ts"))
    .map((path) => readText(`tests/core/${path.replaceAll("\\", "/")}`));
  const titles = specs.flatMap((text) =>
    Array.from(text.matchAll(/\btest\(\s*"([^"]+)"/g), (match) => match[1]),
  );
  const codes = Array.from(
    readText("assembly/abi.ts").matchAll(/^export const ((?:STATUS|INV)_\w+)/gm),
    (match) => (match[1].startsWith("INV_") ? match[1].replaceAll("_", "-") : match[1]),
  );
  const missing = codes.filter(
    (code) => !titles.some((title) => new RegExp(`\\b${code}\\b`).test(title)),
  );
  report(
    missing.length === 0,
    missing.length === 0
      ? `specs: ${titles.length} tests name all ${codes.length} statuses and invariants`
      : `specs: no test names ${missing.join(", ")}`,
  );
}

for (const module of modules) checkModule(module);
checkSpecTitles();
if (failureCount > 0) {
  console.log(`FAIL ${failureCount} checks of the core`);
  process.exitCode = 1;
}
