// The replay is the one of `npx tierheap replay`.
export {
  optimum,
  replay,
  replayChains,
  replayClock,
  replayObjects,
} from "../../dist/src/cli/replay-policy.js";
