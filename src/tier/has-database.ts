// Whether a browser has an IndexedDB database already, asked without the tier that would open it.

/** Whether there is a database of that name; false where the browser does not tell. */
export async function hasDatabase(name: string): Promise<boolean> {
  const list = (globalThis.indexedDB as IDBFactory | undefined)?.databases;
  const found = await list?.call(indexedDB).catch(() => []);
  return found?.some((each) => each.name === name) ?? false;
}
