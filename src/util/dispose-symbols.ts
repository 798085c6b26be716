// WebKit lacks the symbols that `using` needs. Imported first by the browser entry, because classes
// take the symbols' values when they are defined.
const symbols = Symbol as { dispose?: symbol; asyncDispose?: symbol };
symbols.dispose ??= Symbol.for("Symbol.dispose");
symbols.asyncDispose ??= Symbol.for("Symbol.asyncDispose");
