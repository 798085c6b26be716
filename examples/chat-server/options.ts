/** The command line of the chat server. */
import { parseArgs } from "node:util";
import { integer, UsageError } from "../chat/options.js";

export interface ServerOptions {
  readonly help: boolean;
  readonly model: string | undefined;
  readonly directory: string;
  readonly ram: string;
  readonly ssd: string;
  readonly host: string;
  readonly port: number;
  readonly concurrency: number;
  readonly queue: number;
  readonly context: number;
  readonly seed: number;
  /** Statistics are served to `tierheap top`. */
  readonly top: boolean;
}

export const USAGE = `npm run chat-server -- [options]

  --port N           0: any free one                    (8080)
  --host HOST        where to listen                    (127.0.0.1)
  --ram SIZE         the memory budget of all chats     (32MiB)
  --ssd SIZE         the disk budget                    (1GiB)
  --directory DIR    where chats are kept               (.tierheap/chat-server)
  --concurrency N    turns that compute at once         (2)
  --queue N          turns that may wait                (64)
  --context N        tokens that a chat may have        (2048)
  --model FILE       use your own exported decoder (ONNX, with past_key_values)
  --seed N           of the built-in model              (1)
  --top              serve statistics to npx tierheap top
`;

/** @throws {UsageError} An unknown option, or a value out of range. */
export function parseServerOptions(args: readonly string[]): ServerOptions {
  let values: Record<string, string | boolean | undefined>;
  const names = ["port", "host", "ram", "ssd", "directory", "concurrency", "queue", "context"];
  const text = { type: "string" } as const;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        help: { type: "boolean" },
        top: { type: "boolean" },
        ...Object.fromEntries([...names, "model", "seed"].map((name) => [name, text])),
      },
    }));
  } catch (error) {
    const message = error instanceof Error ? error.message.split(".")[0] : String(error);
    throw new UsageError(`${message}; --help lists the options`);
  }
  const textOf = (name: string, fallback: string) =>
    (values[name] as string | undefined) ?? fallback;
  const integerOf = (name: string, fallback: number, least: number, most: number) =>
    integer(textOf(name, String(fallback)), name, least, most);
  return {
    help: values["help"] === true,
    top: values["top"] === true,
    model: values["model"] as string | undefined,
    directory: textOf("directory", ".tierheap/chat-server"),
    ram: textOf("ram", "32MiB"),
    ssd: textOf("ssd", "1GiB"),
    host: textOf("host", "127.0.0.1"),
    port: integerOf("port", 8080, 0, 65_535),
    concurrency: integerOf("concurrency", 2, 1, 64),
    queue: integerOf("queue", 64, 0, 10_000),
    context: integerOf("context", 2048, 2, 2 ** 20),
    seed: integerOf("seed", 1, 0, 2 ** 31),
  };
}
