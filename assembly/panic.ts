// Panic: where a failed assertion of a debug build leaves its place before it traps. Layer 0.
// Release builds hold no assertion and never reach this file.
//
//   byte 16       20
//        ┌────────┬────────┐
//        │ line   │ column │   of the failed assertion, valid after a trap
//        └────────┴────────┘
import { PANIC_ADDRESS } from "./abi";

/** Replaces `abort`: notes `line` and `column` in the panic record and traps. */
export function onAbort(_message: usize, _fileName: usize, line: u32, column: u32): void {
  store<u32>(PANIC_ADDRESS, line);
  store<u32>(PANIC_ADDRESS, column, 4);
  unreachable();
}
