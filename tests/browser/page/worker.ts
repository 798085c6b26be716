// A Web Worker with tensors of its own: doubles what it is given and gives it back, then churns until it
// is killed.
import { attachTensorMemory, type MemoryToken, type TensorMessage } from "tierheap/browser";

interface Order {
  readonly token?: MemoryToken;
  readonly tensor?: TensorMessage;
  readonly churn?: boolean;
}

// The types of a page do not know those of a worker.
const scope = globalThis as unknown as {
  onmessage: ((event: { readonly data: Order }) => unknown) | null;
  postMessage(message: unknown): void;
};

let attached: Promise<Awaited<ReturnType<typeof attachTensorMemory>>> | null = null;

async function obey({ token, tensor, churn }: Order): Promise<void> {
  if (token !== undefined) {
    attached = attachTensorMemory(token);
    await attached;
    scope.postMessage("attached");
    return;
  }
  const memory = await attached;
  if (memory === null) throw new Error("not attached");
  if (tensor !== undefined) {
    const own = memory.adopt(tensor);
    {
      using pin = own.pin();
      const bytes = pin.view as Uint8Array;
      for (let index = 0; index < bytes.length; index++)
        bytes[index] = (bytes[index] as number) * 2;
    }
    scope.postMessage(own.handOver());
  }
  if (churn === true) {
    const live: { free(): void }[] = [];
    for (let step = 0; ; step++) {
      live.push(memory.allocate({ byteLength: 64 + ((step * 7919) % 30_000) }));
      if (live.length > 40) live.splice((step * 31) % live.length, 1)[0]?.free();
      if (step === 1000) scope.postMessage("churning");
    }
  }
}

scope.onmessage = ({ data }) => {
  obey(data).catch((error: unknown) => scope.postMessage(`failed: ${error}`));
};
