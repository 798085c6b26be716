// Mutants: the release build of the core with one instruction changed. The model must notice; those
// that it does not notice do the same work in another way, or show what the model does not look at.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { words } from "./random.mjs";

const CHANGES = {
  "i32.add": "i32.sub",
  "i32.sub": "i32.add",
  "i32.eq": "i32.ne",
  "i32.ne": "i32.eq",
  "i32.lt_u": "i32.le_u",
  "i32.ge_u": "i32.gt_u",
  "i32.gt_u": "i32.ge_u",
  "i32.le_u": "i32.lt_u",
  "i32.and": "i32.or",
  "i32.or": "i32.and",
  "i32.shl": "i32.shr_u",
  "i32.shr_u": "i32.shl",
  "i64.and": "i64.or",
  "i64.or": "i64.and",
  "i64.add": "i64.sub",
  "i64.sub": "i64.add",
  "i32.const 1": "i32.const 2",
  "i32.const 0": "i32.const 1",
};
/** A check that is too lax finds nothing that is wrong, because nothing is; nor is it called else. */
const LEFT_OUT = /\$assembly\/(check|format)|\/controlBytes|\/controlAttach|\/bitmapIsExact/;

async function loadBinaryen() {
  const fromHere = createRequire(import.meta.url);
  const fromCompiler = createRequire(fromHere.resolve("assemblyscript/package.json"));
  const { default: binaryen } = await import(pathToFileURL(fromCompiler.resolve("binaryen")));
  return binaryen;
}

/** Lines of the text that a change applies to, with the function that each is in. */
function candidatesOf(lines) {
  const candidates = [];
  let name = "";
  lines.forEach((line, index) => {
    name = /^ \(func (\S+)/.exec(line)?.[1] ?? name;
    const instruction = line.trim();
    if (name === "" || LEFT_OUT.test(name) || CHANGES[instruction] === undefined) return;
    candidates.push({ name, instruction, index });
  });
  return candidates;
}

/**
 * Mutants of the release build, of different lines.
 *
 * @returns Each with its module's bytes and a `title` that says where it is and what was changed.
 */
export async function mutantsOf(seed, count) {
  const text = await readFile(new URL("../../build/core.wat", import.meta.url), "utf8");
  const binaryen = await loadBinaryen();
  const random = words(seed);
  const lines = text.split("\n");
  const candidates = candidatesOf(lines);
  const mutants = [];
  while (mutants.length < count && candidates.length > 0) {
    const [{ name, instruction, index }] = candidates.splice(random() % candidates.length, 1);
    const changed = [...lines];
    changed[index] = changed[index].replace(instruction, CHANGES[instruction]);
    const module = binaryen.parseText(changed.join("\n"));
    const bytes = module.emitBinary();
    module.dispose();
    mutants.push({ bytes, title: `${name}, line ${index + 1}: ${CHANGES[instruction]}` });
  }
  return mutants;
}
