// Misses of 113,872 requests to `cloudPhysicsIO.oracleGeneral.bin` at 128, 256, … 1,024 MiB, as stated in
// libCacheSim's `test/test_evictionAlgo.c` (github.com/1a1a11a/libCacheSim). Numbers only: the trace
// is under that repository's licence and is not part of this one.
export const CAPACITIES_MIB = [128, 256, 384, 512, 640, 768, 896, 1024];

export const MISSES = {
  fifo: [93403, 89386, 84387, 84025, 72498, 72228, 72182, 72140],
  lru: [93374, 89783, 83572, 81722, 72494, 72104, 71972, 71704],
  clock: [93313, 89775, 83411, 81328, 74815, 72283, 71927, 64456],
  lfu: [91699, 86720, 78578, 76707, 69945, 66221, 64445, 64376],
  sieve: [91699, 86720, 78578, 76707, 69945, 66221, 64445, 64376],
};
