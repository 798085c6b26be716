// Seam: which tensors a stream of accesses will want next.

export interface Predictor {
  readonly name: string;
  /**
   * Notes an access and names what to prefetch.
   *
   * @param stream Tag of the caller's stream; accesses of different streams are not mixed.
   * @returns Ids, nearest first; empty when there is no prediction.
   */
  observe(stream: string, id: string): readonly string[];
}
