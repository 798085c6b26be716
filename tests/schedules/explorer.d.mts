export interface Modules {
  readonly resumable: WebAssembly.Module;
  readonly release: WebAssembly.Module;
}
export interface ExplorationCounts {
  readonly schedules: number;
  readonly systematic: number;
  readonly calls: number;
  readonly busy: number;
  readonly touches: number;
  readonly violation: string | null;
}
export function compileModules(options?: { readonly isBroken?: boolean }): Promise<Modules>;
export function explore(
  modules: Modules,
  options: { readonly scheduleCount: number; readonly seed: number },
): ExplorationCounts;
