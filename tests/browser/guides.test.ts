// The code of the guides that is for pages, bundled as a user's would be, in a real browser.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { blocksOf, outputOf, programOf } from "../support/documents.js";
import { Browser, buildAndServe, TEST_PAGE } from "./browser.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const guides = join(root, "docs", "guides");
const pages = readdirSync(guides)
  .filter((name) => name.endsWith(".md"))
  .map((name) => ({ name, blocks: blocksOf(join(guides, name)) }))
  .filter(({ blocks }) => programOf(blocks, "page") !== "");

let browser: Browser;

beforeAll(async () => {
  browser = await Browser.launch();
});

afterAll(async () => {
  await browser?.close();
});

/** What the code prints in a page that is made of nothing else. */
async function printedBy(code: string): Promise<string[]> {
  mkdirSync(join(root, "build"), { recursive: true });
  const folder = mkdtempSync(join(root, "build", "guide-page-"));
  try {
    writeFileSync(join(folder, "main.ts"), `${code}\ndocument.title = "done";\n`);
    const head = '<!doctype html><link rel="icon" href="data:," />';
    writeFileSync(
      join(folder, "index.html"),
      `${head}<script type="module" src="./main.ts"></script>`,
    );
    const site = await buildAndServe({
      ...TEST_PAGE,
      root: folder,
      // The package as it was built, under its own name.
      resolve: {},
      build: { outDir: join(folder, "out"), target: "es2022" },
    });
    try {
      const page = await browser.open("about:blank");
      const printed: string[] = [];
      page.on("console", (message) => {
        if (message.type() === "log") printed.push(message.text());
      });
      await page.goto(site.url);
      await page.waitForFunction(() => document.title === "done");
      return printed;
    } finally {
      await site.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe.each(pages)("$name", ({ blocks }) => {
  it("prints what it says, in a page", async () => {
    expect(await printedBy(programOf(blocks, "page"))).toEqual(outputOf(blocks));
    expect(browser.complaints).toEqual([]);
  });
});

it("are there", () => {
  expect(pages.length).toBeGreaterThanOrEqual(1);
});
