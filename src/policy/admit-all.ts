// The dull admission policy.
import type { AdmissionPolicy } from "./admission-policy.js";

export const admitAll: AdmissionPolicy = {
  name: "admit-all",
  admit: () => true,
  touch: () => {},
  want: () => {},
  forget: () => {},
};
