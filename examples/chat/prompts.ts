/**
 * Makes the users of the chat example speak: it takes passages and sentences from the text
 * documents of a repository and frames them as prompts. Tokens are bytes, so a prompt is its UTF-8
 * form. It draws only from the generator it is given: the same documents and seed give the same
 * prompts.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** One text file. */
export interface TextDocument {
  /** Relative to the root, with `/` between folders. */
  readonly path: string;
  /** UTF-8, as stored. */
  readonly bytes: Uint8Array;
}

/** What the user of one chat says. */
export interface ChatPrompts {
  /** The first prompt: framing around a passage. */
  readonly opening: Uint8Array;
  /** The lines that follow, one for each further turn. */
  readonly followUps: readonly Uint8Array[];
}

/** An inclusive range of lengths. */
export interface ByteRange {
  readonly min: number;
  readonly max: number;
}

/** Shape of the prompts. */
export interface PromptOptions {
  /** Number of chats, at least 1. */
  readonly chats: number;
  /** Length of an opening, framing included. */
  readonly openingBytes: ByteRange;
  /** Length of a follow-up, framing included. */
  readonly followUpBytes: ByteRange;
  /** Turns of a chat, the opening included, at least 1. */
  readonly turnsMax: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** Below this total, documents alone repeat themselves; sources then join them. */
const DOCUMENT_BYTES_ENOUGH = 16 * 1024;

const ROOT_DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"];
const SOURCE_FOLDERS = ["src", "assembly", "examples", "dist"];
const SOURCE_FILE = /\.(?:ts|js|mjs)$/;

const QUESTIONS = [
  "Explain this passage",
  "Summarise this passage",
  "What follows from this passage",
  "Say this in simpler words",
  "Which terms need a definition here",
  "What would you change in this text",
];
const OPENING_END = "\nAssistant: ";
const FOLLOW_UP_START = "\nUser: ";
const FOLLOW_UP_END = "\n";

/** Pieces of fewer characters are headings and table cells. */
const SENTENCE_LENGTH_MIN = 12;

/** With fewer whole sentences than this, chats would keep asking the same. */
const WHOLE_SENTENCES_ENOUGH = 32;

const SPACE = 0x20;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * Reads the text documents below `root`: the usual files at the top, then `docs/`. Where these are
 * short or absent, `package.json` and the sources follow.
 *
 * @returns The documents in a fixed order, never empty: this file itself is the last resort.
 */
export async function loadDocuments(root: string): Promise<TextDocument[]> {
  const documents = await readAll(root, ROOT_DOCUMENTS);
  const markdownPaths = await listFiles(root, "docs", (path) => path.endsWith(".md"));
  documents.push(...(await readAll(root, markdownPaths)));
  if (totalBytes(documents) < DOCUMENT_BYTES_ENOUGH) {
    documents.push(...(await readAll(root, ["package.json"])));
    for (const folder of SOURCE_FOLDERS) {
      if (totalBytes(documents) >= DOCUMENT_BYTES_ENOUGH) break;
      const paths = await listFiles(root, folder, (path) => SOURCE_FILE.test(path));
      documents.push(...(await readAll(root, paths)));
    }
  }
  if (totalBytes(documents) === 0) {
    const path = fileURLToPath(import.meta.url);
    documents.push({ path, bytes: await readFile(path) });
  }
  return documents;
}

function totalBytes(documents: readonly TextDocument[]): number {
  return documents.reduce((sum, document) => sum + document.bytes.byteLength, 0);
}

/** Whether an error says that a path leads nowhere, or to something of another kind. */
function isAbsence(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR";
}

async function readAll(root: string, paths: readonly string[]): Promise<TextDocument[]> {
  const documents: TextDocument[] = [];
  for (const path of paths) {
    try {
      documents.push({ path, bytes: await readFile(join(root, path)) });
    } catch (error) {
      if (!isAbsence(error)) throw error;
    }
  }
  return documents;
}

/** Paths of the files below `folder`, sorted, hidden and installed ones left out. */
async function listFiles(
  root: string,
  folder: string,
  accepts: (path: string) => boolean,
): Promise<string[]> {
  const paths: string[] = [];
  const pending = [folder];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    try {
      for (const entry of await readdir(join(root, next), { withFileTypes: true })) {
        const path = `${next}/${entry.name}`;
        if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
        if (entry.isDirectory()) pending.push(path);
        else if (entry.isFile() && accepts(path)) paths.push(path);
      }
    } catch (error) {
      if (!isAbsence(error)) throw error;
    }
  }
  return paths.sort();
}

/**
 * Makes the prompts of each chat.
 *
 * @returns One entry for each chat. Every opening and follow-up lies within its range and is valid
 *   UTF-8. Openings start at different places of the documents, as far as these are long enough.
 * @throws {RangeError} When there is no text, or a range leaves no room for framing and a word.
 */
export function makePrompts(
  documents: readonly TextDocument[],
  options: PromptOptions,
): ChatPrompts[] {
  const { chats, openingBytes, followUpBytes, turnsMax, random } = options;
  checkRange("openingBytes", openingBytes);
  checkRange("followUpBytes", followUpBytes);
  const texts = documents.map((document) => decoder.decode(document.bytes));
  const passages = repeated(oneLine(texts.join(" ")), openingBytes.max);
  const sentences = chooseSentences(texts, passages, followUpBytes);

  const places = shuffled(chats, random);
  return places.map((place) => {
    const position = ((place + random()) / chats) * passages.byteLength;
    const opening = makeOpening(passages, Math.floor(position), openingBytes, random);
    const followUps = Array.from({ length: turnsMax - 1 }, () =>
      makeFollowUp(sentences, followUpBytes, random),
    );
    return { opening, followUps };
  });
}

function checkRange(name: string, range: ByteRange): void {
  const { min, max } = range;
  const framingBytes = name === "openingBytes" ? framingBytesMax() : followUpFramingBytes();
  // Four bytes are the longest UTF-8 form of a character.
  const isValid = Number.isInteger(min) && Number.isInteger(max) && min <= max;
  if (isValid && min >= framingBytes + 4) return;
  const least = framingBytes + 4;
  throw new RangeError(`${name} must be whole numbers, ${least} <= min <= max, not ${min}..${max}`);
}

function openingStart(question: string): string {
  return `User: ${question}: `;
}

function framingBytesMax(): number {
  const lengths = QUESTIONS.map((question) => openingStart(question).length);
  return Math.max(...lengths) + OPENING_END.length;
}

function followUpFramingBytes(): number {
  return FOLLOW_UP_START.length + FOLLOW_UP_END.length;
}

/** Joins lines and runs of blanks, so that layout does not fill the prompts. */
function oneLine(text: string): string {
  return text.replace(/\s+/gu, " ").trim();
}

/** The text as bytes, repeated until it is longer than `byteLengthMin`. */
function repeated(text: string, byteLengthMin: number): Uint8Array {
  if (text === "") throw new RangeError("the documents hold no text to make prompts from");
  const once = encoder.encode(`${text} `);
  const copies = Math.ceil((byteLengthMin + 1) / once.byteLength);
  const target = new Uint8Array(once.byteLength * copies);
  for (let copy = 0; copy < copies; copy++) target.set(once, copy * once.byteLength);
  return target;
}

/** Sentences that fit a follow-up whole; all of them, to be cut, where too few do. */
function chooseSentences(
  texts: readonly string[],
  passages: Uint8Array,
  range: ByteRange,
): Uint8Array[] {
  const framingBytes = followUpFramingBytes();
  const sentences: Uint8Array[] = texts.flatMap(sentencesOf).map((text) => encoder.encode(text));
  const whole = sentences.filter(({ byteLength }) => {
    return byteLength + framingBytes >= range.min && byteLength + framingBytes <= range.max;
  });
  if (whole.length >= WHOLE_SENTENCES_ENOUGH) return whole;
  return sentences.length > 0 ? sentences : [passages];
}

/** Sentences and list items of a text, without code and without markup at their edges. */
function sentencesOf(text: string): string[] {
  return text
    .replace(/^```[\s\S]*?^```/gmu, "")
    .split(/\n\s*\n|(?<=[.!?])\s+|\n(?=\s*(?:[-*#|>]|\d+\.))/u)
    .map((piece) => oneLine(piece.replace(/^[\s\-*#|>/\d.`]+|[|`*\s]+$/gu, "")))
    .filter((piece) => piece.length >= SENTENCE_LENGTH_MIN);
}

/** The whole numbers below `count`, in random order (Fisher–Yates). */
function shuffled(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const index = order[last] as number;
    order[last] = order[other] as number;
    order[other] = index;
  }
  return order;
}

function drawOne<T>(items: readonly T[], random: () => number): T {
  return items[Math.floor(random() * items.length)] as T;
}

function drawLength(range: ByteRange, random: () => number): number {
  return range.min + Math.floor(random() * (range.max - range.min + 1));
}

function makeOpening(
  passages: Uint8Array,
  position: number,
  range: ByteRange,
  random: () => number,
): Uint8Array {
  const start = encoder.encode(openingStart(drawOne(QUESTIONS, random)));
  const end = encoder.encode(OPENING_END);
  const framingBytes = start.byteLength + end.byteLength;
  // The text wraps at its end: a passage may begin with its last words and go on with its first.
  const wordStart = passages.indexOf(SPACE, position) + 1;
  const source = rotated(passages, wordStart, range.max);
  const lengths = { min: range.min - framingBytes, max: range.max - framingBytes };
  return joined(start, cutAtWord(source, lengths, drawLength(lengths, random)), end);
}

function makeFollowUp(
  sentences: readonly Uint8Array[],
  range: ByteRange,
  random: () => number,
): Uint8Array {
  const framingBytes = followUpFramingBytes();
  const lengths = { min: range.min - framingBytes, max: range.max - framingBytes };
  let text = drawOne(sentences, random);
  // A short sentence is continued by the next ones drawn; every sentence adds bytes.
  while (text.byteLength < lengths.min) {
    text = joined(text, Uint8Array.of(SPACE), drawOne(sentences, random));
  }
  if (text.byteLength > lengths.max) text = cutAtWord(text, lengths, lengths.max);
  return joined(encoder.encode(FOLLOW_UP_START), text, encoder.encode(FOLLOW_UP_END));
}

/** `byteLength` bytes of `source` from `start`, going on at its beginning. */
function rotated(source: Uint8Array, start: number, byteLength: number): Uint8Array {
  const target = new Uint8Array(byteLength);
  const head = source.subarray(start, start + byteLength);
  target.set(head);
  target.set(source.subarray(0, byteLength - head.byteLength), head.byteLength);
  return target;
}

/**
 * Cuts a text to a length within `lengths`: at the last word end up to `byteLengthWanted`, else at
 * the next one after it, else between two characters.
 */
function cutAtWord(source: Uint8Array, lengths: ByteRange, byteLengthWanted: number): Uint8Array {
  if (source[byteLengthWanted] === SPACE) return source.subarray(0, byteLengthWanted);
  const before = source.lastIndexOf(SPACE, byteLengthWanted);
  if (before >= lengths.min) return source.subarray(0, before);
  const after = source.indexOf(SPACE, byteLengthWanted);
  if (after >= 0 && after <= lengths.max) return source.subarray(0, after);
  return cutAtCharacter(source, lengths, byteLengthWanted);
}

/** Cuts between two characters, and fills up with blanks where that falls below the range. */
function cutAtCharacter(source: Uint8Array, lengths: ByteRange, wanted: number): Uint8Array {
  let end = wanted;
  // Bytes 10xxxxxx continue a character.
  while (end > 0 && ((source[end] ?? 0) & 0xc0) === 0x80) end--;
  if (end >= lengths.min) return source.subarray(0, end);
  const padded = new Uint8Array(lengths.min).fill(SPACE);
  padded.set(source.subarray(0, end));
  return padded;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const target = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    target.set(part, offset);
    offset += part.byteLength;
  }
  return target;
}
