// `tierheap map`: a picture, or a table, of where every block lay when a program wrote down `memory.map()`.
import { readFile, writeFile } from "node:fs/promises";
import { formatArenas } from "../metrics/arena-table.js";
import { mapSvg } from "../metrics/map-svg.js";
import type { MappedArena, MemoryMap } from "../stats/memory-map.js";
import { TENSOR_KINDS } from "../types.js";
import {
  type Command,
  CommandError,
  type CommandIo,
  type CommandOptions,
  EXIT_REFUSED,
} from "./command.js";

const refuse = () => new CommandError(EXIT_REFUSED, "the file is no map as memory.map() gives it");

function isCount(value: unknown, most = Number.MAX_SAFE_INTEGER): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most;
}

function isKind(value: unknown): boolean {
  return (TENSOR_KINDS as readonly unknown[]).includes(value);
}

/** Whether it is an arena whose blocks follow one another inside it. */
function isArena(value: unknown): value is MappedArena {
  const { id, kind, byteLength, blocks } = (value ?? {}) as Partial<Record<string, unknown>>;
  if (!isCount(id) || !isKind(kind) || !isCount(byteLength) || !Array.isArray(blocks)) return false;
  let end = 0;
  for (const each of blocks as unknown[]) {
    const block = (each ?? {}) as Partial<Record<string, unknown>>;
    const { offset, byteLength: blockBytes, requestedBytes, id: name } = block;
    const isNamed = name === null || typeof name === "string";
    if (!isCount(offset) || !isCount(blockBytes, byteLength) || !isCount(requestedBytes))
      return false;
    if (!isKind(block["kind"]) || !isNamed || typeof block["isPinned"] !== "boolean") return false;
    if (offset < end || offset + blockBytes > byteLength) return false;
    end = offset + blockBytes;
  }
  return true;
}

function parsedMap(text: string): MemoryMap {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) throw refuse();
    throw error;
  }
  const arenas: unknown = (value as { arenas?: unknown } | null)?.arenas;
  if (!Array.isArray(arenas) || !arenas.every(isArena)) throw refuse();
  return { arenas };
}

async function map(file: string, options: CommandOptions, { out }: CommandIo): Promise<number> {
  const memoryMap = parsedMap(await readFile(file, "utf8"));
  const { output } = options;
  if (options["table"] === true) out.write(`${formatArenas(memoryMap)}\n`);
  else if (typeof output !== "string") out.write(mapSvg(memoryMap));
  if (typeof output === "string") await writeFile(output, mapSvg(memoryMap));
  return 0;
}

export const MAP: Command = {
  synopsis: "map FILE",
  summary: "Draws where every block of a memory lay, from what memory.map() gave.",
  help: `  -o, --output FILE   where the SVG goes (standard output)
  --table             print a table of the arenas

FILE is JSON.stringify(await memory.map()), such as npm start -- --map FILE writes it.
`,
  options: { output: { type: "string", short: "o" }, table: { type: "boolean" } },
  run: map,
};
