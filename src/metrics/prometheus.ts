// Families of samples as a page that Prometheus reads. Layer: metrics.
//
// Source: Prometheus documentation, "Exposition formats" — the text format, version 0.0.4.
import type { MetricFamily } from "./families.js";

/** The media type of such a page. */
export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

function escapeLabel(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}

/** The whole page: `# HELP`, `# TYPE` and a line for each sample of each family. */
export function formatPrometheus(families: readonly MetricFamily[]): string {
  const lines: string[] = [];
  for (const { name, type, help, samples } of families) {
    lines.push(`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`);
    for (const { labels, value } of samples) {
      const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
      lines.push(`${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${numberText(value)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}
