// Builds the model beside the page, which stays alive meanwhile.
import { buildDecoder } from "../chat/model/decoder.js";
import { MODEL } from "./model.js";

const bytes = buildDecoder(MODEL);
postMessage(bytes, { transfer: [bytes.buffer] });
