// How a proof says that something must hold.

/** The core did something that it must not do. */
export class Divergence extends Error {
  name = "Divergence";
}

/** @throws {Divergence} With the values, if it does not hold. */
export function must(holds, text, ...values) {
  if (!holds) throw new Divergence(`${text}: ${values.join(", ")}`);
}
