/** Everything that is kept, in the order in which it came. */
export function readFigures(): import("./figure-tables.mjs").KeptFigure[];
