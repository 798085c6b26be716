// Predicts along an order that is known in advance, such as the layers of a model, again and again.
import { MisuseError } from "../errors.js";
import type { Predictor } from "./predictor.js";

/**
 * @param order Ids in the order of their use, each once; after the last comes the first.
 * @param depth Ids predicted at once, at least 1. Default: 2.
 * @throws {MisuseError} `bad-option` — an id comes twice, or the depth is not an integer above 0.
 */
export function schedulePredictor(order: readonly string[], depth = 2): Predictor {
  const places = new Map(order.map((id, place) => [id, place]));
  if (places.size !== order.length) {
    throw new MisuseError("bad-option", "an id comes twice in the order");
  }
  if (!Number.isInteger(depth) || depth < 1) {
    throw new MisuseError("bad-option", "depth is an integer above 0");
  }
  const count = Math.min(depth, order.length - 1);
  return {
    name: "schedule",
    observe: (_stream, id) => {
      const place = places.get(id);
      if (place === undefined) return [];
      return Array.from(
        { length: count },
        (_, step) => order[(place + 1 + step) % order.length] as string,
      );
    },
  };
}
