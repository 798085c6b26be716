// One minute of bytes, hits and fragmentation, as lines.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { element, setText, styleColour, styleValue } from "./dom.js";
import type { Sample } from "./sampler.js";

const WINDOW_S = 60;
const HEIGHT = 120;
const MIB = 2 ** 20;

interface Line {
  readonly label: string;
  /** Name of the colour in the style sheet. */
  readonly colour: string;
  readonly of: (sample: Sample) => number | null;
}

interface Chart {
  readonly id: string;
  /** Behind the figures of this moment. */
  readonly unit: string;
  readonly format: (value: number) => string;
  /** Upper end of the axis; null: as the data needs. */
  readonly top: number | null;
  /** Values may be rare: each is a dot. */
  readonly hasPoints?: boolean;
  readonly lines: readonly Line[];
}

const percent = (value: number) => `${Math.round(value * 100)} %`;

const CHARTS: readonly Chart[] = [
  {
    id: "chart-bytes",
    unit: " MiB",
    format: (value) => `${Math.round(value)}`,
    top: null,
    lines: [
      { label: "RAM", colour: "--accent", of: ({ stats }) => stats.tensors.hotBytes / MIB },
      {
        label: "encoded",
        colour: "--part-warm",
        of: ({ tiers }) => (tiers.find(({ name }) => name === "warm")?.storedBytes ?? 0) / MIB,
      },
      {
        label: "storage",
        colour: "--quiet",
        of: ({ tiers }) => (tiers.find(({ name }) => name === "ssd")?.storedBytes ?? 0) / MIB,
      },
    ],
  },
  {
    id: "chart-hits",
    unit: "",
    format: percent,
    top: 1,
    hasPoints: true,
    lines: [{ label: "hits", colour: "--accent", of: ({ hitRatio }) => hitRatio }],
  },
  {
    id: "chart-fragmentation",
    unit: "",
    format: percent,
    top: 1,
    lines: [
      {
        label: "external fragmentation",
        colour: "--accent",
        of: ({ externalFragmentation }) => externalFragmentation,
      },
    ],
  },
];

class Timeline {
  readonly #chart: Chart;
  readonly #root: HTMLElement;
  readonly #times: number[] = [];
  readonly #values: (number | null)[][];
  #plot: uPlot;

  constructor(chart: Chart) {
    this.#chart = chart;
    this.#root = element(chart.id);
    this.#values = chart.lines.map(() => []);
    this.#plot = this.#create();
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(this.#root);
  }

  /** Colours are taken when a chart is made. */
  recolour(): void {
    this.#plot.destroy();
    this.#plot = this.#create();
  }

  add(sample: Sample): void {
    const seconds = sample.atMs / 1000;
    this.#times.push(seconds);
    for (const [index, { of }] of this.#chart.lines.entries())
      this.#values[index]?.push(of(sample));
    while ((this.#times[0] ?? seconds) < seconds - WINDOW_S) {
      this.#times.shift();
      for (const values of this.#values) values.shift();
    }
    this.#plot.setData(this.#data(), false);
    this.#plot.setScale("x", { min: seconds - WINDOW_S, max: seconds });
    const last = this.#values.map((values) => values.findLast((value) => value !== null) ?? null);
    const texts = last.map((value) => (value === null ? "–" : this.#chart.format(value)));
    setText(element(`${this.#chart.id}-now`), `${texts.join(" · ")}${this.#chart.unit}`);
  }

  #data(): uPlot.AlignedData {
    return [this.#times, ...this.#values] as uPlot.AlignedData;
  }

  #size() {
    return { width: Math.max(80, this.#root.clientWidth), height: HEIGHT };
  }

  #create(): uPlot {
    const quiet = styleColour("--quiet");
    const axis = {
      stroke: quiet,
      font: `11px ${styleValue("--font")}`,
      grid: { stroke: styleColour("--line"), width: 1 },
      ticks: { show: false },
    };
    const { top, format, lines, hasPoints = false } = this.#chart;
    return new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: { time: false },
          y: { range: (_plot, _low, high) => [0, top ?? Math.max(8, (high ?? 0) * 1.1)] },
        },
        axes: [
          {
            ...axis,
            size: 22,
            space: 70,
            grid: { show: false },
            splits: (_plot, _axis, _low, high) => [high - 40, high - 20, high],
            values: (_plot, splits) =>
              splits.map((at) => `${Math.round(at - (splits[2] ?? at))} s`),
          },
          {
            ...axis,
            size: 48,
            space: 34,
            values: (_plot, splits) => splits.map((value) => format(value)),
          },
        ],
        series: [
          {},
          ...lines.map(({ label, colour }) => ({
            label,
            stroke: styleColour(colour),
            width: 1.5,
            spanGaps: true,
            points: { show: hasPoints, size: 3 },
          })),
        ],
      },
      this.#data(),
      this.#root,
    );
  }
}

export class Timelines {
  readonly #timelines = CHARTS.map((chart) => new Timeline(chart));

  constructor() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const timeline of this.#timelines) timeline.recolour();
    });
  }

  add(sample: Sample): void {
    for (const timeline of this.#timelines) timeline.add(sample);
  }
}
