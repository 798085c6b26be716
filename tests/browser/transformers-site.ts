// The page of transformers.js: the runtime's files come from its package, the models from a seed.
import { createReadStream } from "node:fs";
import { fileURLToPath } from "node:url";
import type { InlineConfig, PreviewServer } from "vite";
import { type TinyFamily, tinyModelFiles } from "../../examples/transformers/tiny-model.js";

const path = (relative: string) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));

/** transformers.js pins a version of its own. */
const RUNTIME = "node_modules/@huggingface/transformers/node_modules/onnxruntime-web/dist";
const RUNTIME_FILE = /^\/runtime\/([\w.-]+\.(mjs|wasm))$/;
const MODEL_FILE = /^\/models\/(llama|gpt2)-(\d+)\/(.+)$/;

/** How the page's server treats model files. */
export const modelServer = {
  isOffline: false,
  /** The connection is cut after so many bytes of a weights file. */
  cutAfterBytes: Number.POSITIVE_INFINITY,
  /** `PATH RANGE` of each request. */
  requests: [] as string[],
};

function serveFiles({ middlewares }: PreviewServer): void {
  middlewares.use((request, response, next) => {
    const url = request.url?.split("?")[0] ?? "";
    const [, runtimeFile, extension] = RUNTIME_FILE.exec(url) ?? [];
    if (runtimeFile !== undefined) {
      const type = extension === "wasm" ? "application/wasm" : "text/javascript";
      response.setHeader("Content-Type", type);
      createReadStream(path(`${RUNTIME}/${runtimeFile}`)).pipe(response);
      return;
    }
    const [, family, seed, name = ""] = MODEL_FILE.exec(url) ?? [];
    if (family === undefined) return next();
    const file = tinyModelFiles(family as TinyFamily, Number(seed)).get(name);
    const { range = "" } = request.headers;
    modelServer.requests.push(`${url} ${range}`.trim());
    if (modelServer.isOffline || file === undefined) {
      response.writeHead(modelServer.isOffline ? 503 : 404).end();
      return;
    }
    const first = Number(/^bytes=(\d+)-/.exec(range)?.[1] ?? 0);
    const part = file.subarray(first);
    response.setHeader("ETag", `"${url}"`);
    response.setHeader("Content-Length", part.byteLength);
    if (range !== "") {
      const { byteLength } = file;
      response.setHeader("Content-Range", `bytes ${first}-${byteLength - 1}/${byteLength}`);
    }
    response.writeHead(range === "" ? 200 : 206);
    const { cutAfterBytes } = modelServer;
    if (!name.endsWith(".onnx") || part.byteLength <= cutAfterBytes) {
      response.end(part);
      return;
    }
    response.write(part.subarray(0, cutAfterBytes), () => {
      setTimeout(() => response.destroy(), 500);
    });
  });
}

export const TRANSFORMERS_PAGE: InlineConfig = {
  configFile: false,
  root: path("tests/browser/transformers-page"),
  resolve: {
    alias: [
      { find: /^tierheap\/browser$/, replacement: path("src/browser.ts") },
      { find: /^tierheap\/testing$/, replacement: path("src/testing/index.ts") },
      {
        find: /^tierheap\/adapters\/transformers$/,
        replacement: path("src/adapters/transformers.ts"),
      },
    ],
  },
  build: { outDir: path("build/transformers-page"), emptyOutDir: true, target: "es2022" },
  plugins: [{ name: "models", configurePreviewServer: serveFiles }],
};
