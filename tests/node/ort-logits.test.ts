// What is read from logits: the best token, and how far two rows may differ.
import { expect, it } from "vitest";
import { greedyToken, logitsAgree } from "../../src/adapters/ort/logits.js";

/** f16 bit patterns: zero, one, two, −2, the least subnormal, infinity, NaN. */
const [ZERO, ONE, TWO, MINUS_TWO, LEAST, INFINITY, NAN] = [
  0, 0x3c00, 0x4000, 0xc000, 1, 0x7c00, 0x7e00,
] as const;

it("takes the first of the highest", () => {
  expect(greedyToken(Float32Array.of(-3, 2, 5, 5, 1))).toBe(2);
  expect(greedyToken(Float32Array.of(Number.NaN, -7))).toBe(1);
  expect(greedyToken(Float32Array.of(Number.NaN))).toBe(-1);
  expect(greedyToken(new Float32Array())).toBe(-1);
  expect(greedyToken(Uint16Array.of(MINUS_TWO, ZERO, LEAST, ZERO))).toBe(2);
  expect(greedyToken(Uint16Array.of(MINUS_TWO, ONE, TWO, NAN))).toBe(2);
  expect(greedyToken(Uint16Array.of(ONE, INFINITY))).toBe(1);
});

it("lets rows differ by rounding alone", () => {
  const row = Float32Array.of(-4, 1, 0);
  expect(logitsAgree(row, row)).toBe(true);
  expect(logitsAgree(row, Float32Array.of(-4, 1.003, 0))).toBe(true);
  expect(logitsAgree(row, Float32Array.of(-4, 1.005, 0))).toBe(false);
  expect(logitsAgree(row, Float32Array.of(-4, 1))).toBe(false);
  expect(logitsAgree(Float32Array.of(Number.NaN), Float32Array.of(Number.NaN))).toBe(false);
  expect(logitsAgree(new Float32Array(), new Float32Array())).toBe(false);
  expect(logitsAgree(new Float32Array(2), new Float32Array(2))).toBe(true);
  expect(logitsAgree(Uint16Array.of(ONE, TWO), Uint16Array.of(ONE + 4, TWO))).toBe(true);
  expect(logitsAgree(Uint16Array.of(ONE, TWO), Uint16Array.of(ONE + 64, TWO))).toBe(false);
  expect(logitsAgree(Uint16Array.of(INFINITY), Uint16Array.of(INFINITY))).toBe(false);
});
