// What a command is, and how it fails.
import type { ParseArgsConfig } from "node:util";

/** Damage or a problem was found. */
export const EXIT_DAMAGED = 1;
/** The command line is wrong. */
export const EXIT_USAGE = 2;
/** It could not be done: the directory is in use, is not there, or is of another version. */
export const EXIT_REFUSED = 3;

/** Where a command writes. */
export interface CommandIo {
  readonly out: { write(text: string): unknown };
  readonly err: { write(text: string): unknown; readonly isTTY?: boolean };
}

/** Options as they were given, by name. */
export type CommandOptions = Readonly<
  Record<string, string | boolean | readonly (string | boolean)[] | undefined>
>;

export interface Command {
  /** Its name, and its operand if it has one; in brackets if it may be left out. */
  readonly synopsis: string;
  /** The operand where one in brackets is left out. Default: empty. */
  readonly defaultTarget?: string;
  /** One line. */
  readonly summary: string;
  /** Its options, and what to know. */
  readonly help: string;
  readonly options: NonNullable<ParseArgsConfig["options"]>;
  /** @returns The exit code. */
  run(target: string, options: CommandOptions, io: CommandIo): Promise<number>;
}

/** Ends the program with one line. */
export class CommandError extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.name = "CommandError";
    this.exitCode = exitCode;
  }
}
