// `tierheap plan`: whether some chats fit, before anything is loaded.
import { readFile } from "node:fs/promises";
import { MisuseError } from "../errors.js";
import { KV_FORMS, type KvForm } from "../plan/kv-bytes.js";
import { MODEL_SHAPES, type ModelShape } from "../plan/models.js";
import { planMemory } from "../plan/plan-memory.js";
import { COLD_TIERS, type PlanRequest } from "../plan/plan-request.js";
import { formatPlan } from "../plan/plan-text.js";
import { describe } from "../types.js";
import {
  type Command,
  CommandError,
  type CommandIo,
  type CommandOptions,
  EXIT_USAGE,
} from "./command.js";

type Values = Readonly<Record<string, string | undefined>>;

function numberOf(values: Values, name: string): number {
  const text = values[name] ?? "";
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new CommandError(EXIT_USAGE, `--${name} is a number, not ${describe(text)}`);
}

/** `1920x1080` or `3:1920x1080`. */
function imagesOf(text: string): NonNullable<PlanRequest["images"]> {
  const match = /^(?:(\d+):)?(\d+)x(\d+)$/.exec(text);
  if (match === null) {
    throw new CommandError(EXIT_USAGE, `--images is such as 2:1024x768, not ${describe(text)}`);
  }
  const [, count = "1", width, height] = match;
  return { count: Number(count), width: Number(width), height: Number(height) };
}

/** A published model's name, or the path of a JSON file with a shape. */
async function modelOf(text: string): Promise<PlanRequest["model"]> {
  if (MODEL_SHAPES.has(text) || !text.endsWith(".json")) return text;
  try {
    return JSON.parse(await readFile(text, "utf8")) as ModelShape;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CommandError(EXIT_USAGE, `${describe(text)} is not JSON`);
  }
}

async function requestOf(values: Values): Promise<PlanRequest> {
  const { model, kv, images, ram, dtype } = values;
  if (model === undefined || ram === undefined) {
    throw new CommandError(EXIT_USAGE, "plan wants --model and --ram; see tierheap plan --help");
  }
  const optional = (name: string) =>
    values[name] === undefined ? undefined : numberOf(values, name);
  const given = COLD_TIERS.filter((name) => values[name] !== undefined);
  const cold = Object.fromEntries(given.map((name) => [name, values[name]]));
  return {
    model: await modelOf(model),
    chats: numberOf(values, "chats"),
    tokens: numberOf(values, "tokens"),
    sharedTokens: numberOf(values, "shared"),
    kv: kv as KvForm | undefined,
    dtype: dtype as PlanRequest["dtype"],
    images: images === undefined ? undefined : imagesOf(images),
    pageTokens: optional("page-tokens"),
    weightBits: optional("weights"),
    budgets: { ram, ...cold },
  };
}

async function plan(_: string, options: CommandOptions, { out }: CommandIo): Promise<number> {
  const request = await requestOf(options as Values);
  try {
    const result = planMemory(request);
    const isJson = options["json"] === true;
    out.write(isJson ? `${JSON.stringify(result, null, 2)}\n` : `${formatPlan(result)}\n`);
    return 0;
  } catch (error) {
    // The request came from the command line.
    if (error instanceof MisuseError) throw new CommandError(EXIT_USAGE, error.message);
    throw error;
  }
}

export const PLAN: Command = {
  synopsis: "plan",
  summary: "Says whether some chats of a model fit, before anything is loaded.",
  help: `  --model NAME        ${[...MODEL_SHAPES.keys()].join(", ")}, or a JSON file with
                      layers, kvHeads, headDim, and maybe name, dtype, parameterCount, vision
  --ram SIZE          the RAM budget, such as 8GiB
  --chats N           (1)
  --tokens N          tokens in the KV of each chat, those of images included (4096)
  --shared N          first tokens that all chats have in common (0)
  --kv FORM           ${KV_FORMS.join(", ")} (exact)
  --dtype TYPE        f32, f16 or bf16 (the model's)
  --page-tokens N     tokens of a KV page (64)
  --images N:WxH      images of each chat whose features are kept
  --weights BITS      bits of a weight, where the weights lie in the heap too
  --warm, --ssd, --hdd, --remote SIZE   further budgets
  --json              print JSON

Times are guesses here; memory.plan() of a program knows what its tiers have shown.
`,
  options: {
    model: { type: "string" },
    ram: { type: "string" },
    chats: { type: "string", default: "1" },
    tokens: { type: "string", default: "4096" },
    shared: { type: "string", default: "0" },
    kv: { type: "string" },
    dtype: { type: "string" },
    "page-tokens": { type: "string" },
    images: { type: "string" },
    weights: { type: "string" },
    warm: { type: "string" },
    ssd: { type: "string" },
    hdd: { type: "string" },
    remote: { type: "string" },
    json: { type: "boolean" },
  },
  run: plan,
};
