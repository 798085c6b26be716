// Asks the engine to collect garbage soon. Layer 0.

const PRESSURE_BYTES = 64 * 2 ** 20;

/**
 * Engines count the bytes behind buffers and collect when that grows by much. A large buffer that is
 * dropped at once, and never touched, so never resident, makes them do so within milliseconds, where
 * an idle process would otherwise not collect for minutes.
 */
export function encourageCollection(): void {
  try {
    new ArrayBuffer(PRESSURE_BYTES);
  } catch {
    // No address space to spare: then the engine is collecting anyway.
  }
}
