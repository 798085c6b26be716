// What JSON.parse does not tell: that a key comes twice, that a number is written with a fraction, how
// deep the nesting is. Reads text that JSON.parse has accepted.
import { describe } from "../../types.js";
import { SafetensorsError } from "./safetensors-error.js";

/** Deeper than any header or index. */
const DEPTH_MAX = 8;
const WHOLE_NUMBER = /^(?:0|[1-9][0-9]*)$/;
const KEY_END = /\s*:/y;
const NUMBER = /[-+.0-9eE]+/y;

/** The index behind the closing quote of the string that begins at `start`. */
function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

function isKey(text: string, end: number): boolean {
  KEY_END.lastIndex = end;
  return KEY_END.test(text);
}

function numberAt(text: string, start: number): string {
  NUMBER.lastIndex = start;
  return NUMBER.exec(text)?.[0] ?? "";
}

/**
 * Parses JSON in which every key comes once in its object.
 *
 * @param options.numbers `"whole"`: every number is a whole one, not negative, that is exact.
 * @throws {SafetensorsError} `header-json`; `duplicate-name`.
 */
export function parseStrictJson(
  text: string,
  { numbers }: { readonly numbers: "whole" | "any" },
): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new SafetensorsError("header-json", "the header is not JSON", { cause: error });
  }
  // The keys of each object that is open; null for an array.
  const open: (Set<string> | null)[] = [];
  for (let at = 0; at < text.length; ) {
    const character = text[at] as string;
    if (character === '"') {
      const end = stringEnd(text, at);
      const keys = open[open.length - 1];
      if (keys != null && isKey(text, end)) {
        const key = JSON.parse(text.slice(at, end)) as string;
        if (keys.has(key)) throw new SafetensorsError("duplicate-name", `${describe(key)} twice`);
        keys.add(key);
      }
      at = end;
    } else if (/[-0-9]/.test(character)) {
      const digits = numberAt(text, at);
      const isWhole = WHOLE_NUMBER.test(digits) && Number.isSafeInteger(Number(digits));
      if (!isWhole && numbers === "whole") {
        throw new SafetensorsError("header-json", `${describe(digits)} is not a whole number`);
      }
      at += digits.length;
    } else {
      if (character === "{") open.push(new Set());
      if (character === "[") open.push(null);
      if (character === "}" || character === "]") open.pop();
      if (open.length > DEPTH_MAX) {
        throw new SafetensorsError("header-json", "the header is nested too deep");
      }
      at += 1;
    }
  }
  return value;
}

/** Whether a parsed value is an object with keys. */
export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
