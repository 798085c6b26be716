// Predicts that after an access comes what came after it the last time, and so on. What followed is
// known of an access whatever its stream was; what an access follows is known by its stream alone.
// Nothing is predicted from an access without a stream: those of many callers follow by chance.
import { MisuseError } from "../errors.js";
import type { Predictor } from "./predictor.js";

export interface SuccessorOptions {
  /** Ids predicted at once, from 1 to 64. Default: 4. More of them come earlier, and miss more often. */
  readonly depth?: number;
  /** Ids whose successor is known, and streams; the longest unused ones are forgotten. Default: 65,536. */
  readonly memoryCount?: number;
}

const NOTHING: readonly string[] = [];

/** @throws {MisuseError} `bad-option`. */
export function successorPredictor(options: SuccessorOptions = {}): Predictor {
  const { depth = 4, memoryCount = 65_536 } = options;
  if (!Number.isInteger(depth) || depth < 1 || depth > 64) {
    throw new MisuseError("bad-option", "depth is an integer from 1 to 64");
  }
  if (!Number.isInteger(memoryCount) || memoryCount < 1) {
    throw new MisuseError("bad-option", "memoryCount is an integer above 0");
  }
  const successors = new Map<string, string>();
  const latest = new Map<string, string>();
  const remember = (map: Map<string, string>, key: string, value: string) => {
    // Maps keep the order of insertion: the first key is the one unused for longest.
    map.delete(key);
    map.set(key, value);
    if (map.size > memoryCount) map.delete(map.keys().next().value as string);
  };
  return {
    name: "successor",
    observe: (stream, id) => {
      if (stream === "") return NOTHING;
      const previous = latest.get(stream);
      if (previous !== undefined && previous !== id) remember(successors, previous, id);
      remember(latest, stream, id);
      const predicted: string[] = [];
      let next = successors.get(id);
      while (next !== undefined && next !== id && predicted.length < depth) {
        if (predicted.includes(next)) break;
        predicted.push(next);
        next = successors.get(next);
      }
      return predicted;
    },
  };
}
