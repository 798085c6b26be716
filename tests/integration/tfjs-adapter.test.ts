// TensorFlow.js on the heap's bytes: no copy, and a pin for as long as anything shares them.
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { beforeAll, describe, expect, it } from "vitest";
import { toTfjs } from "../../src/adapters/tfjs.js";
import type { TensorMemory } from "../../src/index.js";
import { openMemory } from "../support/oracle.js";

beforeAll(async () => {
  await tf.setBackend("cpu");
});

function pinnedCount(memory: TensorMemory): number {
  return memory.stats().pools.reduce((sum, pool) => sum + pool.pinnedCount, 0);
}

function matrixOn(memory: TensorMemory) {
  const tensor = memory.allocate({ kind: "ACTIVATIONS", shape: [2, 3], dtype: "f32" });
  const pin = tensor.pin();
  pin.view.set([1, 2, 3, 4, 5, 6]);
  pin[Symbol.dispose]();
  return tensor;
}

describe("toTfjs", () => {
  it("gives the library the heap's own bytes", async () => {
    const memory = await openMemory();
    const tensor = matrixOn(memory);
    const pin = tensor.pin({ access: "read" });
    const shown = toTfjs(pin, tf);
    expect(shown.shape).toEqual([2, 3]);
    expect(shown.dtype).toBe("float32");
    expect(shown.dataSync()).toBe(pin.view);
    const product = tf.matMul(shown as tf.Tensor2D, shown as tf.Tensor2D, false, true);
    expect([...product.dataSync()]).toEqual([14, 32, 32, 77]);
    product.dispose();
    shown.dispose();
    tensor.free();
  });

  it("of integers and flags", async () => {
    const memory = await openMemory();
    for (const [dtype, name] of [
      ["i32", "int32"],
      ["bool", "bool"],
    ] as const) {
      const tensor = memory.allocate({ kind: "ACTIVATIONS", shape: [3], dtype });
      const pin = tensor.pin();
      pin.view.set([1, 0, 1]);
      const shown = toTfjs(pin, tf);
      expect(shown.dtype).toBe(name);
      expect([...shown.dataSync()]).toEqual([1, 0, 1]);
      shown.dispose();
      tensor.free();
    }
  });

  it("keeps the pin until the last tensor that shares the bytes is gone", async () => {
    const memory = await openMemory();
    const tensor = matrixOn(memory);
    const shown = toTfjs(tensor.pin({ access: "read" }), tf);
    const [clone, flat] = [shown.clone(), tf.reshape(shown, [6])];
    expect(pinnedCount(memory)).toBe(1);
    expect(() => tensor.free()).toThrow(expect.objectContaining({ code: "pinned" }));
    shown.dispose();
    clone.dispose();
    expect(pinnedCount(memory)).toBe(1);
    expect([...flat.dataSync()]).toEqual([1, 2, 3, 4, 5, 6]);
    flat.dispose();
    expect(pinnedCount(memory)).toBe(0);
    tensor.free();
  });

  it("ends with a tidy", async () => {
    const memory = await openMemory();
    const tensor = matrixOn(memory);
    const before = tf.memory().numTensors;
    const sum = tf.tidy(() => {
      const shown = toTfjs(tensor.pin({ access: "read" }), tf);
      return tf.sum(shown).dataSync()[0];
    });
    expect(sum).toBe(21);
    expect(tf.memory().numTensors).toBe(before);
    expect(pinnedCount(memory)).toBe(0);
    tensor.free();
  });

  it("refuses what the library has no elements for, and pins that have ended", async () => {
    const memory = await openMemory();
    const tensor = memory.allocate({ kind: "ACTIVATIONS", shape: [2], dtype: "f16" });
    const pin = tensor.pin();
    expect(() => toTfjs(pin, tf)).toThrow(expect.objectContaining({ code: "bad-dtype" }));
    pin[Symbol.dispose]();
    const other = matrixOn(memory);
    const ended = other.pin();
    ended[Symbol.dispose]();
    expect(() => toTfjs(ended, tf)).toThrow(expect.objectContaining({ code: "unpinned" }));
    tensor.free();
    other.free();
  });
});
