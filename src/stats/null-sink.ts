// The dull sink.
import type { StatsSink } from "./stats-sink.js";

export const nullSink: StatsSink = { count: () => {}, time: () => {} };
