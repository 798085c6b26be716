// A TCP proxy that does to a connection what networks do, and worse.
import { connect, createServer, type Socket } from "node:net";

export type ProxyFault =
  | "none"
  /** Nobody listens. */
  | "refuse"
  /** Nothing comes back. */
  | "hang"
  /** The connection is reset at once. */
  | "reset"
  /** The reply ends in the middle, and so does the connection. */
  | "partial"
  /** One bit of each reply is wrong. */
  | "flip"
  /** One bit of each long reply is wrong: of bytes, not of what says how they lie. */
  | "flip-long"
  /** Two replies that come together change places; else a reply is kept for the next question. */
  | "swap"
  /** Everything comes, but late. */
  | "slow"
  /** Changes reach the server late, also when nobody waits for the answer any more. */
  | "late";

export interface FaultyProxy {
  readonly port: number;
  fault: ProxyFault;
  /** How often each fault was really done. */
  readonly counts: Record<ProxyFault, number>;
  stop(): Promise<void>;
}

const CHANGE = /\r\n(?:EVAL|SET|UNLINK)\r\n/;

/** @param slowMs How late "slow" is. */
export async function startProxy(targetPort: number, slowMs: number): Promise<FaultyProxy> {
  const counts: Record<ProxyFault, number> = {
    none: 0,
    refuse: 0,
    hang: 0,
    reset: 0,
    partial: 0,
    flip: 0,
    "flip-long": 0,
    swap: 0,
    slow: 0,
    late: 0,
  };
  const sockets = new Set<Socket>();
  const proxy = { port: 0, fault: "none" as ProxyFault, counts, stop: async () => {} };
  const server = createServer((client) => {
    if (proxy.fault === "refuse") {
      counts.refuse += 1;
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(targetPort, "127.0.0.1");
    let kept: Buffer | null = null;
    let lateCount = 0;
    const end = () => {
      client.destroy();
      sockets.delete(client);
      if (lateCount > 0) return;
      upstream.destroy();
      sockets.delete(upstream);
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", end);
      socket.on("close", end);
    }
    client.on("data", (bytes) => {
      if (proxy.fault === "reset" || proxy.fault === "refuse") {
        counts[proxy.fault] += 1;
        client.resetAndDestroy();
        end();
      } else if (proxy.fault === "late" && CHANGE.test(bytes.toString("latin1"))) {
        counts.late += bytes.toString("latin1").split(CHANGE).length - 1;
        lateCount += 1;
        setTimeout(() => {
          lateCount -= 1;
          if (upstream.destroyed) return;
          upstream.write(bytes);
          // What it answers is for nobody.
          if (client.destroyed) setTimeout(end, slowMs);
        }, slowMs);
      } else upstream.write(bytes);
    });
    upstream.on("data", (bytes) => {
      const isShort = proxy.fault === "flip-long" && bytes.byteLength < 1000;
      const fault = isShort ? "none" : proxy.fault;
      counts[fault] += 1;
      if (fault === "hang") return;
      if (fault === "partial") {
        client.write(bytes.subarray(0, bytes.byteLength >> 1), end);
        return;
      }
      if (fault === "flip" || fault === "flip-long") {
        const at = bytes.byteLength >> 1;
        bytes[at] = (bytes[at] as number) ^ 1;
      }
      if (fault === "swap") {
        // What was asked last is answered with what was asked before.
        const previous: Buffer | null = kept;
        kept = Buffer.from(bytes);
        if (previous !== null) client.write(previous);
        return;
      }
      if (fault === "slow") setTimeout(() => client.write(bytes), slowMs);
      else client.write(bytes);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  proxy.port = (server.address() as { port: number }).port;
  proxy.stop = async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => {
      server.close(resolve);
    });
  };
  return proxy;
}
