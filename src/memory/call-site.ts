// Where callers are: for what debug mode tells about a tensor.

/** The caller's frames, without those of this library. Costs microseconds: debug mode only. */
export function callSite(): string {
  const lines = (new Error().stack ?? "").split("\n").slice(1);
  const entry = lines.findLastIndex((line) => ENTRY_FRAME.test(line));
  return lines
    .slice(entry + 1)
    .map((line) => line.trim())
    .join("\n");
}

/** The calls by which callers enter the library; unknown after minification, and then all is shown. */
const ENTRY_FRAME =
  /\b(?:TensorMemory\.(?:allocate|tryAllocate)|Scope\.allocate|PlanRecorder\.allocate)\b/;
