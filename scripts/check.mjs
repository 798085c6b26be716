// All static checks: format and lint, promises, types, the shape of the package, sizes. Prints a
// step's output only when it fails, but for the sizes.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { binary, gate, root, runNode, runSteps } from "./steps.mjs";

const isQuiet = true;
const tsc = binary("typescript", "bin/tsc");

function typeCheck(project, title) {
  return {
    title,
    run: async () => {
      if (!existsSync(join(root, project))) return `${project} does not exist`;
      return gate(await runNode(tsc, ["--noEmit", "--project", project], { isQuiet }));
    },
  };
}

function tool(title, packageName, path, args) {
  return {
    title,
    run: async () => gate(await runNode(binary(packageName, path), args, { isQuiet })),
  };
}

await runSteps("check", [
  {
    title: "build",
    isRequired: true,
    run: async () => gate(await runNode(join(root, "scripts", "build.mjs"), [], { isQuiet })),
  },
  tool("format, lint (biome)", "@biomejs/biome", "bin/biome", ["check", "--error-on-warnings"]),
  tool("promises (oxlint)", "oxlint", "bin/oxlint", ["--type-aware", "--deny-warnings"]),
  typeCheck("tsconfig.json", "types of src"),
  typeCheck("tsconfig.examples.json", "types of examples/chat"),
  typeCheck("examples/demo/tsconfig.json", "types of examples/demo"),
  typeCheck("tests/tsconfig.json", "types of tests"),
  tool("package (publint)", "publint", "src/cli.js", ["--strict", "--pack", "npm"]),
  // Only as modules, for current resolution; the modules of WebAssembly have no types.
  tool("types of the package (attw)", "@arethetypeswrong/cli", "dist/index.js", [
    ...["--pack", ".", "--profile", "esm-only"],
    ...["--exclude-entrypoints", "core.wasm", "kernels.wasm"],
  ]),
  {
    title: "sizes",
    run: async () => {
      const { code, output } = await runNode(join(root, "scripts", "size.mjs"));
      const passed = output.match(/^ok\b/gm)?.length ?? 0;
      const failures = output.match(/^FAIL .*/gm) ?? [];
      return { passed, failed: Math.max(failures.length, code === 0 ? 0 : 1), failures };
    },
  },
]);
