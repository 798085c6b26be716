// Hit ratio over capacity, as SVG text that reads well on light and on dark ground.
const WIDTH = 720;
const HEIGHT = 360;
const LEFT = 48;
const RIGHT = 130;
const TOP = 36;
const BOTTOM = 40;
const COLOURS = ["#1a7f64", "#8250df", "#bf3989", "#bc4c00", "#0969da", "#57606a", "#9a6700"];

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 14px; }
  .grid { stroke: #d0d7de; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .grid { stroke: #3d444d; } }`;

/** One line of a plot. */
export interface PlotLine {
  readonly label: string;
  /** Capacity, rising, and percent. */
  readonly points: readonly (readonly [number, number])[];
}

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/**
 * Draws hit ratios over capacities.
 *
 * @param lines At least one, all with the same capacities.
 * @returns A whole SVG document; the axis of capacities is logarithmic.
 */
export function linePlot(title: string, lines: readonly PlotLine[]): string {
  const capacities = lines[0]?.points.map(([capacity]) => capacity) ?? [];
  const low = Math.log(capacities[0] ?? 1);
  const high = Math.log(capacities.at(-1) ?? 1);
  const lastOf = ({ points }: PlotLine) => points.at(-1)?.[1] ?? 0;
  const xOf = (capacity: number) =>
    LEFT + ((Math.log(capacity) - low) / (high - low || 1)) * (WIDTH - LEFT - RIGHT);
  const yOf = (percent: number) => HEIGHT - BOTTOM - (percent / 100) * (HEIGHT - TOP - BOTTOM);
  const parts = [`<text class="title" x="8" y="20">${escaped(title)}</text>`];
  for (let percent = 0; percent <= 100; percent += 25) {
    const y = yOf(percent).toFixed(1);
    parts.push(
      `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"/>`,
      `<text x="${LEFT - 6}" y="${y}" text-anchor="end" dy="4">${percent} %</text>`,
    );
  }
  for (const capacity of capacities) {
    const x = xOf(capacity).toFixed(1);
    parts.push(`<text x="${x}" y="${HEIGHT - 16}" text-anchor="middle">${capacity}</text>`);
  }
  // Labels keep a line's distance, from the highest line down.
  let labelY = 0;
  const byHeight = [...lines].sort((a, b) => lastOf(b) - lastOf(a));
  for (const line of byHeight) {
    const colour = COLOURS[lines.indexOf(line) % COLOURS.length];
    const path = line.points.map(([c, p]) => `${xOf(c).toFixed(1)},${yOf(p).toFixed(1)}`).join(" ");
    labelY = Math.max(labelY + 15, yOf(lastOf(line)));
    parts.push(
      `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`,
      `<text x="${WIDTH - RIGHT + 8}" y="${labelY.toFixed(1)}" dy="4" style="fill:${colour}">${escaped(line.label)}</text>`,
    );
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">
<title>${escaped(title)}</title>
<style>${STYLE}
</style>
${parts.join("\n")}
</svg>
`;
}
