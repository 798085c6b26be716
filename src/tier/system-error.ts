// The error of a file system that has none of its own with a code.

export class SystemError extends Error {
  /** As Node's: `ENOSPC`, `EIO`, … */
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${code}: ${message}`);
    this.code = code;
  }
}
