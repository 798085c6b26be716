// Firefox and WebKitGTK as the system has them, driven by what they bring along: Marionette's socket and WebDriver's
// HTTP. Enough of either to open a page and call a function in it.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const START_MS = 60_000;
const SCRIPT_MS = 600_000;
const FIREFOX_PATHS = ["/usr/bin/firefox", "/usr/bin/firefox-esr"];
const WEBKIT_DRIVER = "/usr/bin/WebKitWebDriver";
const XVFB = "/usr/bin/Xvfb";
const MINI_BROWSER = "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser";

export interface Engine {
  open(url: string): Promise<void>;
  /** Calls a function of an object on `window`, and waits for what it gives. */
  call<T>(object: string, method: string, ...parameters: readonly unknown[]): Promise<T>;
  close(): Promise<void>;
}

/** Path of a Firefox, or why there is none. */
export function findFirefox(): { readonly path: string } | { readonly missing: string } {
  const path = [process.env["TIERHEAP_FIREFOX"], ...FIREFOX_PATHS].find(
    (each) => each && existsSync(each),
  );
  return path ? { path } : { missing: "no Firefox is installed" };
}

/** What WebKitGTK lacks here, or null. */
export function missingWebKit(): string | null {
  const absent = [WEBKIT_DRIVER, XVFB, MINI_BROWSER].filter((path) => !existsSync(path));
  return absent.length === 0 ? null : `WebKitGTK lacks ${absent.join(", ")}`;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function until<T>(what: string, attempt: () => Promise<T>): Promise<T> {
  const endMs = performance.now() + START_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (cause) {
      if (performance.now() > endMs) throw new Error(`${what} does not start`, { cause });
      await pause(100);
    }
  }
}

/** The same script for both: the last argument takes the answer. */
const SCRIPT = `
  const [object, method, parameters, done] = arguments;
  const isThere = async () => {
    while (window[object] === undefined) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  isThere()
    .then(() => window[object][method](...parameters))
    .then((value) => done({ value }), (error) => done({ error: String(error) }));
`;

interface Answer<T> {
  readonly value?: T;
  readonly error?: string;
}

function resultOf<T>({ value, error }: Answer<T>): T {
  if (error !== undefined) throw new Error(error);
  return value as T;
}

function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) {
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.kill("SIGKILL");
  });
}

/** Marionette: each message is its length, a colon and JSON; answers come in the order of requests. */
class Marionette {
  readonly #socket: Socket;
  readonly #waiting: ((answer: [number, number, { message: string } | null, unknown]) => void)[] =
    [];
  #bytes: Buffer = Buffer.alloc(0);
  #lastId = 0;

  constructor(port: number, onReady: () => void, onError: (error: Error) => void) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.on("error", onError);
    this.#socket.on("data", (data) => {
      this.#bytes = Buffer.concat([this.#bytes, data]);
      for (;;) {
        const colon = this.#bytes.indexOf(":");
        const end = colon + 1 + Number(this.#bytes.subarray(0, Math.max(colon, 0)));
        if (colon < 0 || this.#bytes.length < end) return;
        const message = JSON.parse(this.#bytes.subarray(colon + 1, end).toString());
        this.#bytes = this.#bytes.subarray(end);
        if (Array.isArray(message)) this.#waiting.shift()?.(message as never);
        else onReady();
      }
    });
  }

  send<T>(command: string, parameters: object): Promise<T> {
    this.#lastId += 1;
    const text = Buffer.from(JSON.stringify([0, this.#lastId, command, parameters]));
    this.#socket.write(`${text.length}:`);
    this.#socket.write(text);
    return new Promise((resolve, reject) => {
      this.#waiting.push(([, , error, result]) => {
        if (error === null) resolve(result as T);
        else reject(new Error(error.message));
      });
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

export async function launchFirefox(path: string): Promise<Engine> {
  const profile = await mkdtemp(join(tmpdir(), "tierheap-firefox-"));
  await writeFile(
    join(profile, "user.js"),
    'user_pref("marionette.port", 0); user_pref("app.update.enabled", false);',
  );
  const child = spawn(path, ["--headless", "--marionette", "--no-remote", "--profile", profile], {
    stdio: "ignore",
  });
  try {
    const port = await until("Firefox", async () => {
      const text = await readFile(join(profile, "MarionetteActivePort"), "utf8");
      if (text === "") throw new Error("the port is not written yet");
      return Number(text);
    });
    const session = await new Promise<Marionette>((resolve, reject) => {
      const opened = new Marionette(port, () => resolve(opened), reject);
    });
    await session.send("WebDriver:NewSession", { capabilities: {} });
    await session.send("WebDriver:SetTimeouts", { script: SCRIPT_MS });
    return {
      open: (url) => session.send("WebDriver:Navigate", { url }),
      call: async <T>(object: string, method: string, ...parameters: readonly unknown[]) => {
        const args = [object, method, parameters];
        const { value } = await session.send<{ value: Answer<T> }>("WebDriver:ExecuteAsyncScript", {
          script: SCRIPT,
          args,
        });
        return resultOf(value);
      },
      close: async () => {
        session.close();
        await end(child);
        await rm(profile, { recursive: true, force: true, maxRetries: 5 });
      },
    };
  } catch (error) {
    await end(child);
    throw error;
  }
}

/** @param features Of the engine, switched on: without them it has no private file system at all. */
export async function launchWebKit(features: string): Promise<Engine> {
  const display = `:${100 + (process.pid % 400)}`;
  const port = 20_000 + (process.pid % 20_000);
  const screen = spawn(XVFB, [display, "-screen", "0", "1280x900x24"], { stdio: "ignore" });
  const home = await mkdtemp(join(tmpdir(), "tierheap-webkit-"));
  const driver = spawn(WEBKIT_DRIVER, [`--port=${port}`, "--host=127.0.0.1"], {
    stdio: "ignore",
    env: { ...process.env, DISPLAY: display, JSC_useSharedArrayBuffer: "1", HOME: home },
  });
  const ask = async <T>(method: string, path: string, body?: object): Promise<T> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      ...(body && { body: JSON.stringify(body) }),
    });
    const { value } = (await response.json()) as { value: T & { message?: string } };
    if (!response.ok) throw new Error(value.message);
    return value;
  };
  const endAll = async () => {
    await end(driver);
    await end(screen);
    await rm(home, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    const args = ["--automation", ...(features === "" ? [] : [`--features=${features}`])];
    const alwaysMatch = { "webkitgtk:browserOptions": { binary: MINI_BROWSER, args } };
    const { sessionId } = await until("WebKit", () =>
      ask<{ sessionId: string }>("POST", "/session", { capabilities: { alwaysMatch } }),
    );
    const session = `/session/${sessionId}`;
    await ask("POST", `${session}/timeouts`, { script: SCRIPT_MS, pageLoad: START_MS });
    return {
      open: async (url) => {
        await ask("POST", `${session}/url`, { url });
      },
      call: async <T>(object: string, method: string, ...parameters: readonly unknown[]) => {
        const args = [object, method, parameters];
        return resultOf(
          await ask<Answer<T>>("POST", `${session}/execute/async`, { script: SCRIPT, args }),
        );
      },
      close: async () => {
        await ask("DELETE", session).catch(() => {});
        await endAll();
      },
    };
  } catch (error) {
    await endAll();
    throw error;
  }
}
