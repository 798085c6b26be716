// The code in a document, and the programs that it makes up. See docs/guides/README.md for the rules.
import { readFileSync } from "node:fs";

/** `program`: runs in Node. `page`: runs in a browser. `check`: is type-checked behind the program. */
export type BlockUse = "program" | "page" | "check";

export interface Block {
  /** The word after the fence: `ts`, `sh`, `text`, `html`. */
  readonly language: string;
  readonly use: BlockUse;
  /** Code that the document leaves out, from a comment `<!-- before: … -->` in front of the block. */
  readonly before: string;
  readonly text: string;
}

const BLOCK = /(?:<!-- before:([\s\S]*?)-->\n+)?```(\S*) ?(\w*)\n([\s\S]*?)```/g;

/** Every fenced block of a document. */
export function blocksOf(path: string): Block[] {
  const document = readFileSync(path, "utf8");
  return [...document.matchAll(BLOCK)].map(([, before, language, use, text]) => ({
    language: language ?? "",
    use: (use || "program") as BlockUse,
    before: before?.trim() ?? "",
    text: text ?? "",
  }));
}

const IMPORT = /^import [\s\S]*?from "[^"]+";\n/gm;

/** One module, with the imports of all texts first, each once. */
function moduleOf(texts: readonly string[]): string {
  const whole = texts.join("\n");
  return `${[...new Set(whole.match(IMPORT))].join("")}${whole.replaceAll(IMPORT, "")}`;
}

const codeOf = (blocks: readonly Block[], use: BlockUse) =>
  blocks.filter((block) => block.language === "ts" && block.use === use);

/** The blocks of one use as one module, in their order; empty when there are none. */
export function programOf(blocks: readonly Block[], use: "program" | "page"): string {
  return moduleOf(codeOf(blocks, use).map(({ before, text }) => `${before}\n${text}`));
}

/** The program, and behind it the blocks that are only checked, in functions that nobody calls. */
export function checkedOf(blocks: readonly Block[]): string {
  const checked = codeOf(blocks, "check").map(({ before, text }, index) => {
    const imports = text.match(IMPORT) ?? [];
    const rest = text.replaceAll(IMPORT, "");
    return `${imports.join("")}export async function checked${index}() {\n${before}\n${rest}}\n`;
  });
  return moduleOf([programOf(blocks, "program"), ...checked]);
}

/** Lines that the document says the program prints. */
export function outputOf(blocks: readonly Block[]): string[] {
  return blocks
    .filter(({ language }) => language === "text")
    .flatMap(({ text }) => text.trimEnd().split("\n"));
}
