// Plain calls of the private file system, as somebody would make them who stores bytes and nothing else.
let directory = null;
/** The one file that holds all objects, when they share one. */
let shared = null;

const calls = {
  open: async ({ name }) => {
    const root = await navigator.storage.getDirectory();
    directory = await root.getDirectoryHandle(name, { create: true });
    const entry = await directory.getFileHandle("all", { create: true });
    shared = await entry.createSyncAccessHandle();
  },
  write: async ({ index, bytes }) => {
    shared.write(bytes, { at: index * bytes.byteLength });
  },
  read: async ({ index, byteLength }) => {
    const bytes = new Uint8Array(byteLength);
    shared.read(bytes, { at: index * byteLength });
    return bytes;
  },
  writeFile: async ({ index, bytes }) => {
    const entry = await directory.getFileHandle(`${index}`, { create: true });
    const handle = await entry.createSyncAccessHandle();
    handle.write(bytes, { at: 0 });
    handle.close();
  },
  readFile: async ({ index, byteLength }) => {
    const entry = await directory.getFileHandle(`${index}`);
    const handle = await entry.createSyncAccessHandle();
    const bytes = new Uint8Array(byteLength);
    handle.read(bytes, { at: 0 });
    handle.close();
    return bytes;
  },
  close: async ({ name }) => {
    shared.close();
    const root = await navigator.storage.getDirectory();
    await root.removeEntry(name, { recursive: true });
  },
};

async function reply({ id, call, ...rest }) {
  const value = await calls[call](rest);
  postMessage({ id, value }, value === undefined ? [] : [value.buffer]);
}

addEventListener("message", ({ data }) => {
  reply(data).catch((error) => {
    // An error event ends the bench.
    queueMicrotask(() => {
      throw error;
    });
  });
});
