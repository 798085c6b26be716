// What the owner of a heap and a worker with a model say to each other.

/** The KV of one chat, away from its model. */
export interface KvState {
  /** Its bytes, each over a buffer of its own: they are handed over, not copied. */
  readonly parts: readonly Uint8Array<ArrayBuffer>[];
  /** What the model needs to know about them, such as the number of tokens. Structured-cloned. */
  readonly about: unknown;
}

export type ModelRequest =
  | { readonly type: "start"; readonly init: unknown }
  | {
      readonly type: "run";
      readonly chat: string;
      readonly input: unknown;
      /** null: the chat is in the worker, or has no KV. */
      readonly state: KvState | null;
    }
  | { readonly type: "suspend"; readonly chat: string }
  | { readonly type: "forget"; readonly chat: string };

export type ModelReply =
  | {
      readonly id: number;
      readonly value: unknown;
      /** Of all WebAssembly memories in the worker; they never get shorter. */
      readonly heapBytes: number;
    }
  | { readonly id: number; readonly message: string };

export type NumberedRequest = ModelRequest & { readonly id: number };

/** What can be handed over with a state. */
export function buffersOf(state: KvState | null): ArrayBuffer[] {
  return state === null ? [] : state.parts.map(({ buffer }) => buffer);
}
