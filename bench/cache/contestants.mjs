// Policies by name, each made by a clock. The default one is the one that `createTensorMemory` takes.
import { DEFAULT_POLICY, POLICIES as OWN_POLICIES } from "../../dist/src/cli/policies.js";
import { clockPolicy, sievePolicy } from "./references.mjs";

export const DEFAULT = DEFAULT_POLICY;

export const POLICIES = {
  ...Object.fromEntries(OWN_POLICIES),
  clock: () => clockPolicy(),
  sieve: () => sievePolicy(),
};
