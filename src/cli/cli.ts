// Chooses the command, reads its options, and turns every failure into one line and an exit code.
import { readFile } from "node:fs/promises";
import { type ParseArgsConfig, parseArgs } from "node:util";
import { TierheapError } from "../errors.js";
import { CLEAN } from "./clean.js";
import type { Command, CommandIo, CommandOptions } from "./command.js";
import { CommandError, EXIT_REFUSED, EXIT_USAGE } from "./command.js";
import { DOCTOR } from "./doctor.js";
import { INSPECT } from "./inspect.js";
import { MAP } from "./map.js";
import { printable } from "./output.js";
import { PLAN } from "./plan.js";
import { REPLAY } from "./replay.js";
import { TOP } from "./top.js";
import { VERIFY } from "./verify.js";

const COMMANDS: ReadonlyMap<string, Command> = new Map([
  ["inspect", INSPECT],
  ["verify", VERIFY],
  ["clean", CLEAN],
  ["replay", REPLAY],
  ["plan", PLAN],
  ["doctor", DOCTOR],
  ["top", TOP],
  ["map", MAP],
]);

const COMMON_OPTIONS = { help: { type: "boolean", short: "h" } } as const;

function usage(): string {
  const width = Math.max(...[...COMMANDS.values()].map(({ synopsis }) => synopsis.length));
  const lines = [...COMMANDS.values()].map(
    ({ synopsis, summary }) => `  tierheap ${synopsis.padEnd(width)}  ${summary}`,
  );
  return `Looks at stores, processes and machines, replays traces and plans memory.

${lines.join("\n")}

  tierheap COMMAND --help   options of a command
  tierheap --version        the version

Exit codes: 0 done; 1 damage or a problem was found; 2 wrong usage; 3 it could not be done.
`;
}

function helpOf({ synopsis, summary, help }: Command): string {
  return `tierheap ${synopsis}\n\n${summary}\n\n${help}`;
}

async function version(): Promise<string> {
  const path = new URL("../../../package.json", import.meta.url);
  return (JSON.parse(await readFile(path, "utf8")) as { version: string }).version;
}

/** What `parseArgs` says of wrong options, in one line; anything else is rethrown. */
function parsed(args: string[], options: ParseArgsConfig["options"]) {
  try {
    return parseArgs({ args, options: { ...COMMON_OPTIONS, ...options }, allowPositionals: true });
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code?.startsWith("ERR_PARSE_ARGS") !== true) throw error;
    throw new CommandError(EXIT_USAGE, message.split(/\n|\. /)[0] ?? message);
  }
}

async function run(args: string[], io: CommandIo): Promise<number> {
  const [name = "", ...rest] = args;
  if (name === "--version") {
    io.out.write(`${await version()}\n`);
    return 0;
  }
  if (name === "--help" || name === "-h") {
    io.out.write(usage());
    return 0;
  }
  const command = COMMANDS.get(name);
  if (command === undefined) {
    const what = name === "" ? "no command is given" : `there is no command ${printable(name)}`;
    throw new CommandError(EXIT_USAGE, `${what}; see tierheap --help`);
  }
  const { values, positionals } = parsed(rest, command.options);
  if (values["help"] === true) {
    io.out.write(helpOf(command));
    return 0;
  }
  const [target = command.defaultTarget ?? "", ...others] = positionals;
  const operand = command.synopsis.split(" ")[1];
  if (operand === undefined && positionals.length > 0) {
    throw new CommandError(EXIT_USAGE, `${name} wants options only; see tierheap ${name} --help`);
  }
  const isMissing = positionals[0] === "" || (target === "" && operand?.startsWith("[") === false);
  if (isMissing || others.length > 0) {
    throw new CommandError(EXIT_USAGE, `${name} wants one ${operand}; see tierheap ${name} --help`);
  }
  return command.run(target, values as CommandOptions, io);
}

/**
 * Runs the command line.
 *
 * @param args What follows the program's name.
 * @returns The exit code: 0 done, 1 damage or a problem was found, 2 wrong usage, 3 it could not be done.
 */
export async function runCli(args: string[], io: CommandIo): Promise<number> {
  try {
    return await run(args, io);
  } catch (error) {
    const { code, message } = error as { code?: unknown; message?: unknown };
    // What the system or the library says is for people too; anything else is a fault of this program.
    const isKnown = error instanceof CommandError || error instanceof TierheapError;
    if (!isKnown && typeof code !== "string") throw error;
    io.err.write(`tierheap: ${printable(String(message), Number.POSITIVE_INFINITY)}\n`);
    return error instanceof CommandError ? error.exitCode : EXIT_REFUSED;
  }
}
