// What the composition asks of the platform that it runs on.
import type { Clock } from "../clock.js";
import type { StartCodecWorker } from "../codec/codec.js";
import type { CalibrationPlace } from "../hardware/calibration.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import type { BrowserStoreOptions } from "../memory/browser-store-options.js";
import type { Seams } from "../memory/seams.js";
import type { TierPlatform } from "./tiers.js";

/** What differs between Node and browsers. */
export interface Platform extends TierPlatform {
  detectHardware(): HardwareProfile;
  /** Resident bytes of the process; null where nobody tells. */
  readonly residentBytes: (() => number) | null;
  readonly startCodecWorker: StartCodecWorker;
  /** Where what was measured of the device below a store is kept. */
  calibrationPlace(store: {
    readonly directory: string;
    readonly browser: BrowserStoreOptions;
    readonly clock: Clock;
    readonly seams: Partial<Seams>;
  }): CalibrationPlace | Promise<CalibrationPlace>;
}
