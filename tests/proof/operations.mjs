// What a step of a random run can be, and how often it is.

/** Highest weights; each run draws its own below them, and switches some operations off. */
export const WEIGHTS = {
  allocate: 100,
  allocateAligned: 12,
  allocateWhole: 1,
  free: 60,
  freeNewest: 60,
  pin: 10,
  unpin: 10,
  look: 10,
  misuse: 8,
  compactBegin: 0.3,
  compactStep: 30,
  compactAll: 0.1,
  evacuateBegin: 0.3,
  reopen: 0.5,
  age: 1,
  recover: 0.05,
  resize: 10,
  exchange: 4,
  freeMany: 2,
};
export const NEVER_OFF = ["allocate", "free"];

/** Names of the operations; a step says which one by its index. */
export const OPERATIONS = Object.keys(WEIGHTS);
