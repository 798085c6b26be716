// What the core's statuses mean to a caller. Layer: core.
import * as abi from "../../assembly/abi.js";
import { MisuseError } from "../errors.js";

/** Whether a zero with this status beside it is ordinary: the caller decides. */
export function isOrdinary(status: number): boolean {
  switch (status) {
    case abi.STATUS_OK:
    case abi.STATUS_NO_ROOM:
    case abi.STATUS_NO_SLOT:
    case abi.STATUS_NO_METADATA:
    case abi.STATUS_NO_PLAN:
      return true;
    default:
      return false;
  }
}

/** The misuse that a status stands for; shortage, STATUS_BUSY and STATUS_OK are none. */
export function misuseOf(status: number): MisuseError {
  switch (status) {
    case abi.STATUS_STALE:
      return new MisuseError("stale-handle", "the handle's tensor was freed");
    case abi.STATUS_FOREIGN:
      return new MisuseError("foreign-handle", "the handle is not of this heap");
    case abi.STATUS_PINNED:
      return new MisuseError("pinned", "the block is pinned");
    case abi.STATUS_NOT_PINNED:
      return new MisuseError("unpinned", "the block is not pinned");
    case abi.STATUS_PIN_LIMIT:
      return new MisuseError("pin-limit", `more than ${abi.PIN_COUNT_MAX} pins on one block`);
    case abi.STATUS_NOT_OWNER:
      return new MisuseError("not-owner", "the block belongs to another worker");
    default:
      return new MisuseError("bad-option", `the core refused a call (status ${status})`);
  }
}
