// Models as they are opened: what is refused, what is decoded plainly, what is left as it is.
import * as native from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { OnnxGraph } from "../../examples/chat/model/onnx-writer.js";
import { greedyToken, type OrtNamespace } from "../../src/adapters/ort.js";
import type { Pin } from "../../src/index.js";
import { answersOf } from "../support/decoder-families.js";
import { buildHalf, buildPositionsFromMask, moveHeadOutside } from "../support/odd-decoders.js";
import { openMemory } from "../support/oracle.js";
import { bareAnswers, Chat, CONCAT, NATIVE, open } from "../support/ort-chats.js";

describe("opening", () => {
  /** A runtime whose calls are changed on their way. */
  function wrapped(change: {
    readonly create?: (model: Uint8Array) => void;
    readonly run?: (names: readonly string[]) => void;
  }): OrtNamespace & { createCount: number } {
    const namespace = {
      createCount: 0,
      Tensor: native.Tensor,
      InferenceSession: {
        create: async (model: Uint8Array, options: never) => {
          namespace.createCount += 1;
          change.create?.(model);
          const session = await native.InferenceSession.create(model, options);
          return {
            release: () => session.release(),
            run: (feeds: Record<string, native.Tensor>, names: readonly string[]) => {
              change.run?.(names);
              return session.run(feeds, names as string[]);
            },
          };
        },
      },
    };
    return namespace;
  }

  it("refuses what is no model before it asks the runtime", async () => {
    const memory = await openMemory();
    const ort = wrapped({});
    const cases = [new Uint8Array(9), CONCAT.build(1).slice(0, 5000), new OnnxGraph().toModel()];
    for (const model of cases) {
      await expect(open({ memory, ort, model })).rejects.toMatchObject({
        code: expect.stringMatching(/^(malformed|unsupported)$/),
      });
    }
    await expect(open({ memory, ort, checkTokens: -1 })).rejects.toMatchObject({
      code: "bad-option",
    });
    await expect(open({ memory, ort, pageTokens: 0 })).rejects.toMatchObject({
      code: "bad-option",
    });
    expect(ort.createCount).toBe(0);
    const refused = open({
      memory,
      ort: wrapped({
        create: () => {
          throw new Error("no");
        },
      }),
    });
    await expect(refused).rejects.toMatchObject({ code: "unsupported" });
  });

  it("is plain where the runtime refuses the patched model", async () => {
    const memory = await openMemory();
    const model = CONCAT.build(1);
    const ort = wrapped({
      create: ({ byteLength }) => {
        if (byteLength > model.byteLength) throw new Error("no patched models");
      },
    });
    const decoder = await open({ memory, ort, model });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "load-failed" });
    const chat = new Chat(decoder);
    expect(await answersOf(chat, 1)).toEqual(await bareAnswers(CONCAT, 1));
    chat.cache.free();
    await decoder.close();
  });

  it("is plain where the runtime cannot run the patched model", async () => {
    const memory = await openMemory();
    const ort = wrapped({
      run: (names) => {
        if (!names.some((name) => name.startsWith("present"))) throw new Error("no rows");
      },
    });
    const decoder = await open({ memory, ort });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "run-failed" });
    await decoder.close();
  });

  it("is plain where positions come from the length of the mask", async () => {
    const memory = await openMemory();
    const model = buildPositionsFromMask(4);
    const decoder = await open({ memory, model });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "check-failed" });
    const chat = new Chat(decoder);
    const expected = await bareAnswers(CONCAT, 4, NATIVE, model);
    expect(await answersOf(chat, 4)).toEqual(expected);
    // Unchecked, the same model gives other tokens: the check has something to find.
    const unchecked = new Chat(await open({ memory, model, checkTokens: 0 }));
    expect(unchecked.decoder.stats()).toMatchObject({ mode: "delta", checkedTokens: 0 });
    expect(await answersOf(unchecked, 4)).not.toEqual(expected);
    for (const { cache, decoder: each } of [chat, unchecked]) {
      cache.free();
      await each.close();
    }
  });

  it("is plain where the graph is not one that is known", async () => {
    const memory = await openMemory();
    const model = buildHalf("Max");
    await expect(open({ memory, model: buildHalf("Nonsense") })).rejects.toMatchObject({
      code: "unsupported",
    });
    const decoder = await open({ memory, model });
    expect(decoder.stats()).toMatchObject({ mode: "plain", reason: "unknown-cache" });
    await decoder.close();
  });

  it("keeps KV of f16 as it is", async () => {
    const memory = await openMemory();
    const kept: Uint16Array[] = [];
    for (const mode of ["delta", "plain"] as const) {
      const decoder = await open({ memory, model: buildHalf("Concat"), mode, pageTokens: 8 });
      expect(decoder.stats().mode).toBe(mode);
      const cache = decoder.createCache({ id: mode });
      await decoder.step(cache, [1, 2, 3]);
      await decoder.step(cache, [1, 2, 3, 1]);
      const { logits } = await decoder.step(cache, [1, 2, 3, 1, 2, 0, 3, 2]);
      expect(logits).toBeInstanceOf(Uint16Array);
      expect(greedyToken(logits)).toBe(2);
      const pin = memory.tensor(`${mode}/0.key`)?.pin({ access: "read" }) as Pin<"f16">;
      kept.push(pin.view.slice());
      pin[Symbol.dispose]();
      cache.free();
      await decoder.close();
    }
    const halves = [0x3c00, 0x4000, 0x4000, 0x4400];
    expect([...(kept[0] as Uint16Array).slice(0, 4)]).toEqual(halves);
    expect(kept[1]).toEqual(kept[0]);
  });

  it("leaves weights where they are outside of the file", async () => {
    const memory = await openMemory();
    const model = CONCAT.build(5);
    const expected = await bareAnswers(CONCAT, 5);
    const { outside, data } = moveHeadOutside(model);
    expect(outside.byteLength).toBeLessThan(model.byteLength);
    const sessionOptions = { ...NATIVE.sessionOptions, externalData: [{ path: "head.bin", data }] };
    const decoder = await open({ memory, model: outside, sessionOptions });
    expect(decoder.stats().mode).toBe("delta");
    const chat = new Chat(decoder);
    expect(await answersOf(chat, 5)).toEqual(expected);
    chat.cache.free();
    await decoder.close();
  });

  it("refuses a shared memory", async () => {
    const memory = await openMemory({ shared: true });
    await expect(open({ memory })).rejects.toMatchObject({ code: "unsupported" });
  });
});
