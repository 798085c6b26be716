/** The command line of the chat example. */
import { parseArgs } from "node:util";

export interface ChatOptions {
  readonly json: boolean;
  readonly resume: boolean;
  readonly keep: boolean;
  readonly help: boolean;
  readonly calibrate: boolean;
  /** Statistics are served to `tierheap top`. */
  readonly top: boolean;
  readonly model: string | undefined;
  /** Where the memory's map goes at the end; undefined: nowhere. */
  readonly map: string | undefined;
  readonly directory: string;
  readonly ram: string;
  readonly ssd: string;
  readonly codecs: "auto" | "raw" | "lossless";
  /** undefined: off, as the next two. */
  readonly warm: string | undefined;
  readonly hdd: string | undefined;
  readonly remote: string | undefined;
  /** Where what was done with tensors is written down; undefined: nowhere. */
  readonly trace: string | undefined;
  readonly chats: number;
  readonly visits: number;
  readonly seed: number;
}

/** What is wrong with the command line, in one line. */
export class UsageError extends Error {}

export const USAGE = `npm start -- [options]

  --resume           continue the chats that an interrupted run has saved
  --json             print the report as JSON
  --model FILE       use your own exported decoder (ONNX, with past_key_values)
  --directory DIR    where cold chats go               (.tierheap/chat)
  --ram SIZE         the memory budget                  (16MiB)
  --ssd SIZE         the disk budget                    (1GiB)
  --codecs RULE      raw, lossless, or as is faster     (auto)
  --warm SIZE        RAM below the arenas, inside --ram (off)
  --hdd SIZE         a second disk budget, in DIR-hdd   (off)
  --remote URL       a Redis server as the lowest tier  (off)
  --chats N          number of chats, 2 to 99           (20)
  --visits N         turns after the three rounds       (120)
  --seed N           of prompts, visits and model       (1)
  --keep             leave the records of a finished run
  --calibrate        measure this machine first, if nothing is kept of it beside DIR
  --map FILE         write where every block lay at the end, for npx tierheap map
  --top              serve statistics to npx tierheap top, and draw transfers on Node's timeline
  --trace FILE       write down what was done with tensors: one JSON array a line
`;

/** @throws {UsageError} Not a whole number in the range. */
export function integer(text: string, name: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw new UsageError(`--${name} is a whole number from ${least} to ${most}, not "${text}"`);
  }
  return value;
}

function codecRule(text: string): ChatOptions["codecs"] {
  if (text === "auto" || text === "raw" || text === "lossless") return text;
  throw new UsageError(`--codecs is auto, raw or lossless, not "${text}"`);
}

/** @throws {UsageError} An unknown option, or a value out of range. */
export function parseOptions(args: readonly string[]): ChatOptions {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        json: { type: "boolean" },
        resume: { type: "boolean" },
        keep: { type: "boolean" },
        help: { type: "boolean" },
        calibrate: { type: "boolean" },
        top: { type: "boolean" },
        model: { type: "string" },
        map: { type: "string" },
        directory: { type: "string" },
        ram: { type: "string" },
        ssd: { type: "string" },
        codecs: { type: "string" },
        warm: { type: "string" },
        hdd: { type: "string" },
        remote: { type: "string" },
        trace: { type: "string" },
        chats: { type: "string" },
        visits: { type: "string" },
        seed: { type: "string" },
      },
    }));
  } catch (error) {
    const message = error instanceof Error ? error.message.split(".")[0] : String(error);
    throw new UsageError(`${message}; --help lists the options`);
  }
  const text = (name: string, fallback: string) => (values[name] as string | undefined) ?? fallback;
  return {
    json: values["json"] === true,
    resume: values["resume"] === true,
    keep: values["keep"] === true,
    help: values["help"] === true,
    calibrate: values["calibrate"] === true,
    top: values["top"] === true,
    model: values["model"] as string | undefined,
    map: values["map"] as string | undefined,
    directory: text("directory", ".tierheap/chat"),
    ram: text("ram", "16MiB"),
    ssd: text("ssd", "1GiB"),
    codecs: codecRule(text("codecs", "auto")),
    warm: values["warm"] as string | undefined,
    hdd: values["hdd"] as string | undefined,
    remote: values["remote"] as string | undefined,
    trace: values["trace"] as string | undefined,
    chats: integer(text("chats", "20"), "chats", 2, 99),
    visits: integer(text("visits", "120"), "visits", 0, 100_000),
    seed: integer(text("seed", "1"), "seed", 0, 2 ** 31),
  };
}
