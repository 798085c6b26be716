// What a conformance suite is made of. A suite is a list of cases, so that any test runner can loop
// over it; nothing here knows one.

/** One requirement of a seam. */
export interface ConformanceCase {
  readonly name: string;
  /** Why the case does not apply to this implementation; it is then not run. */
  readonly skip?: string | undefined;
  /** Rejects when the implementation breaks the requirement. */
  run(): Promise<void>;
}

/** Thrown by a case whose requirement is broken. */
export class ConformanceError extends Error {
  override readonly name = "ConformanceError";
}

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new ConformanceError(message);
}

export function assertEqual<T>(actual: T, expected: T, what: string): void {
  if (Object.is(actual, expected)) return;
  throw new ConformanceError(`${what} is ${String(actual)} instead of ${String(expected)}`);
}

export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assertEqual(actual.byteLength, expected.byteLength, `length of ${what}`);
  const index = actual.findIndex((byte, at) => byte !== expected[at]);
  assert(index < 0, `${what} differs at byte ${index}`);
}

/** The error that `work` throws must have one of these codes. */
export function assertThrows(work: () => unknown, codes: readonly string[], what: string): void {
  try {
    work();
  } catch (error) {
    const code = String((error as { code?: unknown } | null)?.code);
    assert(codes.includes(code), `${what} throws ${code} instead of ${codes.join(" or ")}`);
    return;
  }
  throw new ConformanceError(`${what} does not throw`);
}

/** The error that `work` rejects with must have one of these codes. */
export async function assertRejects(
  work: () => Promise<unknown>,
  codes: readonly string[],
  what: string,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    const code = String((error as { code?: unknown } | null)?.code);
    assert(codes.includes(code), `${what} rejects with ${code} instead of ${codes.join(" or ")}`);
    return;
  }
  throw new ConformanceError(`${what} does not reject`);
}
