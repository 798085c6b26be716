// What the page and the worker of the OPFS tier say to each other.

/** The calls of the worker, with what goes in and what comes out. */
export interface OpfsCalls {
  makeDirectory(path: string): void;
  list(path: string): { readonly name: string; readonly byteLength: number }[];
  create(path: string): number;
  openRead(path: string): { readonly number: number; readonly byteLength: number } | null;
  rename(sourcePath: string, targetPath: string): void;
  remove(path: string): boolean;
  tryLock(path: string, waitMs: number): boolean;
  unlock(path: string): void;
  /** Fills `target`, which comes back: each part has its place behind those before it, whatever they fill of theirs. */
  read(parts: readonly ReadPart[], target: Uint8Array<ArrayBuffer>): PartsRead;
  /**
   * `source` comes back.
   *
   * @param isBehind It follows what the message before has written: nothing is written if that is not all there.
   */
  write(number: number, source: Uint8Array<ArrayBuffer>, offset: number, isBehind: boolean): Moved;
  sync(number: number): void;
  isThere(number: number): boolean;
  close(number: number): void;
}

/** How much was written, and the buffer that the page has lent. */
export interface Moved {
  readonly count: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Part of a file that is to be read. */
export interface ReadPart {
  readonly number: number;
  readonly offset: number;
  readonly byteLength: number;
}

/** What became of each part, and the buffer that the page has lent. */
export interface PartsRead {
  /** Bytes read, or the code and the message of what went wrong. */
  readonly outcomes: readonly (number | Failure)[];
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export interface Failure {
  readonly code: string;
  readonly message: string;
}

export type OpfsRequest = {
  [Call in keyof OpfsCalls]: {
    readonly id: number;
    readonly call: Call;
    readonly parameters: Parameters<OpfsCalls[Call]>;
  };
}[keyof OpfsCalls];

export type OpfsReply =
  | { readonly id: number; readonly value: unknown }
  | ({ readonly id: number } & Failure);
