// Temporary directories that go with the test that made them.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach } from "vitest";

const made: string[] = [];

export async function temporaryDirectory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "tierheap-test-"));
  made.push(path);
  return path;
}

afterEach(async () => {
  for (const path of made.splice(0)) await rm(path, { recursive: true, force: true });
});
