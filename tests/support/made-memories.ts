// Every memory that the tests' support has made, until its figures were compared. `every-suite.ts` asks for
// that after each test and each file. Holds no memory that was checked.
import type { TensorMemory } from "../../src/tensor-memory.js";

type Check = (memory: TensorMemory) => void;

const unchecked = new Map<TensorMemory, Check>();
const counts = { made: 0, checked: 0, abandoned: 0 };

/** @param check Throws when something about the memory does not add up. */
export function noteMade(memory: TensorMemory, check: Check): void {
  if (!unchecked.has(memory)) counts.made += 1;
  unchecked.set(memory, check);
}

/** Takes a memory out of everybody's hands: the test breaks it on purpose. */
export function noteAbandoned(memory: TensorMemory): void {
  if (unchecked.delete(memory)) counts.abandoned += 1;
}

/** Checks a memory and closes it, whatever the check says. */
export async function checkAndClose(memory: TensorMemory): Promise<void> {
  const check = unchecked.get(memory);
  if (unchecked.delete(memory)) counts.checked += 1;
  try {
    check?.(memory);
  } finally {
    await memory.close();
  }
}

/** Checks and closes all that are left. @throws The first failure. */
export async function checkAll(): Promise<void> {
  const failures: unknown[] = [];
  for (const memory of [...unchecked.keys()]) {
    await checkAndClose(memory).catch((error: unknown) => failures.push(error));
  }
  if (failures.length > 0) throw failures[0];
}

export function memoryCounts(): Readonly<typeof counts> {
  return counts;
}
