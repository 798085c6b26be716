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
  /** Fills the front of `target`, which comes back; of what is not filled nothing is seen. */
  read(number: number, target: Uint8Array<ArrayBuffer>, offset: number): Moved;
  /** `source` comes back. */
  write(number: number, source: Uint8Array<ArrayBuffer>, offset: number): Moved;
  sync(number: number): void;
  isThere(number: number): boolean;
  close(number: number): void;
}

/** How much was read or written, and the buffer that the page has lent. */
export interface Moved {
  readonly count: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
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
  | { readonly id: number; readonly code: string; readonly message: string };
