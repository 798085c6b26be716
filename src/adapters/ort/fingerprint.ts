// The name of a model that has none.
const DIGITS = 32;

/** The first half of a model's SHA-256, in hexadecimal. Reads all of its bytes. */
export async function digestOf(model: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model));
  const digits = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.slice(0, DIGITS);
}
