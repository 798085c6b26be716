// Imports the library afresh: code of its own, and so call feedback of its own. A process that has
// two control planes otherwise pays for both in the figures of each, and a program has one.
import { register } from "node:module";

// A module imported with `?copy=` hands that mark on to all that it imports.
const hooks = `
  export async function resolve(specifier, context, next) {
    const resolved = await next(specifier, context);
    const copy = /[?&]copy=\\d+$/.exec(context.parentURL ?? "")?.[0];
    const isMarked = copy === undefined || !resolved.url.startsWith("file:");
    return isMarked || resolved.url.includes("?") ? resolved : { ...resolved, url: resolved.url + copy };
  }`;

let copyCount = 0;

/** @param path Of a built file, relative to the repository's root. */
export async function importFresh(path) {
  if (copyCount === 0) register(`data:text/javascript,${encodeURIComponent(hooks)}`);
  copyCount += 1;
  return import(`${new URL(`../../../${path}`, import.meta.url)}?copy=${copyCount}`);
}
