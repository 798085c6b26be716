// Puts the library on `window`, for tests that drive this page from outside.
import { createTensorMemory } from "tierheap/browser";
import { type TierFixture, tierConformance } from "tierheap/testing";
import { indexedDbTier } from "../../../src/tier/indexed-db.js";

let databaseCount = 0;

function deleteDatabase(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(name);
    request.onsuccess = () => resolve();
    request.onerror = () => reject(request.error ?? new Error(`cannot delete ${name}`));
    request.onblocked = () => reject(new Error(`${name} is still open`));
  });
}

async function indexedDbFixture(options: { readonly capacityBytes: number }): Promise<TierFixture> {
  databaseCount += 1;
  const database = `conformance-${databaseCount}`;
  const open = () => indexedDbTier({ database, ...options });
  return {
    tier: open(),
    reopened: async () => open(),
    dispose: () => deleteDatabase(database),
  };
}

/** Runs one case of the suite; the result says what broke, or null. */
async function runTierCase(name: string): Promise<string | null> {
  const found = tierConformance(indexedDbFixture).find((each) => each.name === name);
  if (found === undefined) return `no case ${name}`;
  try {
    await found.run();
    return null;
  } catch (error) {
    return String(error);
  }
}

/** Bytes that follow from a seed, so that both sides of a reload know them. */
function pattern(byteLength: number, seed: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: byteLength }, (_, index) => (index * 31 + seed * 7) & 0xff);
}

function isPattern(bytes: Uint8Array, seed: number): boolean {
  return pattern(bytes.byteLength, seed).every((byte, index) => byte === bytes[index]);
}

const api = { createTensorMemory, runTierCase, pattern, isPattern };

export type PageApi = typeof api;

declare global {
  interface Window {
    tierheap: PageApi;
  }
}

window.tierheap = api;
