// The replay of two tiers is the one of `npx tierheap replay`.
export { replayTiers } from "../../dist/src/cli/replay-tiers.js";
