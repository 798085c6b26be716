// Finds a Chromium for the browser tests, or installs one. Run by itself it prints the path.
//
//   TIERHEAP_CHROMIUM=/path/to/chrome   use this one
//   TIERHEAP_NO_BROWSER=1               leave the browser tests out, by name (see test.mjs)
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const SYSTEM_PATHS = [
  "/usr/bin/chromium",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/** What a headless test needs; the sandbox does not work as root. */
export const CHROMIUM_OPTIONS = {
  headless: true,
  chromiumSandbox: false,
  args: [
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
  ],
};

/** Path of a Chromium that is installed, or undefined. A path that was asked for must exist. */
export function findChromium() {
  const asked = process.env.TIERHEAP_CHROMIUM;
  if (asked) return existsSync(asked) ? asked : undefined;
  return [...SYSTEM_PATHS, chromium.executablePath()].find((path) => path && existsSync(path));
}

// What installers print goes to stderr, so that stdout carries only the path.
function succeeds(command, args) {
  return spawnSync(command, args, { stdio: ["ignore", 2, 2] }).status === 0;
}

function installFromDebian() {
  const apt = (...args) => succeeds("apt-get", ["-o", "DPkg::Lock::Timeout=300", ...args]);
  const packages = ["chromium", "chromium-sandbox", "fonts-liberation"];
  return apt("update") && apt("install", "-y", "--no-install-recommends", ...packages);
}

/** Path of a Chromium, installed if need be, or undefined when there is none to be had. */
export function ensureChromium() {
  const found = findChromium();
  if (found !== undefined) return found;
  if (process.env.TIERHEAP_CHROMIUM) {
    console.error(`TIERHEAP_CHROMIUM names ${process.env.TIERHEAP_CHROMIUM}, which does not exist`);
    return undefined;
  }
  const hasApt = process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");
  // Ubuntu's package is a stub that asks for snap.
  const isDebian = hasApt && /^ID=debian$/m.test(readFileSync("/etc/os-release", "utf8"));
  console.error("no Chromium found; installing one");
  if (!(isDebian && installFromDebian())) {
    const require = createRequire(import.meta.url);
    const cli = join(dirname(require.resolve("playwright-core/package.json")), "cli.js");
    succeeds(process.execPath, [cli, "install", ...(hasApt ? ["--with-deps"] : []), "chromium"]);
  }
  return findChromium();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const path = ensureChromium();
  if (path === undefined) {
    console.error("no Chromium could be installed; TIERHEAP_NO_BROWSER=1 leaves its tests out");
    process.exitCode = 1;
  } else {
    console.log(path);
  }
}
