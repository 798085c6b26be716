// Loads a model, in the thread of the caller or, with `ort.env.wasm.proxy`, in a worker that the runtime starts.
//
// That worker takes what it is given: the runtime transfers the bytes of a model and the arrays of a run, and the
// memory of a heap cannot be transferred. So it gets copies, which live as long as the run.
import type { OrtNamespace, OrtSession, OrtTensor } from "./runtime.js";

/** Whether the runtime takes the arrays that it is given away. */
export function isProxied({ env }: OrtNamespace): boolean {
  return env?.wasm?.proxy === true;
}

/** @param model Not the caller's to keep where the runtime is proxied. @throws What the runtime throws. */
export async function loadSession(
  ort: OrtNamespace,
  model: Uint8Array,
  options: unknown,
): Promise<OrtSession> {
  const session = (await ort.InferenceSession.create(model, options as never)) as OrtSession;
  if (!isProxied(ort)) return session;
  return {
    run: (feeds, fetches) => session.run(copiesOf(ort, feeds), fetches),
    release: () => session.release(),
  };
}

function copiesOf(
  { Tensor }: OrtNamespace,
  feeds: Readonly<Record<string, OrtTensor>>,
): Record<string, OrtTensor> {
  const copies: Record<string, OrtTensor> = {};
  for (const [name, { type, data, dims }] of Object.entries(feeds)) {
    const copy = (data as Uint8Array).slice();
    copies[name] = new Tensor(type as never, copy as never, dims) as OrtTensor;
  }
  return copies;
}
