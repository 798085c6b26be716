// Which optimisations a caller has switched on or off, and the check of it. Loaded when a memory is made.
import { MisuseError } from "../errors.js";
import type { CodecFeature, FeatureMode, FeatureName } from "../stats/feature.js";
import { describe } from "../types.js";
import { checkObject } from "./checks.js";

/** Each by its name. Default: `"auto"`. */
export type FeatureOptions = { readonly [name in FeatureName]?: FeatureMode | undefined };

const CODEC_FEATURES: readonly CodecFeature[] = [
  "codec/const",
  "codec/narrow",
  "codec/plane",
  "codec/half",
  "codec/q8",
  "codec/q4",
  "codec/chan",
  "codec/lm",
  "codec/sparse",
  "codec/lowrank",
];

/** All names. */
export const FEATURE_NAMES: readonly FeatureName[] = [
  "compaction",
  "prefetch",
  "placement",
  "collector",
  "admission",
  "learntPolicy",
  "coding",
  "transcoding",
  ...CODEC_FEATURES,
];

/** A copy, because a caller's object may change. @throws {MisuseError} `bad-option`. */
export function checkFeatures(given: unknown): FeatureOptions {
  const features = checkObject(given ?? {}, "features", FEATURE_NAMES);
  for (const [name, mode] of Object.entries(features)) {
    if (mode === undefined || mode === "auto" || typeof mode === "boolean") continue;
    throw new MisuseError(
      "bad-option",
      `features.${name} ${describe(mode)} is not auto or a boolean`,
    );
  }
  return { ...features };
}

/** Names of the codecs that are off. */
export function codecsOff(features: FeatureOptions): string[] {
  return CODEC_FEATURES.filter((name) => features[name] === false).map((name) =>
    name.slice("codec/".length),
  );
}
