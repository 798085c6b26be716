// The adaptive compressor on kinds × budgets × metrics: does it keep the budget, how often does it encode, how
// many bytes more than the best of its candidates, how long does it look before it encodes.
import { AdaptiveCompressor } from "../../../dist/src/codec/adaptive-compressor.js";
import { scan } from "../../../dist/src/codec/scan.js";
import { makeKinds, replayError } from "../data/kinds.mjs";
import { atMost, plain } from "../timing.mjs";

const EPSILONS = [0, 1e-3, 0.01, 0.03, 0.1, 0.2];
const METRICS = ["relative", "max", "attention"];
const PROBES = 32;
/** Attention over the largest kind in double precision would take minutes. */
const JUDGED_VALUES_MAX = 2 ** 18;

/** The error of a decoded tensor, in the metric, by arithmetic of its own. */
function trueError(kind, decoded, metric) {
  const { values, matrix, queries, partner } = kind;
  if (metric === "attention") {
    const held = queries.subarray(PROBES * matrix.columns);
    return replayError(held, matrix.columns, values, decoded, partner);
  }
  let errors = 0;
  let squares = 0;
  let largest = 0;
  let magnitude = 0;
  values.forEach((value, i) => {
    const error = Math.abs(value - decoded[i]);
    errors += error ** 2;
    squares += value ** 2;
    largest = Math.max(largest, error);
    magnitude = Math.max(magnitude, Math.abs(value));
  });
  if (errors === 0) return 0;
  return metric === "relative" ? Math.sqrt(errors / squares) : largest / magnitude;
}

/** Fewest bytes of all candidates that keep the budget when encoded and measured. */
function oracleBytes(compressor, kind, budget, context) {
  const exact = ["plane", "raw"].map(
    (codec) => compressor.engine.encode(kind.matrix, { codec }).bytes.byteLength,
  );
  let best = Math.min(...exact);
  if (budget.epsilon === 0) return best;
  compressor.engine.load(kind.matrix, (loaded, workspace) => {
    const facts = scan(workspace, loaded);
    for (const { candidate } of compressor.candidates(loaded, budget, context, facts, null)) {
      if (candidate.relative === 0 || candidate.bytes >= best) continue;
      const unit = compressor.engine.encodeLoaded(loaded, candidate.choice);
      const error =
        budget.metric === "relative" ? unit.relativeError : unit.maxError / facts.magnitude;
      if (error <= budget.epsilon) best = Math.min(best, unit.bytes.byteLength);
    }
  });
  return best;
}

/** Milliseconds that the scan takes, and with the probe of the spectrum where one is made. */
function timeScan(compressor, kind, budget, context) {
  return compressor.engine.load(kind.matrix, (loaded, workspace) => {
    let scanMs = Infinity;
    let allMs = Infinity;
    for (let round = 0; round < 9; round++) {
      workspace.within(() => {
        const start = performance.now();
        const facts = scan(workspace, loaded);
        scanMs = Math.min(scanMs, performance.now() - start);
        compressor.candidates(loaded, budget, context, facts, null);
        allMs = Math.min(allMs, performance.now() - start);
      });
    }
    return [scanMs, allMs];
  });
}

function timeEncode(compressor, kind, choice) {
  return compressor.engine.load(kind.matrix, (loaded) => {
    let encodeMs = Infinity;
    for (let round = 0; round < 9; round++) {
      const start = performance.now();
      compressor.engine.encodeLoaded(loaded, choice);
      encodeMs = Math.min(encodeMs, performance.now() - start);
    }
    return encodeMs;
  });
}

export async function run({ isQuick }) {
  const compressor = await AdaptiveCompressor.create({ workspaceBytes: 2 ** 27 });
  const kinds = [100, 200].slice(0, isQuick ? 1 : 2).flatMap(makeKinds);
  let choices = 0;
  let violations = 0;
  let encodes = 0;
  let ours = 0;
  let scanMs = 0;
  let allMs = 0;
  let encodeMs = 0;
  let best = 0;
  const rows = {};
  const broken = [];
  for (const kind of kinds) {
    const { matrix, rotary, partner, queries } = kind;
    const count = matrix.rows * matrix.columns;
    for (const metric of METRICS) {
      if (metric === "attention" && count > JUDGED_VALUES_MAX) continue;
      for (const epsilon of EPSILONS) {
        const probes = queries.slice(0, PROBES * matrix.columns);
        const attention = { role: "keys", queries: probes, partner };
        const context = { rotary, ...(metric === "attention" ? { attention } : {}) };
        const budget = { metric, epsilon };
        const found = compressor.compress(matrix, budget, context);
        const decoded = compressor.decompress(found.bytes);
        const values = new Float32Array(decoded.bytes.slice().buffer);
        const error = trueError(kind, values, metric);
        choices++;
        encodes += found.encodeCount;
        if (!(error <= epsilon)) {
          violations++;
          broken.push(`${kind.name} ${metric} ${epsilon}: ${error} with ${found.codec}`);
        }
        const bits = ((found.bytes.byteLength * 8) / count).toFixed(2);
        rows[`${kind.name} · ${metric}`] ??= {};
        rows[`${kind.name} · ${metric}`][epsilon] = `${found.codec} ${bits}`;
        if (metric === "attention") continue;
        if (epsilon > 0) {
          const [scanEach, allEach] = timeScan(compressor, kind, budget, context);
          scanMs += scanEach;
          allMs += allEach;
          encodeMs += timeEncode(compressor, kind, found.choice);
        }
        ours += found.bytes.byteLength / count;
        best += oracleBytes(compressor, kind, budget, context) / count;
      }
    }
  }
  for (const line of broken) console.log(`broken: ${line}`);
  const figures = [
    atMost("adaptive-violations", violations, 0, `${choices} choices`, "choices"),
    atMost("adaptive-encodes-per-choice", encodes / choices, 1.1, "lossless ones included"),
    atMost("adaptive-bytes-over-oracle", ours / best, 1.01, "bits per value, summed"),
    atMost("adaptive-scan-over-encode", scanMs / encodeMs, 0.2, "summed over the choices made"),
    plain("adaptive-scan-and-probe-over-encode", allMs / encodeMs, "ratio", "with the spectrum"),
  ];
  return { tables: [rows], figures };
}
