// Errors over bits per value, small multiples as SVG text that reads well on light and on dark ground.
const WIDTH = 300;
const HEIGHT = 190;
const LEFT = 46;
const RIGHT = 8;
const TOP = 26;
const BOTTOM = 26;
const LEGEND_HEIGHT = 26;
const BITS_MAX = 18;
const DECADES = { low: -4, high: 0.3 };
const METRICS = {
  relative: "relative error",
  largest: "largest error",
  attention: "attention error",
};
const COLOURS = ["#57606a", "#bc4c00", "#1a7f64", "#8250df", "#9a6700", "#bf3989", "#0969da"];

const STYLE = `
  text { font: 11px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 12px; }
  .grid { stroke: #d0d7de; }
  .exact { stroke: #24292f; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .grid { stroke: #3d444d; } .exact { stroke: #e6edf3; }
  }`;

function panelText({ title, losslessBits, lines }, metric, names, left, top) {
  const xOf = (bits) =>
    left + LEFT + (Math.min(bits, BITS_MAX) / BITS_MAX) * (WIDTH - LEFT - RIGHT);
  const yOf = (error) => {
    const log = Math.max(DECADES.low, Math.min(DECADES.high, Math.log10(error)));
    const share = (log - DECADES.low) / (DECADES.high - DECADES.low);
    return top + HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  };
  const bottom = top + HEIGHT - BOTTOM;
  const parts = [
    `<text class="title" x="${left + LEFT}" y="${top + 16}">${title}: ${METRICS[metric]}</text>`,
  ];
  for (let decade = DECADES.low; decade <= 0; decade++) {
    const y = yOf(10 ** decade).toFixed(1);
    const label = decade < -2 ? `${10 ** (decade + 2)} %` : `${100 * 10 ** decade} %`;
    parts.push(
      `<line class="grid" x1="${left + LEFT}" x2="${left + WIDTH - RIGHT}" y1="${y}" y2="${y}"/>`,
      `<text x="${left + LEFT - 4}" y="${y}" text-anchor="end" dy="4">${label}</text>`,
    );
  }
  for (let bits = 0; bits <= BITS_MAX; bits += 4) {
    parts.push(`<text x="${xOf(bits)}" y="${bottom + 14}" text-anchor="middle">${bits}</text>`);
  }
  if (losslessBits <= BITS_MAX) {
    const x = xOf(losslessBits).toFixed(1);
    parts.push(`<line class="exact" x1="${x}" x2="${x}" y1="${top + TOP}" y2="${bottom}"/>`);
  }
  names.forEach((name, index) => {
    const points = (lines[name] ?? []).filter((point) => point[metric] > 0);
    const places = points.map((point) => [
      xOf(point.bits).toFixed(1),
      yOf(point[metric]).toFixed(1),
    ]);
    const colour = COLOURS[index];
    parts.push(
      `<polyline points="${places.map((place) => place.join(",")).join(" ")}" fill="none" stroke="${colour}" stroke-width="1.5"/>`,
      ...places.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="2.5" fill="${colour}"/>`),
    );
  });
  return parts.join("\n");
}

/** @param panels As the section `rate` gives them. @returns A whole SVG document. */
export function ratePlot(panels) {
  const names = [...new Set(panels.flatMap(({ lines }) => Object.keys(lines)))];
  const parts = names.map((name, index) => {
    const x = 12 + index * 82;
    return `<circle cx="${x}" cy="14" r="4" fill="${COLOURS[index]}"/><text x="${x + 8}" y="18">${name}</text>`;
  });
  parts.push(
    `<text x="${12 + names.length * 82}" y="18">dashed: exact, by planes. Across: bits per value</text>`,
  );
  panels.forEach((panel, row) => {
    const top = LEGEND_HEIGHT + row * HEIGHT;
    const shown = Object.keys(METRICS).filter((metric) =>
      Object.values(panel.lines).some(([point]) => point[metric] !== null),
    );
    shown.forEach((metric, column) => {
      parts.push(panelText(panel, metric, names, column * WIDTH, top));
    });
  });
  const height = LEGEND_HEIGHT + panels.length * HEIGHT;
  const width = WIDTH * Object.keys(METRICS).length;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img">
<title>Errors of codecs over bits per value</title>
<style>${STYLE}
</style>
${parts.join("\n")}
</svg>
`;
}
