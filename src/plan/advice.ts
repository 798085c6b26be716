// What a plan says in words. Layer: plan.
import { formatBytes } from "../stats/format.js";
import type { KvForm } from "./kv-bytes.js";
import type { MemoryPlan } from "./memory-plan.js";
import type { CheckedPlan } from "./plan-request.js";

const MIB = 2 ** 20;
/** Share of the budget from which on it is worth a word that the memory itself takes it. */
const OVERHEAD_SHARE = 1 / 8;
/** Above it, waiting is worth a word. */
const LONG_MS = 1000;

const upToMib = (bytes: number) => formatBytes(Math.ceil(bytes / MIB) * MIB);
const chats = (count: number) => `${count} chat${count === 1 ? "" : "s"}`;

/** `12.3 ms`, `4.5 s`. */
export function formatMs(ms: number): string {
  if (ms < LONG_MS) return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}

/** @param parts.replan The same plan with KV in another form. */
export function adviceOf(
  plan: MemoryPlan,
  parts: {
    readonly request: CheckedPlan;
    readonly replan: (form: KvForm) => MemoryPlan;
  },
): string[] {
  const { request, replan } = parts;
  const [ram, ...colder] = plan.tiers as [MemoryPlan["tiers"][number], ...MemoryPlan["tiers"]];
  const lines: string[] = [];
  const blockBytes = plan.kinds.reduce((sum, each) => sum + each.blockBytes, 0);
  const wholeBytes = plan.overheadBytes + blockBytes + 2 * plan.arenaBytes;
  if (plan.isResident) {
    const freeBytes = ram.capacityBytes - plan.overheadBytes - blockBytes;
    const more = Math.max(0, Math.floor(freeBytes / Math.max(1, plan.chatBytes)));
    lines.push(`everything fits into RAM, and about ${chats(more)} more of this length`);
  } else if (colder.length === 0) {
    lines.push(
      `RAM holds ${ram.chatCount} of ${chats(plan.chatCount)}, and there is no tier below it: set budgets.ssd to ` +
        `${upToMib(plan.spilledBytes * 1.25)} or more, or budgets.ram to ${upToMib(wholeBytes)}`,
    );
  } else {
    const warmest = colder.find(({ chatCount }) => chatCount > 0);
    const wait =
      warmest?.speed == null
        ? ""
        : `; one that waits in ${warmest.name} is back in about ${formatMs(warmest.chatRestoreMs)}` +
          (warmest.speed.source === "assumed" ? " (a guess: nothing was measured)" : "");
    lines.push(`RAM holds ${ram.chatCount} of ${chats(plan.chatCount)}${wait}`);
    lines.push(`all of them at once would need budgets.ram of ${upToMib(wholeBytes)}`);
  }
  if (!plan.fits && colder.length > 0) {
    const last = colder.at(-1)?.name ?? "ssd";
    lines.unshift(
      `${formatBytes(plan.unplacedBytes)} find no room in any tier: give ${last} that much more, or they are ` +
        `computed again if they are disposable, and refused if they are not`,
    );
  }
  if (!plan.isResident && plan.kv === "exact" && canBeCoded(request)) {
    for (const form of ["a8", "a4"] as const) {
      const other = replan(form);
      const ratio = plan.chatBytes / other.chatBytes;
      lines.push(
        `kv ${form} takes ${ratio.toFixed(1)} × fewer bytes, not exactly the same values: RAM would hold ` +
          `${other.tiers[0]?.chatCount ?? 0} of ${chats(plan.chatCount)}`,
      );
    }
  }
  const roomBytes = ram.capacityBytes - plan.overheadBytes;
  if (plan.kv === "tensors" && plan.chatBytes > roomBytes) {
    lines.unshift("one chat alone does not fit into RAM: a step that reads all of it is refused");
  }
  if (plan.overheadBytes > OVERHEAD_SHARE * ram.capacityBytes) {
    const share = Math.round((100 * plan.overheadBytes) / ram.capacityBytes);
    lines.push(`${share} % of so small a budget are metadata and buffers`);
  }
  if (request.weightBytes === 0 && plan.weightBytes !== null) {
    const bytes = formatBytes(plan.weightBytes);
    lines.push(`the weights, ${bytes} at 16 bits, are the runtime's and not in this plan`);
  }
  return lines;
}

/** Coded pages are made of 16 tokens and 16 elements. */
function canBeCoded({ model, pageTokens }: CheckedPlan): boolean {
  return model.headDim % 16 === 0 && pageTokens % 16 === 0;
}
