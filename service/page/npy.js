/** Reads a matrix of float32 in NumPy's file format, version 1. */

/** Returns the rows. Throws Error for any other type or order. */
export function rowsFromNpy(buffer) {
  const view = new DataView(buffer);
  const headerLength = view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, 10, headerLength));
  const shape = /'shape': \((\d+), (\d+)\)/.exec(header);
  if (view.getUint8(6) !== 1 || !header.includes("'<f4'") || !header.includes("False") || !shape) {
    throw new Error(`npy: expected a matrix of float32, got ${header.trim()}`);
  }
  const values = new Float32Array(buffer.slice(10 + headerLength));
  const [rows, columns] = [Number(shape[1]), Number(shape[2])];
  return Array.from({ length: rows }, (_, row) => values.subarray(row * columns, (row + 1) * columns));
}
