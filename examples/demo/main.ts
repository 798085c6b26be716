// Starts the page: facts, a heap with what an earlier visit left, and something to look at.
import { element, say, sayProblem, setText } from "./dom.js";
import { Page, showSettings } from "./page.js";
import { readSettings } from "./settings.js";

async function start(): Promise<void> {
  const { heap, isQuiet } = readSettings(location.search);
  showSettings(heap);
  setText(
    element("fact-isolation"),
    crossOriginIsolated ? "isolated page" : "page without isolation",
  );
  const page = new Page();
  page.listen();
  await page.open(heap);
  say(page.greeting);
  if (!isQuiet) page.startTrace();
}

start().catch(sayProblem);
