// How fast tensors come in together.
import { expect, it } from "vitest";
import { BurstSpeed } from "../../src/cache/burst-speed.js";

const KIB = 1024;

it("counts time once in which several come in, and takes the median of bursts", () => {
  const speed = new BurstSpeed();
  expect(speed.bytesPerSecond).toBeNull();
  speed.begin(0);
  speed.begin(5);
  speed.end(40, 100 * KIB);
  speed.end(100, 100 * KIB);
  expect(speed.bytesPerSecond).toBe(2000 * KIB);
  // One that was slow changes nothing once there are others.
  for (const durationMs of [50, 5000, 50]) {
    speed.begin(1000);
    speed.end(1000 + durationMs, 100 * KIB);
  }
  expect(speed.bytesPerSecond).toBe(2000 * KIB);
});

it("learns nothing from what is short, has failed, or took no time", () => {
  const speed = new BurstSpeed();
  speed.begin(0);
  speed.end(10, KIB);
  speed.begin(20);
  speed.end(30, 0);
  speed.begin(40);
  speed.end(40, 100 * KIB);
  expect(speed.bytesPerSecond).toBeNull();
});

it("forgets what was long ago", () => {
  const speed = new BurstSpeed();
  for (let index = 0; index < 40; index++) {
    const startMs = index * 1000;
    speed.begin(startMs);
    speed.end(startMs + (index < 8 ? 900 : 100), 100 * KIB);
  }
  expect(speed.bytesPerSecond).toBe(1000 * KIB);
});
