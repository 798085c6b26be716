// The rules of the house that no compiler knows: who may import whom, where the platform may be
// touched, what is declared and must be used. Each rule is a function over the tree, and has a
// canary: a made-up tree that breaks it, which it must catch.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

/** Text of each file by its path from the repository's root. */
type Tree = ReadonlyMap<string, string>;

interface Rule {
  readonly name: string;
  /** One line for each violation. */
  readonly check: (tree: Tree) => string[];
  /** Breaks the rule. */
  readonly canary: Readonly<Record<string, string>>;
}

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
/** Without comments and blank lines. */
const LINE_COUNT_MAX = 400;

// --- The tree --------------------------------------------------------------------------------------

function readTree(): Tree {
  const folders = ["src", "assembly", "tests", "examples", "scripts", "bench", "docs/decisions"];
  const tree = new Map<string, string>();
  for (const folder of folders.filter((each) => existsSync(join(root, each)))) {
    for (const name of readdirSync(join(root, folder), { recursive: true })) {
      const path = posix.join(folder, String(name).replaceAll("\\", "/"));
      if (!/\.(ts|mjs|md)$/.test(path) || path.endsWith(".generated.ts")) continue;
      tree.set(path, readFileSync(join(root, path), "utf8"));
    }
  }
  return tree;
}

function under(tree: Tree, ...prefixes: string[]): [path: string, text: string][] {
  return [...tree].filter(([path]) => prefixes.some((prefix) => path.startsWith(prefix)));
}

/** The code without its comments; strings stay. */
function codeOf(text: string): string {
  const stringOrComment =
    /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return text.replaceAll(stringOrComment, (_, kept: string | undefined) => kept ?? "");
}

/** What a file imports or exports from elsewhere: repository paths with `.ts`, or bare names. */
function importsOf(path: string, text: string): string[] {
  const clause =
    /(?:^|\n)\s*(?:import|export)\b(?:[^;"']*?\bfrom)?\s*"([^"]+)"|\bimport\("([^"]+)"\)/g;
  return [...codeOf(text).matchAll(clause)].map((match) => {
    const target = match[1] ?? match[2] ?? "";
    if (!target.startsWith(".")) return target;
    const resolved = posix.join(posix.dirname(path), target);
    return `${resolved.replace(/\.[jt]s$/, "")}.ts`;
  });
}

/** Lines of code that match, outside the files that may hold them. */
function linesMatching(tree: Tree, prefix: string, pattern: RegExp, allowed: RegExp): string[] {
  return under(tree, prefix)
    .filter(([path]) => !allowed.test(path))
    .flatMap(([path, text]) =>
      codeOf(text)
        .split("\n")
        .filter((line) => pattern.test(line))
        .map((line) => `${path}: ${line.trim()}`),
    );
}

// --- Layers ----------------------------------------------------------------------------------------

interface Layer {
  readonly name: string;
  readonly files: RegExp;
  readonly sees: readonly string[];
}

// The first layer that matches a file is the file's.
const SOURCE_LAYERS: readonly Layer[] = [
  {
    name: "base",
    files: /^src\/(types|errors|limits|clock|random)\.ts$|^src\/util\//,
    sees: ["base"],
  },
  // What a GPU's device is, and its buffers.
  { name: "device", files: /^src\/gpu\//, sees: ["base", "device"] },
  { name: "core", files: /^src\/core\//, sees: ["abi", "base", "core"] },
  { name: "record", files: /^src\/record\//, sees: ["base", "record"] },
  {
    name: "seam",
    files:
      /^src\/(arena\/arena|tier\/(tier|device-tier|file-system)|codec\/codec|policy\/((eviction|admission)-policy|learnt-stats)|predictor\/(tier-)?predictor|lifetime\/lifetime-predictor|hardware\/hardware-profile|stats\/(stats-sink|feature|recording)|kv\/(page-form|forms\/(exact|section)))\.ts$/,
    sees: ["base", "core", "device", "seam"],
  },
  // Plain data about the whole, and its rendering.
  {
    name: "figures",
    files: /^src\/stats\/(memory-(map|stats)|report|format)\.ts$/,
    sees: ["base", "core", "seam", "memory", "residency", "cache", "figures"],
  },
  {
    name: "implementation",
    files: /^src\/(arena|tier|codec|policy|predictor|lifetime|hardware|stats|kv\/forms)\//,
    sees: ["base", "core", "device", "seam", "implementation"],
  },
  // The one record of residency: memory/ holds it, cache/ is policies over it.
  {
    name: "residency",
    files: /^src\/(cache|memory)\/tensor-record\.ts$/,
    sees: ["base", "seam", "memory"],
  },
  {
    name: "memory",
    files: /^src\/memory\//,
    sees: ["base", "device", "core", "record", "seam", "residency", "memory"],
  },
  {
    name: "cache",
    files: /^src\/(cache|kv)\//,
    sees: ["base", "core", "device", "record", "seam", "residency", "memory", "cache"],
  },
  {
    name: "gpu",
    files: /^src\/webgpu\.ts$/,
    sees: ["base", "device", "seam", "implementation", "cache"],
  },
  // The codecs, and the parts that callers may choose, by themselves: subpaths of the package.
  {
    name: "codecs",
    files: /^src\/(codecs|layout|policies)\.ts$/,
    sees: ["base", "core", "seam", "implementation"],
  },
  {
    name: "low-level",
    files: /^src\/(buddy|view)-allocator\.ts$/,
    sees: ["abi", "base", "core", "memory"],
  },
  {
    name: "plan",
    files: /^src\/plan\//,
    sees: ["abi", "base", "seam", "implementation", "memory", "cache", "figures", "plan"],
  },
  {
    name: "metrics",
    files: /^src\/metrics\//,
    sees: ["base", "seam", "memory", "figures", "metrics"],
  },
  {
    name: "composition",
    files: /^src\/tensor-memory(-parts)?\.ts$|^src\/presets\//,
    sees: [
      ...["base", "core", "record", "seam", "implementation", "residency", "memory", "cache"],
      ...["figures", "plan", "composition"],
    ],
  },
  {
    name: "surface",
    files: /^src\/(index|node|browser|kv|metrics|plan)\.ts$|^src\/adapters\//,
    sees: [
      ...["base", "core", "device", "seam", "residency", "memory", "cache", "figures"],
      ...["low-level", "plan", "metrics", "composition", "surface"],
    ],
  },
  // The command works on files and policies, without a memory.
  {
    name: "command",
    files: /^src\/cli\//,
    sees: [
      "base",
      "core",
      "record",
      "seam",
      "implementation",
      "figures",
      "plan",
      "metrics",
      "command",
    ],
  },
  {
    name: "testing",
    files: /^src\/testing\//,
    sees: [
      ...["base", "core", "record", "seam", "implementation", "residency", "memory", "cache"],
      ...["figures", "low-level", "composition", "testing"],
    ],
  },
  { name: "abi", files: /^assembly\/(kernels-)?abi\.ts$/, sees: [] },
];

// A file sees the rows above its own. Within a row nobody sees anybody.
const ASSEMBLY_ROWS: readonly RegExp[] = [
  /^(kernels-)?abi$/,
  /^lock$/,
  /^(panic|bits|bitmap|list|control|size-class)$|^hash\/|^layout\/rows$|^codec\/(lanes|half|pack|rotate|plane|huffman|sparse|eigen)$/,
  /^layout\/axes$|^codec\/(matrix|measure|block|chan|lm|attend|attend-q8|attend-chan)$/,
  /^codec\/attend-lm$/,
  /^(order-tree|region|slots|stats)$/,
  /^(arena-row|stretch)$/,
  /^slab$/,
  /^mixed-slab$/,
  /^block$/,
  /^binding$/,
  /^(class-cache|lane-cache|sorted-slots)$/,
  /^(arena|check-slab|compact-goal)$/,
  /^(batch|compact|format|pool|resize)$/,
  /^check$/,
  /^recover$/,
  /^lane$/,
  /^(index|kernels)$/,
];

function layerOf(path: string): Layer | undefined {
  return SOURCE_LAYERS.find(({ files }) => files.test(path));
}

function checkSourceLayers(tree: Tree): string[] {
  return under(tree, "src/").flatMap(([path, text]) => {
    const own = layerOf(path);
    if (own === undefined) return [`${path} is in no layer`];
    return importsOf(path, text)
      .filter((target) => /^(src|assembly)\//.test(target) && !/\.generated\.ts$/.test(target))
      .filter((target) => !own.sees.includes(layerOf(target)?.name ?? "none"))
      .map((target) => `${path} (${own.name}) imports ${target} (${layerOf(target)?.name})`);
  });
}

function rowOf(path: string): number {
  const name = path.replace(/^assembly\//, "").replace(/\.ts$/, "");
  return ASSEMBLY_ROWS.findIndex((files) => files.test(name));
}

function checkAssemblyLayers(tree: Tree): string[] {
  return under(tree, "assembly/").flatMap(([path, text]) => {
    if (rowOf(path) < 0) return [`${path} is in no row`];
    return importsOf(path, text)
      .filter((target) => rowOf(target) < 0 || rowOf(target) >= rowOf(path))
      .map((target) => `${path} imports ${target}`);
  });
}

/** Cycles count whether they are of types or of values: both say that two files are one. */
function findCycles(tree: Tree): string[] {
  const files = under(tree, "src/", "assembly/", "examples/");
  const graph = new Map(files.map(([path, text]) => [path, importsOf(path, text)]));
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) cycles.push([...trail.slice(at), path].join(" → "));
    if (at >= 0 || done.has(path)) return;
    for (const target of graph.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return cycles;
}

// --- Declared and used -----------------------------------------------------------------------------

/** INV-<MODULE>-<n>: declared once beside its struct, checked by check.ts, named by a spec. */
function checkInvariants(tree: Tree): string[] {
  const declared = under(tree, "assembly/").flatMap(([, text]) =>
    [...text.matchAll(/^\/\/\s+(INV-[A-Z]+-\d+) {2}/gm)].map((match) => match[1] as string),
  );
  const abi = tree.get("assembly/abi.ts") ?? "";
  const known = [...abi.matchAll(/^export const (INV_\w+)/gm)].map((match) =>
    (match[1] as string).replaceAll("_", "-"),
  );
  const checker = codeOf(tree.get("assembly/check.ts") ?? "");
  const specs = under(tree, "tests/core/").map(([, text]) => text);
  return [...new Set([...declared, ...known])].flatMap((name) => {
    const word = new RegExp(`\\b${name}\\b`);
    const count = declared.filter((each) => each === name).length;
    return [
      ...(count === 1 ? [] : [`${name} is declared ${count} times`]),
      ...(known.includes(name) ? [] : [`${name} has no constant in abi.ts`]),
      ...(new RegExp(`\\b${name.replaceAll("-", "_")}\\b`).test(checker)
        ? []
        : [`${name} is not used in check.ts`]),
      ...(specs.some((text) => word.test(text)) ? [] : [`${name} is named by no spec`]),
    ];
  });
}

/** Every code of the unions in errors.ts is given to an error somewhere. */
function checkErrorCodes(tree: Tree): string[] {
  const errors = tree.get("src/errors.ts") ?? "";
  const code = under(tree, "src/")
    .filter(([path]) => !path.startsWith("src/testing/"))
    .map(([path, text]) =>
      path === "src/errors.ts"
        ? codeOf(text).replaceAll(/type \w+Code =[^;]*;/g, "")
        : codeOf(text),
    )
    .join("\n");
  // Reserved by the design for parts that are not built yet.
  const reserved = ["timeout"];
  return [...codeOf(errors).matchAll(/type (\w+Code) =([^;]*);/g)].flatMap(([, union, members]) =>
    [...(members ?? "").matchAll(/"([^"]+)"/g)]
      .map((match) => match[1] as string)
      .filter((member) => !reserved.includes(member) && !code.includes(`"${member}"`))
      .map((member) => `${union} "${member}" is never thrown`),
  );
}

const DECISION_HEADINGS = ["Context", "Decision", "Consequences", "Rejected", "Revisit when"];

function checkDecisions(tree: Tree): string[] {
  const decisions = under(tree, "docs/decisions/").filter(([path]) => !path.endsWith("README.md"));
  return decisions.flatMap(([path, text]) =>
    DECISION_HEADINGS.filter((heading) => !new RegExp(`^#+ ${heading}`, "m").test(text)).map(
      (heading) => `${path} has no heading "${heading}"`,
    ),
  );
}

function findGenerated(paths: readonly string[]): string[] {
  return paths.filter((path) =>
    /\.(wasm|wat|map|tsbuildinfo)$|\.generated\.|^(dist|build|node_modules)\//.test(path),
  );
}

// --- The rules -------------------------------------------------------------------------------------

const LOADER = "@assemblyscript/loader";
const importLoader = `import { instantiate } from "${LOADER}";`;

const RULES: readonly Rule[] = [
  {
    name: "src: each layer sees only the layers below it",
    check: checkSourceLayers,
    canary: {
      "src/cache/a.ts": 'import { lru } from "../policy/lru.js";',
      "src/policy/lru.ts": "",
    },
  },
  {
    name: "assembly: each file sees only the rows above it",
    check: checkAssemblyLayers,
    canary: { "assembly/bits.ts": 'import * as arena from "./arena";', "assembly/arena.ts": "" },
  },
  {
    name: "no cycles",
    check: findCycles,
    canary: {
      "src/cache/a.ts": 'import type { B } from "./b.js";',
      "src/cache/b.ts": 'import {\n  type C,\n} from "./c.js";',
      "src/cache/c.ts": 'export type { A } from "./a.js";',
    },
  },
  {
    name: "no inner barrel files",
    check: (tree) =>
      linesMatching(
        tree,
        "src/",
        /^export (\*|(type )?\{.*\} from)|^\} from "[^"]*";? *\/\/ export/,
        /^src\/(index|node|browser|codecs|kv|layout|metrics|plan|policies|webgpu|adapters\/(ort(-webgpu)?|model-worker|safetensors(-node)?|transformers)|testing\/index)\.ts$/,
      ),
    canary: { "src/tier/index.ts": 'export * from "./tier.js";' },
  },
  {
    name: "node: only in *-node.ts and cli/",
    check: (tree) =>
      under(tree, "src/")
        .filter(([path]) => !/-node\.ts$|^src\/cli\//.test(path))
        .flatMap(([path, text]) =>
          importsOf(path, text)
            .filter((target) => target.startsWith("node:"))
            .map((target) => `${path} imports ${target}`),
        ),
    canary: { "src/tier/fs.ts": 'import { open } from "node:fs/promises";' },
  },
  {
    name: "no package but the loader and the Redis client, each in one file",
    check: (tree) => {
      const users = under(tree, "src/").flatMap(([path, text]) =>
        importsOf(path, text)
          .filter((target) => !/^(src|assembly)\/|^node:/.test(target))
          .filter((target) => target !== "ioredis" || path !== "src/tier/redis-link.ts")
          .map((target) => `${path} imports ${target}`),
      );
      const isFine = users.length === 1 && users[0]?.endsWith(` ${LOADER}`) === true;
      return isFine ? [] : users;
    },
    canary: { "src/core/a.ts": importLoader, "src/tier/b.ts": 'import { Redis } from "ioredis";' },
  },
  {
    name: "browser globals only in the browser's twins",
    check: (tree) =>
      linesMatching(
        tree,
        "src/",
        /\bnavigator\b|\bindexedDB\b|\bGPU[A-Z]\w+/,
        /^src\/(core\/lane-watch|hardware\/(detect|calibration)-browser|tier\/(has-database|indexed-db|opfs-worker|webgpu)|presets\/browser)\.ts$/,
      ),
    canary: { "src/memory/a.ts": "export const has = 'locks' in navigator;" },
  },
  {
    name: "WebAssembly, memory.buffer and >>> 0 only in core/",
    check: (tree) =>
      linesMatching(
        tree,
        "src/",
        /\bWebAssembly\.|\b(memory|wasm)\.buffer\b|>>> 0\b/,
        // The seeded generator and the packing of handles are arithmetic on u32 of their own.
        /^src\/(core|testing)\/|^src\/(random|buddy-allocator)\.ts$/,
      ),
    canary: { "src/arena/a.ts": "const view = new Uint8Array(memory.buffer, offset >>> 0);" },
  },
  {
    name: "time, timers and randomness only in clock.ts and random.ts",
    check: (tree) =>
      linesMatching(
        tree,
        "src/",
        /\bDate\.now\b|\bnew Date\b|\bperformance\.now\b|\bMath\.random\b|\bset(Timeout|Interval|Immediate)\b|\bgetRandomValues\b|\brandomUUID\b/,
        /^src\/(clock|random)\.ts$/,
      ),
    canary: { "src/cache/a.ts": "const startMs = Date.now();" },
  },
  {
    name: "assembly: no mutable module state, no objects, no closures",
    check: (tree) =>
      linesMatching(tree, "assembly/", /^(export )?(let|var)\b|\bnew [A-Z]|=>/, /^$/),
    canary: { "assembly/bits.ts": "let count: u32 = 0;" },
  },
  {
    name: "the library never logs, and silences no compiler",
    check: (tree) =>
      linesMatching(tree, "src/", /\bconsole\.|\bdebugger\b|@ts-ignore|@ts-nocheck/, /^$/),
    canary: { "src/cache/a.ts": "console.log(1);" },
  },
  {
    name: "invariants are declared once, checked and tested",
    check: checkInvariants,
    canary: {
      "assembly/abi.ts": "export const INV_TREE_1 = 101;",
      "assembly/order-tree.ts": "// INV-TREE-1  A block and its buddy are never both free.",
      "assembly/check.ts": "// INV_TREE_1",
      "tests/core/check.spec.ts": 'test("INV-TREE-1", () => {});',
    },
  },
  {
    name: "every error code is thrown somewhere",
    check: checkErrorCodes,
    canary: { "src/errors.ts": 'export type MisuseCode = "bad-size" | "never";\n"bad-size";' },
  },
  {
    name: "decisions have their headings",
    check: checkDecisions,
    canary: { "docs/decisions/0001-a.md": "# A\n## Context\n## Decision\n## Consequences\n" },
  },
  {
    name: `no file holds more than ${LINE_COUNT_MAX} lines of code`,
    check: (tree) =>
      under(tree, "src/", "assembly/", "scripts/", "bench/").flatMap(([path, text]) => {
        const lines = codeOf(text).split("\n");
        const count = lines.filter((line) => line.trim() !== "").length;
        return count > LINE_COUNT_MAX ? [`${path}: ${count} lines`] : [];
      }),
    canary: { "src/cache/a.ts": "const a = 1;\n".repeat(LINE_COUNT_MAX + 1) },
  },
  {
    name: "open questions name their issue",
    check: (tree) =>
      under(tree, "src/", "assembly/", "examples/", "scripts/", "bench/").flatMap(([path, text]) =>
        (text.match(/\bFIXME\b.*|\bTODO\b(?!\(#\d+\):).*/g) ?? []).map((hit) => `${path}: ${hit}`),
      ),
    canary: { "src/cache/a.ts": "// TODO: later" },
  },
];

describe("tidy", () => {
  const tree = readTree();

  it("reads the tree", () => {
    for (const folder of ["src/", "assembly/", "tests/core/"]) {
      expect(under(tree, folder).length, folder).toBeGreaterThan(10);
    }
    const imports = importsOf("src/tier/fs.ts", tree.get("src/tier/fs.ts") ?? "");
    expect(imports).toContain("src/errors.ts");
    expect(codeOf('a("// b"); // c\n/* d */ e')).toBe('a("// b"); \n e');
  });

  for (const { name, check, canary } of RULES) {
    it(name, () => {
      expect(check(tree)).toEqual([]);
    });
    it(`would catch: ${name}`, () => {
      expect(check(new Map(Object.entries(canary)))).not.toEqual([]);
    });
  }

  it("nothing generated is committed", (context) => {
    const { status, stdout } = spawnSync("git", ["ls-files"], { cwd: root, encoding: "utf8" });
    if (status !== 0) return context.skip("this is not a git checkout");
    const paths = stdout.trim().split("\n");
    expect(paths.length).toBeGreaterThan(50);
    expect(findGenerated(paths)).toEqual([]);
  });

  it("would catch: a generated file", () => {
    expect(findGenerated(["src/core/wasm-bytes.generated.ts", "build/core.wasm"])).toHaveLength(2);
  });
});
