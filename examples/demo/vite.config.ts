import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

// Isolation is what shared memories need. The page works without it too: `--mode plain` serves it so.
const isolationHeaders = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

// vite drops `server.headers` from 304 answers, so a middleware sets them as well.
const isolation: Plugin = {
  name: "isolation",
  configureServer: ({ middlewares }) => {
    middlewares.use(addHeaders);
  },
  configurePreviewServer: ({ middlewares }) => {
    middlewares.use(addHeaders);
  },
};

/**
 * What the first memory over the browser's storage loads. The package loads its parts when they are needed; this page
 * needs these at once: as one file they are compressed together, and come in one round.
 */
const HEAP = {
  name: "heap",
  test: new RegExp(
    `src/(${[
      "presets/(browser|lifetimes|observe|profile|stack)",
      "tier/(has-database|opfs|opfs-worker-text\\.generated)",
      "hardware/calibration-browser",
      "policy/learnt",
      "cache/(codec-meter|record-coder)",
      "core/kernels-wasm-bytes\\.generated",
      "stats/memory-map",
    ].join("|")})\\.ts$`,
  ),
};

/** The runtime's worker is its own script: nothing of the page may be in it. */
const RUNTIME = { name: "onnxruntime", test: /node_modules\/onnxruntime-web\// };

function addHeaders(
  _request: unknown,
  response: { setHeader(name: string, value: string): void },
  next: () => void,
): void {
  for (const [name, value] of Object.entries(isolationHeaders)) response.setHeader(name, value);
  next();
}

export default defineConfig(({ mode }) => {
  const isIsolated = mode !== "plain";
  const headers = isIsolated ? isolationHeaders : {};
  return {
    root: path("."),
    base: "./",
    plugins: isIsolated ? [isolation] : [],
    resolve: {
      alias: [
        { find: /^tierheap$/, replacement: path("../../src/browser.ts") },
        { find: /^tierheap\/adapters\/(.*)$/, replacement: path("../../src/adapters/$1.ts") },
      ],
      // The runtime without its files inline: they are served beside the page, and loaded on demand.
      conditions: [
        "onnxruntime-web-use-extern-wasm",
        ...["module", "browser", "development|production"],
      ],
    },
    worker: { format: "es" },
    optimizeDeps: { exclude: ["onnxruntime-web"] },
    server: { host: "127.0.0.1", headers, fs: { allow: [path("../..")] } },
    preview: { host: "127.0.0.1", headers },
    build: {
      outDir: path("../../build/demo"),
      emptyOutDir: true,
      target: "es2022",
      // Browsers that know this target preload modules by themselves.
      modulePreload: { polyfill: false },
      rolldownOptions: { output: { codeSplitting: { groups: [HEAP, RUNTIME] } } },
    },
  };
});
