// The stores in Firefox and in WebKit, which `npm test` leaves out. Installs what Debian has, if it may; an engine that is
// not there is a named skip. The browsers are the system's: Playwright drives neither of them.
//
//   TIERHEAP_FIREFOX=/path/to/firefox   use this one
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { ensureChromium } from "./browser.mjs";
import { binary, root } from "./steps.mjs";

const PACKAGES = ["firefox-esr", "webkit2gtk-driver", "xvfb", "xauth"];
const FILES = ["/usr/bin/firefox-esr", "/usr/bin/WebKitWebDriver", "/usr/bin/Xvfb"];

function run(command, args) {
  return spawnSync(command, args, { cwd: root, stdio: "inherit" }).status;
}

const isDebian =
  existsSync("/usr/bin/apt-get") && /^ID=debian$/m.test(readFileSync("/etc/os-release", "utf8"));
if (!FILES.every((file) => existsSync(file)) && isDebian && process.getuid?.() === 0) {
  const apt = (...args) => run("apt-get", ["-o", "DPkg::Lock::Timeout=300", ...args]);
  if (apt("update") === 0) apt("install", "-y", "--no-install-recommends", ...PACKAGES);
}
const hasChromium = ensureChromium() !== undefined;
if (!hasChromium) console.error("no Chromium can be had: its tests are not run");
const built = run(process.execPath, ["scripts/build.mjs"]);
const vitest = (project) =>
  run(process.execPath, [binary("vitest", "vitest.mjs"), "run", "--project", project]);
const others = built === 0 ? vitest("browsers") : built;
const chromium = hasChromium && built === 0 ? vitest("browser") : 1;
process.exitCode = others || chromium || 0;
