// Bar plots on a logarithmic axis, as SVG text that reads well on light and on dark ground.

const WIDTH = 820;
const LABEL_WIDTH = 300;
const VALUE_WIDTH = 84;
const BAR_HEIGHT = 18;
const BAR_STEP = 24;
const TITLE_HEIGHT = 34;
const AXIS_HEIGHT = 24;

const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .tick { font-size: 11px; fill: #6e7781; }
  .grid { stroke: #d0d7de; }
  .ours { fill: #1a7f64; }
  .other { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .tick { fill: #8d96a0; }
    .grid { stroke: #3d444d; }
    .ours { fill: #3fb68b; }
    .other { fill: #6e7681; }
  }`;

const escaped = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const rounded = (value) =>
  value < 100 ? value.toFixed(1) : Math.round(value).toLocaleString("en-US");

/** Powers of ten that enclose the values. */
function decades(bars) {
  const logs = bars.map(({ value }) => Math.log10(value));
  return { low: Math.floor(Math.min(...logs)), high: Math.ceil(Math.max(...logs) + 1e-9) };
}

function panelText({ title, bars }, top) {
  const { low, high } = decades(bars);
  const span = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
  const xOf = (log) => LABEL_WIDTH + ((log - low) / (high - low)) * span;
  const firstBar = top + TITLE_HEIGHT;
  const bottom = firstBar + bars.length * BAR_STEP;
  const lines = [
    `<text class="title" x="8" y="${top + 20}">${escaped(title)}</text>`,
    `<text class="tick" x="${WIDTH - 8}" y="${top + 20}" text-anchor="end">less is better</text>`,
  ];
  for (let log = low; log <= high; log++) {
    const x = xOf(log).toFixed(1);
    const label = (10 ** log).toLocaleString("en-US", { maximumFractionDigits: 3 });
    lines.push(
      `<line class="grid" x1="${x}" x2="${x}" y1="${firstBar}" y2="${bottom}"/>`,
      `<text class="tick" x="${x}" y="${bottom + 14}" text-anchor="middle">${label}</text>`,
    );
  }
  bars.forEach(({ label, value, isOurs }, index) => {
    const y = firstBar + index * BAR_STEP;
    const end = xOf(Math.log10(value));
    const width = Math.max(1, end - LABEL_WIDTH).toFixed(1);
    const kind = isOurs ? "ours" : "other";
    lines.push(
      `<text x="${LABEL_WIDTH - 8}" y="${y + 14}" text-anchor="end">${escaped(label)}</text>`,
      `<rect class="${kind}" x="${LABEL_WIDTH}" y="${y}" width="${width}" height="${BAR_HEIGHT}" rx="2"/>`,
      `<text x="${(end + 6).toFixed(1)}" y="${y + 14}">${rounded(value)}</text>`,
    );
  });
  return { text: lines.join("\n"), bottom: bottom + AXIS_HEIGHT };
}

/**
 * @param panels Each with a title and bars of `label`, `value` above 0 and `isOurs`.
 * @returns A whole SVG document. The axes are logarithmic: lengths show ratios only between ticks.
 */
export function barPlot(panels) {
  let top = 0;
  const parts = panels.map((panel) => {
    const { text, bottom } = panelText(panel, top);
    top = bottom;
    return text;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top}" role="img">
<title>${escaped(panels.map(({ title }) => title).join("; "))} (logarithmic axes)</title>
<style>${STYLE}
</style>
${parts.join("\n")}
</svg>
`;
}
