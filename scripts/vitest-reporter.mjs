// A vitest reporter that writes what test.mjs adds up: counts, and each skip with its reason.
import { writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { root } from "./steps.mjs";

export default class CountReporter {
  #project;

  constructor({ project }) {
    this.#project = project;
  }

  onTestRunEnd(modules, unhandledErrors) {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: [], failures: [] };
    for (const error of unhandledErrors) counts.failures.push(`unhandled: ${error.message}`);
    for (const module of modules) {
      const file = relative(root, module.moduleId);
      // A file that does not load, or a hook that throws, has no failed test to show for it.
      const suiteErrors = [module, ...module.children.allSuites()].flatMap((suite) =>
        suite.errors(),
      );
      counts.failed += suiteErrors.length;
      for (const error of suiteErrors) counts.failures.push(`${file}: ${error.message}`);
      for (const test of module.children.allTests()) {
        const { state, note } = test.result();
        const name = `${file}: ${test.fullName}`;
        if (state === "passed") {
          counts.passed += 1;
        } else if (state === "failed") {
          counts.failed += 1;
          counts.failures.push(name);
        } else {
          counts.skipped.push(note ? `${name} (${note})` : name);
        }
      }
    }
    writeFileSync(join(root, "build", `test-${this.#project}.json`), JSON.stringify(counts));
  }
}
