#!/usr/bin/env node
// The command `tierheap`.
import { runCli } from "./cli.js";

process.exitCode = await runCli(process.argv.slice(2), {
  out: process.stdout,
  err: process.stderr,
});
