// What a hardware profile says where callers say nothing.
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import type { CheckedOptions, TensorMemoryOptions } from "./options.js";
import { checkWatermarks } from "./watermarks.js";

/** What callers have left to the profile, as it says. @throws {MisuseError} `bad-option`. */
export function withProfile(
  checked: CheckedOptions,
  { watermarks, codecs }: TensorMemoryOptions,
  profile: HardwareProfile,
): CheckedOptions {
  const { codecRules } = checked;
  const otherwise = codecRules.hasWarm || codecs?.default !== undefined ? undefined : profile.codec;
  return {
    ...checked,
    watermarks: checkWatermarks(watermarks ?? profile.watermarks),
    codecRules: otherwise === undefined ? codecRules : { ...codecRules, otherwise },
  };
}
