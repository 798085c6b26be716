// A page that has the package from a bundler or from its files. Leaves its outcome for who opened it.
import * as tierheap from "tierheap";
import { exercise } from "./exercise.mjs";

globalThis.outcome = await exercise(tierheap).catch((error) => ({
  comparedCount: 0,
  wrong: [String(error?.stack ?? error)],
}));
