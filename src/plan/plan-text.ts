// A plan as text for people. Layer: plan.
import { formatBytes, formatTable } from "../stats/format.js";
import { formatMs } from "./advice.js";
import type { MemoryPlan, PlannedTier } from "./memory-plan.js";

function speedText({ speed }: PlannedTier): string {
  if (speed === null) return "";
  return `${formatBytes(speed.bytesPerSecond)}/s ${speed.source}`;
}

/** Tables of kinds and tiers, and the advice; several lines. */
export function formatPlan(plan: MemoryPlan): string {
  const { chatCount, tokenCount, kv } = plan;
  const head =
    `${plan.model}: ${chatCount} chats, ${tokenCount} tokens, ${formatBytes(plan.tokenBytes)} of KV a token, ` +
    `${formatBytes(plan.chatBytes)} a chat as ${kv === "tensors" ? "tensors" : `pages ${kv}`}`;
  const kinds = formatTable([
    ["kind", "tensors", "bytes", "in blocks"],
    ...plan.kinds.map((each) => [
      each.kind,
      `${each.tensorCount}`,
      formatBytes(each.tensorBytes),
      formatBytes(each.blockBytes),
    ]),
  ]);
  const tiers = formatTable([
    ["tier", "capacity", "used", "with copies", "tensors", "chats", "a chat is back in", "reads"],
    ...plan.tiers.map((tier) => [
      tier.name,
      formatBytes(tier.capacityBytes),
      formatBytes(tier.usedBytes),
      formatBytes(tier.usedBytesMax),
      formatBytes(tier.tensorBytes),
      `${tier.chatCount}`,
      tier.speed === null ? "" : formatMs(tier.chatRestoreMs),
      speedText(tier),
    ]),
  ]);
  const ram =
    `of RAM ${formatBytes(plan.overheadBytes)} are metadata and buffers; arenas of ` +
    `${formatBytes(plan.arenaBytes)}`;
  const advice = plan.advice.map((line) => `- ${line}`).join("\n");
  return [head, kinds, `${tiers}\n${ram}`, advice].join("\n\n");
}
