// Files whose pieces are written behind their writers, as those are that a worker writes.
import type { FileSystem, FileWriter } from "../../src/tier/file-system.js";
import { MessageBuffers } from "../../src/tier/message-buffers.js";
import { type SendPart, WritesBehind } from "../../src/tier/opfs-writes.js";

function behind(writer: FileWriter): FileWriter {
  let writtenBytes = 0;
  let last: Promise<unknown> = Promise.resolve();
  const send: SendPart = (bytes, offset, isBehind) => {
    const moved = last.then(async () => {
      if (isBehind && writtenBytes < offset) return { count: 0, bytes };
      const count = await writer.write([bytes], offset);
      writtenBytes = Math.max(writtenBytes, offset + count);
      return { count, bytes };
    });
    last = moved.catch(() => {});
    return moved;
  };
  const writes = new WritesBehind(send, new MessageBuffers());
  return {
    ...writer,
    writeBehind: (source, offset) => writes.write(source, offset),
    settle: () => writes.settle(),
    close: async () => {
      await last;
      await writer.close();
    },
  };
}

export function writingBehind(files: FileSystem): FileSystem {
  return { ...files, create: async (path) => behind(await files.create(path)) };
}
