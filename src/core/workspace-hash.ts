// A hash of bytes, computed in a codec workspace: for telling things apart, not for integrity. Layer: core.
import * as abi from "../../assembly/kernels-abi.js";
import type { CodecWorkspace } from "./codec-workspace.js";

/**
 * The first 32 bits of the bytes' XXH3, never 0.
 *
 * @throws {RangeError} Fewer than {@link abi.HASH_TOTAL_BYTES_MIN} bytes, or no room for them.
 */
export function workspaceHash(workspace: CodecWorkspace, bytes: Uint8Array): number {
  return workspace.within(() => {
    const { kernels } = workspace;
    const { byteLength } = bytes;
    const input = workspace.take(byteLength);
    workspace.bytes(input, byteLength).set(bytes);
    const state = workspace.take(abi.HASH_STATE_BYTES);
    const secret = workspace.take(abi.HASH_SECRET_BYTES);
    const digest = workspace.take(abi.HASH_DIGEST_BYTES);
    const blockCount = Math.max(0, Math.ceil(byteLength / abi.HASH_BLOCK_BYTES) - 1);
    const end = input + blockCount * abi.HASH_BLOCK_BYTES;
    kernels.hashSetup(secret);
    kernels.hashBegin(state);
    kernels.hashBlocks(state, secret, input, blockCount);
    const status = kernels.hashEnd(state, secret, end, input + byteLength - end, digest);
    if (status !== 0) throw new RangeError("too few bytes for this hash");
    return workspace.u32(digest, 1)[0] || 1;
  });
}
