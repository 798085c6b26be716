// Text for people: what a store's files say is data of others and may hold anything.

const PRINTABLE_LENGTH_MAX = 60;

/**
 * A text without characters that a terminal would act on.
 *
 * @param lengthMax Default: 60. A longer one is cut.
 */
export function printable(text: string, lengthMax = PRINTABLE_LENGTH_MAX): string {
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax - 1)}…` : text;
  return cut.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u{${code.toString(16)}}`;
  });
}

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** An age in its largest unit, such as `3 h`. */
export function formatAge(ageMs: number): string {
  if (ageMs < MINUTE_MS) return `${Math.max(0, Math.floor(ageMs / 1000))} s`;
  if (ageMs < HOUR_MS) return `${Math.floor(ageMs / MINUTE_MS)} min`;
  if (ageMs < 2 * DAY_MS) return `${Math.floor(ageMs / HOUR_MS)} h`;
  return `${Math.floor(ageMs / DAY_MS)} d`;
}

/** `1 record`, `2 records`. */
export function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Ages up to these bounds are counted together. */
export const AGE_BOUNDS: readonly { readonly name: string; readonly untilMs: number }[] = [
  { name: "under an hour", untilMs: HOUR_MS },
  { name: "under a day", untilMs: DAY_MS },
  { name: "under a week", untilMs: 7 * DAY_MS },
  { name: "older", untilMs: Number.POSITIVE_INFINITY },
];
