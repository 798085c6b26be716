// Compiles the loops that are timed. V8 shares code and call feedback between equal source texts, and
// a call whose site has seen two targets is no longer inlined; so each contestant gets loops of its
// own, made different by a counter in a comment.

let driverCount = 0;

/**
 * @param source.prepare Statements that make the arrays for handles; `heap` and `placeCount` are known.
 * @param source.allocate Statements that allocate `bytes` and keep the handle at `place`.
 * @param source.free Statements that free what is at `place`.
 * @returns A function of a heap and a number of places, which gives the loops over them:
 *   `replay` (0 in `sizes` means free), `fill`, `drop`, `pairs` and `stacks`, which hold at most
 *   `placeCount` blocks.
 */
export function compileDriver({ prepare, allocate, free }) {
  driverCount += 1;
  const text = `"use strict"; // ${driverCount}
    ${prepare}
    return {
      replay(places, sizes, from, to) { // ${driverCount}
        for (let index = from; index < to; index++) {
          const place = places[index];
          const bytes = sizes[index];
          if (bytes !== 0) { ${allocate} } else { ${free} }
        }
      },
      fill(places, sizes, from, to) { // ${driverCount}
        for (let index = from; index < to; index++) {
          const place = places[index];
          const bytes = sizes[index];
          ${allocate}
        }
      },
      drop(places, from, to) { // ${driverCount}
        for (let index = from; index < to; index++) {
          const place = places[index];
          ${free}
        }
      },
      pairs(bytes, place, count) { // ${driverCount}
        for (let index = 0; index < count; index++) {
          { ${allocate} }
          { ${free} }
        }
      },
      stacks(sizes, firstPlace, count) { // ${driverCount}
        const depthMax = sizes.length;
        for (let index = 0; index < count; index++) {
          for (let depth = 0; depth < depthMax; depth++) {
            const place = firstPlace + depth;
            const bytes = sizes[depth];
            ${allocate}
          }
          for (let depth = depthMax - 1; depth >= 0; depth--) {
            const place = firstPlace + depth;
            ${free}
          }
        }
      },
    };`;
  // The text holds nothing but the statements of our own contestants.
  // oxlint-disable-next-line typescript/no-implied-eval
  return new Function("heap", "placeCount", text);
}
