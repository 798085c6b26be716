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
  read(number: number, byteLength: number, offset: number): Uint8Array<ArrayBuffer>;
  write(number: number, source: Uint8Array<ArrayBuffer>, offset: number): number;
  sync(number: number): void;
  close(number: number): void;
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
