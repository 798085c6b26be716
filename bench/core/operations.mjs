// A recorded workload: flat arrays, so that the loop that replays it costs little beside the calls.
//
// Operation i concerns place `places[i]`. `sizes[i]` is the bytes to allocate into it, or 0: then the
// block in it is freed. A freed place is used again first, as a program's own records would be.

export class OperationList {
  #places = [];
  #sizes = [];
  #bytesAt = [];
  #freePlaces = [];
  #liveBytes = 0;
  #liveBytesPeak = 0;
  #allocationCount = 0;

  /** @returns The place. */
  allocate(bytes) {
    const place = this.#freePlaces.pop() ?? this.#bytesAt.length;
    this.#places.push(place);
    this.#sizes.push(bytes);
    this.#bytesAt[place] = bytes;
    this.#allocationCount += 1;
    this.#liveBytes += bytes;
    this.#liveBytesPeak = Math.max(this.#liveBytesPeak, this.#liveBytes);
    return place;
  }

  free(place) {
    this.#places.push(place);
    this.#sizes.push(0);
    this.#freePlaces.push(place);
    this.#liveBytes -= this.#bytesAt[place];
  }

  /** The operations as typed arrays, with what is known about them. */
  finish() {
    const sizes = Int32Array.from(this.#sizes);
    return {
      places: Int32Array.from(this.#places),
      sizes,
      count: sizes.length,
      placeCount: this.#bytesAt.length,
      allocationCount: this.#allocationCount,
      sizeCount: new Set(sizes.filter((bytes) => bytes !== 0)).size,
      liveBytesPeak: this.#liveBytesPeak,
    };
  }
}
