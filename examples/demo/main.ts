// Starts the page: legend, facts, a heap with what an earlier visit left, and something to look at.
import { element, make, say, sayProblem, setText } from "./dom.js";
import { KINDS, kindName } from "./map-painter.js";
import { Page, showSettings } from "./page.js";
import { readSettings } from "./settings.js";

function showLegend(): void {
  const entries = KINDS.map((kind) => {
    const key = make("i");
    key.style.background = `var(--kind-${kind.toLowerCase()})`;
    return make("li", "", key, kindName(kind));
  });
  const free = make("i");
  free.style.background = "var(--free)";
  element("legend").append(
    ...entries,
    make("li", "", make("i", "pinned"), "Pinned"),
    make("li", "", free, "Free"),
  );
}

async function start(): Promise<void> {
  showLegend();
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
