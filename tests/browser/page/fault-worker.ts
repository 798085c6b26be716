// The worker of the private file system, whose calls of the platform fail when they are told to. Orders
// come over a channel of the worker's name: the tier knows nothing of them.
import "../../../src/tier/opfs-worker.js";
import { beginFaults, endFaults, type FaultPlan, wrapFiles } from "./faulty-calls.js";

wrapFiles();
const channel = new BroadcastChannel((globalThis as { name?: string }).name as string);
channel.onmessage = ({ data }: MessageEvent<FaultPlan | "end">) => {
  if (data === "end") return channel.postMessage(endFaults());
  beginFaults(data);
  channel.postMessage(null);
};
