/** A ZIP archive of files that are compressed already: they are stored as they are. (PKWARE's APPNOTE, 4.3) */

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

export function crc32(data) {
  let crc = 0xffffffff;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** @param {number[]} values with their widths in bytes, in turn */
function record(...values) {
  const size = values.reduce((sum, _, index) => (index % 2 ? sum + values[index] : sum), 0);
  const view = new DataView(new ArrayBuffer(size));
  let at = 0;
  for (let index = 0; index < values.length; index += 2) {
    if (values[index + 1] === 4) view.setUint32(at, values[index], true);
    else view.setUint16(at, values[index], true);
    at += values[index + 1];
  }
  return new Uint8Array(view.buffer);
}

/** @param {{name: string, blob: Blob, date: Date}[]} entries @returns {Promise<Blob>} */
export async function zip(entries) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, blob, date } of entries) {
    const path = new TextEncoder().encode(name);
    const data = new Uint8Array(await blob.arrayBuffer());
    const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
    const day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
    // version 2.0; bit 11: the name is UTF-8; method 0: stored
    const common = [20, 2, 0x800, 2, 0, 2, time, 2, day, 2, crc32(data), 4, data.length, 4, data.length, 4, path.length, 2, 0, 2];
    const local = record(0x04034b50, 4, ...common);
    parts.push(local, path, blob);
    directory.push(record(0x02014b50, 4, 20, 2, ...common, 0, 2, 0, 2, 0, 2, 0, 4, offset, 4), path);
    offset += local.length + path.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record(0x06054b50, 4, 0, 2, 0, 2, entries.length, 2, entries.length, 2, size, 4, offset, 4, 0, 2);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** No name twice: the second is `fox-2.png`. */
export function uniqueNames(names) {
  const seen = new Map();
  return names.map((name) => {
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    return count === 1 ? name : name.replace(/(\.\w+)?$/, `-${count}$1`);
  });
}
