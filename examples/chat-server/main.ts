/**
 * Many users, one model, one budget: a chat server whose chats outlive it. `--help` lists the options.
 */
import { createTensorMemory, TierheapError } from "tierheap";
import { serveStats } from "tierheap/stats-server";
import { openHeapDecoder } from "../chat/heap-decoder.js";
import { openModel } from "../chat/open-model.js";
import { UsageError } from "../chat/options.js";
import { RuntimeError } from "../chat/runtime.js";
import { ChatKv } from "./chat-kv.js";
import { Chats } from "./chats.js";
import { parseServerOptions, type ServerOptions, USAGE } from "./options.js";
import { ChatServer } from "./server.js";
import { TurnQueue } from "./turn-queue.js";

function helpFor(url: string): string {
  return `Talk:     curl -N ${url}/chats/ada/turns -d '{"prompt":"Hello"}'
Read:     curl ${url}/chats/ada
List:     curl ${url}/chats
Forget:   curl -X DELETE ${url}/chats/ada
Figures:  curl ${url}/metrics
`;
}

async function serve(options: ServerOptions): Promise<void> {
  const { runtime, fingerprint, model, name } = await openModel(options);
  // The decoder below is the one that is used.
  await runtime.close();
  await using memory = await createTensorMemory({
    budgets: { ram: options.ram, ssd: options.ssd },
    ssd: { directory: options.directory },
    namespace: { fingerprint },
  });
  await using decoder = await openHeapDecoder({ runtime, model, memory, fingerprint });
  if (decoder === null) {
    throw new UsageError("the model's KV is of a form that is not served: try npm start --model");
  }
  const kv = new ChatKv(memory, decoder);
  const chats = new Chats({ memory, decoder, kv, contextTokens: options.context });
  const queue = new TurnQueue({ runningMax: options.concurrency, waitingMax: options.queue });
  const onError = (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  };
  const memoryStats = () => memory.stats();
  const server = new ChatServer({ chats, queue, memoryStats, helpFor, onError });
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGINT", resolve);
    process.once("SIGTERM", resolve);
  });
  const url = await server.listen(options.port, options.host);
  const statsServer = options.top ? await serveStats(memory, { title: "chat server" }) : null;
  const watch = statsServer === null ? "" : `Watch:    npx tierheap top ${process.pid}\n`;
  const known = (await chats.list()).length;
  process.stdout.write(
    `${name} on ${runtime.name}, ${known} chats, listening on ${url}\n\n${helpFor(url)}${watch}`,
  );
  await stopped;
  process.stderr.write("stopping when the turns under way have ended …\n");
  await server.close();
  await statsServer?.close();
}

try {
  const options = parseServerOptions(process.argv.slice(2));
  if (options.help) process.stdout.write(USAGE);
  else await serve(options);
} catch (error) {
  const isExpected =
    error instanceof UsageError ||
    error instanceof RuntimeError ||
    error instanceof TierheapError ||
    (error as NodeJS.ErrnoException).syscall === "listen";
  process.stderr.write(`${isExpected ? (error as Error).message : (error as Error).stack}\n`);
  process.exitCode = 1;
}
