// From a tensor and one of its copies to the header that the copy's record has.
import type { RecordHeader, RecordName } from "../record/record.js";
import { type ColdCopy, nameOf, type TensorRecord } from "./tensor-record.js";

export function headerOf(
  namespace: Omit<RecordName, "id">,
  record: TensorRecord,
  copy: Omit<ColdCopy, "version" | "isInexact">,
): RecordHeader {
  return {
    tenant: namespace.tenant,
    fingerprint: namespace.fingerprint,
    id: nameOf(record),
    kind: record.kind,
    dtype: record.dtype,
    shape: record.shape,
    layout: record.layout,
    codecId: copy.codecId,
    isDurable: copy.isDurable,
    isSaved: copy.isSaved,
    generation: copy.generation,
    expiresMs: copy.expiresMs,
    rawBytes: record.byteLength,
    storedBytes: copy.storedBytes,
  };
}
